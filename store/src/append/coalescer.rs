//! Coalescing: appends that wait in the queue go to the server in one call.
//!
//! Each call runs in a task of its own, so that a caller that drops its future does not affect the
//! others. An append that the server skips, because another transaction has locked its stream, and
//! each append of a call that fails, goes alone afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::append::batch::BatchReply;
use crate::append::call::{AppendReply, Traced};
use crate::append::queue::Start;
use crate::append::queued::QueuedAppend;
use crate::append::request::{Append, Appended};
use crate::append::retry::close_if_unusable;
use crate::error::AppendError;
use crate::outbox::OUTBOX_POSITIONS_LEFT_MIN;
use crate::store::Store;
use crate::stream::{Position, StreamName};
use crate::telemetry;

impl Store {
    /// Appends at once if few other appends are in progress, and through the queue otherwise.
    pub(crate) async fn append_or_queue(&self, append: &Append) -> Result<Appended, AppendError> {
        let queue = self.append_queue();
        let _entered = queue.enter()?;
        append.validate(self.options().event_bytes_max)?;
        self.register_schemas(append).await?;
        let trace = self.current_trace();
        let traced = Traced { append, trace: trace.as_ref() };
        let Some(stream) = queue.stream_of(append).filter(|_| self.is_coalescing()) else {
            telemetry::called(Duration::ZERO, 1);
            return self.append_by_own_call(traced, None, Instant::now()).await;
        };
        if let Some(_permit) = queue.bypass(&stream) {
            telemetry::called(Duration::ZERO, 1);
            return self.append_with_retries(traced, None, Instant::now()).await;
        }
        let reply = queue.push(append.clone(), stream, trace)?;
        self.start_appends(&Handle::current());
        let reply = reply.await.map_err(|_no_result| AppendError::Interrupted)?;
        telemetry::called(reply.queued, reply.call_appends);
        reply.result
    }

    fn is_coalescing(&self) -> bool {
        self.options().coalescing.is_some()
    }

    /// Makes a call for one append, which can wait for locks of other transactions: when it has a
    /// permit, if appends are coalesced.
    async fn append_by_own_call(
        &self,
        append: Traced<'_>,
        unknown: Option<sqlx::Error>,
        started_at: Instant,
    ) -> Result<Appended, AppendError> {
        if !self.is_coalescing() {
            return self.append_with_retries(append, unknown, started_at).await;
        }
        let left = self.options().deadline.saturating_sub(started_at.elapsed());
        match tokio::time::timeout(left, self.append_queue().own_call()).await {
            Ok(_permit) => self.append_with_retries(append, unknown, started_at).await,
            Err(_elapsed) => Err(unknown
                .map_or(AppendError::Failed(sqlx::Error::PoolTimedOut), AppendError::Unknown)),
        }
    }

    /// Starts a task for each call or append that can start now.
    fn start_appends(&self, runtime: &Handle) {
        while let Some(start) = self.append_queue().start() {
            match start {
                Start::Call => {
                    let call = Call {
                        store: self.clone(),
                        task: TaskState::Spawned,
                        streams: None,
                        alone: Vec::new(),
                    };
                    drop(runtime.spawn(call.run()));
                }
                Start::Alone(append) => {
                    let (store, stream) = (self.clone(), append.stream.clone());
                    let lone = Lone { store, task: TaskState::Spawned, stream };
                    drop(runtime.spawn(lone.run(append)));
                }
            }
        }
    }

    /// Starts the calls that a task permits, by its end or by its selection.
    fn start_next_appends(&self, task: TaskState) {
        match (Handle::try_current(), task) {
            (Ok(runtime), TaskState::Polled) => self.start_appends(&runtime),
            // The runtime shuts down or has shut down, and with it the callers.
            (Ok(_) | Err(_), TaskState::Spawned) | (Err(_), TaskState::Polled) => {
                self.append_queue().clear();
            }
        }
    }
}

/// Whether a task has begun. A runtime that shuts down drops a new task before it begins, and would
/// drop the next one, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskState {
    Spawned,
    Polled,
}

/// A call in progress. Dropping it frees its streams, also after a panic.
struct Call {
    store: Store,
    task: TaskState,
    /// Those of its appends, once it has selected them.
    streams: Option<Vec<StreamName>>,
    alone: Vec<QueuedAppend>,
}

impl Drop for Call {
    fn drop(&mut self) {
        let alone = std::mem::take(&mut self.alone);
        self.store.append_queue().finish_call(self.streams.as_deref(), alone);
        self.store.start_next_appends(self.task);
    }
}

/// An append that goes alone. Dropping it frees its stream, also after a panic.
struct Lone {
    store: Store,
    task: TaskState,
    stream: StreamName,
}

impl Drop for Lone {
    fn drop(&mut self) {
        self.store.append_queue().finish_alone(&self.stream);
        self.store.start_next_appends(self.task);
    }
}

impl Lone {
    async fn run(mut self, queued: QueuedAppend) {
        self.task = TaskState::Polled;
        let started_at = Instant::now();
        let result = append_alone(&self.store, &queued).await;
        queued.complete(result, 1, started_at);
    }
}

/// Within the deadline since the append was queued: an append behind others of its stream does not
/// wait for it once more.
async fn append_alone(store: &Store, queued: &QueuedAppend) -> Result<Appended, AppendError> {
    let traced = Traced { append: &queued.append, trace: queued.trace.as_ref() };
    let unknown = queued.unknown.as_ref().map(shared);
    store.append_by_own_call(traced, unknown, queued.queued_at).await
}

/// An error that several appends share.
fn shared(error: &Arc<sqlx::Error>) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other(Arc::clone(error)))
}

impl Call {
    /// Selects the appends as late as possible, so that many go together: when the tasks that are
    /// ready to run have had their turn, and a connection is free. Without such tasks, the turn
    /// takes no time.
    async fn run(mut self) {
        self.task = TaskState::Polled;
        let store = self.store.clone();
        // Before the turn of other tasks, one of which returns the last call's connection to the
        // pool: a server process that made the last call has everything at hand.
        let acquired = store.connection_reuse().acquire(store.pool()).await;
        tokio::task::yield_now().await;
        let (started_at, appends) = (Instant::now(), self.select());
        let mut reusable = match acquired {
            Ok(reusable) => reusable,
            Err(error) => return self.fail_to_acquire(&error, appends, started_at),
        };
        if appends.is_empty() {
            return;
        }
        let replied = store.append_each(&mut reusable, &appends).await;
        let failed = match replied {
            Ok(Ok(replies)) => {
                self.complete(
                    &mut reusable.connection,
                    appends.into_iter().zip(replies),
                    started_at,
                )
                .await;
                store.connection_reuse().offer(reusable);
                return;
            }
            // The transaction is committed, and the reply is unreadable.
            Ok(Err(error)) => AppendError::Unknown(error),
            Err(error) => AppendError::from(error),
        };
        close_if_unusable(reusable, &failed);
        let failed = store.expire_read_only_sessions(failed);
        let unknown = match failed {
            AppendError::Unknown(error) => Some(Arc::new(error)),
            _ => None,
        };
        self.alone.extend(appends.into_iter().map(|mut queued| {
            queued.unknown.clone_from(&unknown);
            queued
        }));
    }

    fn select(&mut self) -> Vec<QueuedAppend> {
        let appends = self.store.append_queue().select();
        self.streams = Some(appends.iter().map(|append| append.stream.clone()).collect());
        // For appends that did not fit.
        self.store.start_next_appends(self.task);
        appends
    }

    /// Ends a call without a connection. Only a timeout is the same for all of its appends; for
    /// other errors, each append that goes alone gets an error of its own.
    fn fail_to_acquire(
        &mut self,
        error: &sqlx::Error,
        appends: Vec<QueuedAppend>,
        started_at: Instant,
    ) {
        if !matches!(error, sqlx::Error::PoolTimedOut) {
            self.alone = appends;
            return;
        }
        let count = appends.len();
        for queued in appends {
            let failed = AppendError::Failed(sqlx::Error::PoolTimedOut);
            queued.complete(Err(failed), count, started_at);
        }
    }

    /// Sends the results to the callers, those that need no further statement first.
    async fn complete(
        &mut self,
        connection: &mut sqlx::PgConnection,
        replied: impl ExactSizeIterator<Item = (QueuedAppend, BatchReply)>,
        started_at: Instant,
    ) {
        let count = replied.len();
        let mut refused = Vec::new();
        let mut last: Option<Position> = None;
        for (queued, reply) in replied {
            match reply {
                BatchReply::Replied(AppendReply::Recorded(recorded)) => {
                    let appended = recorded.into_appended(&queued.append);
                    last = last.max(appended.last_position());
                    queued.complete(Ok(appended), count, started_at);
                }
                BatchReply::Replied(AppendReply::Refused(rows)) => refused.push((queued, rows)),
                BatchReply::Skipped => self.alone.push(queued),
            }
        }
        for (queued, rows) in refused {
            let reply = AppendReply::Refused(rows);
            let result = self.store.result_of(connection, &queued.append, reply).await;
            queued.complete(result, count, started_at);
        }
        if last.is_some() && self.store.outbox_positions_left(last) < OUTBOX_POSITIONS_LEFT_MIN {
            self.store.extend_outbox_on(connection).await;
        }
    }
}
