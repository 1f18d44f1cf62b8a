//! An append in the queue or in a call, and its result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::append::request::{Append, Appended};
use crate::error::AppendError;
use crate::event::{EventId, NewEvent};
use crate::stream::StreamName;
use crate::trace::TraceContext;

/// An append in the queue or in a call.
#[derive(Debug)]
pub(crate) struct QueuedAppend {
    pub(crate) append: Append,
    pub(crate) stream: StreamName,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) bytes: usize,
    pub(crate) queued_at: Instant,
    reply: oneshot::Sender<Reply>,
    /// The error of an earlier call that leaves the outcome unknown.
    pub(crate) unknown: Option<Arc<sqlx::Error>>,
}

/// The result of a queued append.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) result: Result<Appended, AppendError>,
    /// The number of appends in the call that made it.
    pub(crate) call_appends: usize,
    /// The time in the queue.
    pub(crate) queued: Duration,
}

impl QueuedAppend {
    /// A queued append, and the receiver of its result.
    pub(crate) fn new(
        append: Append,
        stream: StreamName,
        trace: Option<TraceContext>,
    ) -> (Self, oneshot::Receiver<Reply>) {
        let (reply, receiver) = oneshot::channel();
        let (bytes, queued_at) = (append.bytes(), Instant::now());
        let queued = Self { append, stream, trace, bytes, queued_at, reply, unknown: None };
        (queued, receiver)
    }

    /// Whether the caller has dropped its future.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    pub(crate) fn events(&self) -> usize {
        self.append.events.len()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = EventId> {
        self.append.events().map(NewEvent::id)
    }

    /// Sends the result to the caller, if its future still exists.
    pub(crate) fn complete(
        self,
        result: Result<Appended, AppendError>,
        call_appends: usize,
        started_at: Instant,
    ) {
        let queued = started_at.saturating_duration_since(self.queued_at);
        drop(self.reply.send(Reply { result, call_appends, queued }));
    }
}
