//! Options of the coalescing of appends.

use std::num::NonZeroUsize;

const fn at_least_one(number: usize) -> NonZeroUsize {
    match NonZeroUsize::new(number) {
        Some(number) => number,
        None => NonZeroUsize::MIN,
    }
}

/// How a store coalesces appends: an append that arrives while several others of the same store are
/// in progress waits in a queue, and all appends in the queue go to the server in one call.
///
/// A call runs in a task on the runtime of one of its callers.
///
/// There is no timer: an append that arrives while few others are in progress goes to the server at
/// once, on its own.
///
/// ```
/// use annals_store::{Coalescing, StoreOptions};
///
/// let options = StoreOptions::default().coalescing(Coalescing::default().direct_max(8));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coalescing {
    pub(crate) direct_max: usize,
    pub(crate) calls_max: NonZeroUsize,
    pub(crate) call_events_max: NonZeroUsize,
    pub(crate) call_bytes_max: NonZeroUsize,
    pub(crate) queue_events_max: NonZeroUsize,
    pub(crate) queue_bytes_max: NonZeroUsize,
}

impl Default for Coalescing {
    fn default() -> Self {
        Self {
            direct_max: 4,
            calls_max: at_least_one(2),
            call_events_max: at_least_one(1_000),
            call_bytes_max: at_least_one(1024 * 1024),
            queue_events_max: at_least_one(100_000),
            queue_bytes_max: at_least_one(64 * 1024 * 1024),
        }
    }
}

impl Coalescing {
    /// Number of concurrent appends up to which each goes to the server at once, on its own; 4 by
    /// default. Calls of one or two appends cost more than appends alone.
    #[must_use]
    pub const fn direct_max(mut self, direct_max: usize) -> Self {
        self.direct_max = direct_max;
        self
    }

    /// Maximum number of concurrent calls; 2 by default. Each uses a connection of the pool, and
    /// together they use at most half of them.
    #[must_use]
    pub const fn calls_max(mut self, calls_max: NonZeroUsize) -> Self {
        self.calls_max = calls_max;
        self
    }

    /// Maximum number of events of a call; 1,000 by default. An append with more events goes alone.
    #[must_use]
    pub const fn call_events_max(mut self, events_max: NonZeroUsize) -> Self {
        self.call_events_max = events_max;
        self
    }

    /// Maximum size of the events of a call; 1 MiB by default. A larger append goes alone.
    #[must_use]
    pub const fn call_bytes_max(mut self, bytes_max: NonZeroUsize) -> Self {
        self.call_bytes_max = bytes_max;
        self
    }

    /// Maximum number of events in the queue; 100,000 by default. Above it, an append fails with
    /// [`AppendError::QueueFull`](crate::AppendError::QueueFull).
    #[must_use]
    pub const fn queue_events_max(mut self, events_max: NonZeroUsize) -> Self {
        self.queue_events_max = events_max;
        self
    }

    /// Maximum size of the events in the queue; 64 MiB by default. Above it, an append fails with
    /// [`AppendError::QueueFull`](crate::AppendError::QueueFull).
    #[must_use]
    pub const fn queue_bytes_max(mut self, bytes_max: NonZeroUsize) -> Self {
        self.queue_bytes_max = bytes_max;
        self
    }
}
