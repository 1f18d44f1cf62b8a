//! Sessions of relays, and the numbers of their writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use uuid::Uuid;

use crate::config::Config;

/// A session: from joining the deployment to the loss of the lease or the end of the process.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(super) id: Uuid,
    writes: Arc<AtomicI64>,
    /// One for each producer. New for each session, so that fencing an old one never hits a new
    /// one.
    pub(crate) transactional_ids: [String; 2],
}

/// The number of a write: PostgreSQL refuses a write once it has admitted one with a higher number.
/// So a statement that was given up, and is executed late, changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteNumber {
    pub(super) session: Uuid,
    pub(super) number: i64,
}

impl Session {
    pub(crate) fn new(config: &Config) -> Self {
        let id = Uuid::now_v7();
        let start = id.simple();
        let name = |letter| format!("{}.{start}.{letter}", config.transactional_id_prefix());
        Self { id, writes: Arc::default(), transactional_ids: [name('a'), name('b')] }
    }

    /// The number of the next write, drawn in the order in which the causes of the writes happened.
    pub(crate) fn next_write(&self) -> WriteNumber {
        let number = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        WriteNumber { session: self.id, number }
    }
}
