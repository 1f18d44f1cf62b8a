//! The queue of appends that wait for a call, and the rules by which they leave it.
//!
//! An append waits while an earlier append to its stream is in progress, so that the appends to a
//! stream keep their order. Two appends with a common event id are never in one call.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{AcquireError, Notify, Semaphore, SemaphorePermit, oneshot};

use crate::append::coalescing::Coalescing;
use crate::append::queued::{QueuedAppend, Reply};
use crate::append::request::Append;
use crate::append::selection::Selection;
use crate::error::AppendError;
use crate::stream::StreamName;
use crate::trace::TraceContext;

/// Work that can start now.
#[derive(Debug)]
pub(crate) enum Start {
    /// A call, whose appends [`AppendQueue::select`] takes when it is about to be sent.
    Call,
    /// An append to go alone, which can wait for locks of other transactions.
    Alone(QueuedAppend),
}

/// The queue of a store.
#[derive(Debug)]
pub(crate) struct AppendQueue {
    options: Coalescing,
    alone_max: usize,
    /// For each append that makes a call of its own, and can wait for locks of other transactions.
    own_calls: Semaphore,
    state: Mutex<QueueState>,
    idle: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    queued: VecDeque<QueuedAppend>,
    /// Events and bytes of `queued` and `alone`.
    events: usize,
    bytes: usize,
    /// Appends to go alone.
    alone: VecDeque<QueuedAppend>,
    /// For each stream, the appends in calls, and those in `alone` or going alone.
    busy: HashMap<StreamName, usize>,
    /// Streams with an append going alone.
    going_alone: HashSet<StreamName>,
    /// Calls between their start and their end.
    calls: usize,
    /// Whether one of them has not selected its appends yet.
    is_selecting: bool,
    /// Appends between their start and their result, in the queue or not.
    entered: usize,
    is_closed: bool,
}

/// An append between its start and its result: closing waits for it.
#[derive(Debug)]
pub(crate) struct Entered<'a>(&'a AppendQueue);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.state().entered -= 1;
        self.0.idle.notify_waiters();
    }
}

impl AppendQueue {
    /// `connections_max` is the size of the pool. Appends that make calls of their own can wait for
    /// locks of other transactions, and leave connections for the calls of the queue, which do not,
    /// and for other users of the pool. A pool of one connection has none to leave.
    pub(crate) fn new(options: Coalescing, connections_max: u32) -> Self {
        let connections = usize::try_from(connections_max).unwrap_or(usize::MAX);
        let half = NonZeroUsize::new(connections / 2).unwrap_or(NonZeroUsize::MIN);
        let options = options.calls_max(options.calls_max.min(half));
        let alone_max = connections.saturating_sub(options.calls_max.get()).max(1);
        Self {
            options,
            alone_max,
            own_calls: Semaphore::new(alone_max.min(Semaphore::MAX_PERMITS)),
            state: Mutex::default(),
            idle: Notify::new(),
        }
    }

    /// No operation under this lock can leave a partial state.
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of an append that can go in a call with others. The locks of tags are taken
    /// before those of streams, so an append with tags cannot.
    pub(crate) fn stream_of(&self, append: &Append) -> Option<StreamName> {
        let [(stream, _)] = append.streams.as_slice() else { return None };
        let fits = append.events.len() <= self.options.call_events_max.get()
            && append.bytes() <= self.options.call_bytes_max.get();
        (fits && !append.events.is_empty() && !append.has_tags()).then(|| stream.clone())
    }

    /// Begins an append, unless the store is closed.
    pub(crate) fn enter(&self) -> Result<Entered<'_>, AppendError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(AppendError::Closed);
        }
        state.entered += 1;
        Ok(Entered(self))
    }

    /// The permit for a call of its own, if an append that has entered bypasses the queue: few
    /// others are in progress, none of them waits, and none is in a call to this stream.
    pub(crate) fn bypass(&self, stream: &StreamName) -> Option<SemaphorePermit<'_>> {
        let state = self.state();
        let is_bypassed = state.entered <= self.options.direct_max
            && state.queued.is_empty()
            && state.alone.is_empty()
            && !state.busy.contains_key(stream);
        if is_bypassed { self.own_calls.try_acquire().ok() } else { None }
    }

    /// Waits for the permit for a call of its own.
    pub(crate) async fn own_call(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.own_calls.acquire().await
    }

    /// Adds an append to the queue.
    pub(crate) fn push(
        &self,
        append: Append,
        stream: StreamName,
        trace: Option<TraceContext>,
    ) -> Result<oneshot::Receiver<Reply>, AppendError> {
        let (queued, receiver) = QueuedAppend::new(append, stream, trace);
        let mut state = self.state();
        let (events, bytes) = (state.events + queued.events(), state.bytes + queued.bytes);
        if events > self.options.queue_events_max.get()
            || bytes > self.options.queue_bytes_max.get()
        {
            return Err(AppendError::QueueFull { events: state.events, bytes: state.bytes });
        }
        (state.events, state.bytes) = (events, bytes);
        state.queued.push_back(queued);
        Ok(receiver)
    }

    /// Takes work that can start now; [`finish_call`](Self::finish_call) or
    /// [`finish_alone`](Self::finish_alone) must follow.
    pub(crate) fn start(&self) -> Option<Start> {
        let mut state = self.state();
        let alone = state.start_alone(self.alone_max).map(Start::Alone);
        alone.or_else(|| state.start_call(&self.options).then_some(Start::Call))
    }

    /// The appends of a call that has started: all that wait, within the limits of a call.
    pub(crate) fn select(&self) -> Vec<QueuedAppend> {
        let mut state = self.state();
        state.is_selecting = false;
        let appends = state.select(&self.options);
        if state.is_idle() {
            // Only appends without a caller were left.
            self.idle.notify_waiters();
        }
        appends
    }

    /// Notes the end of a call to the streams of its selected appends, none if it did not select
    /// them, with those of its appends that must go alone.
    pub(crate) fn finish_call(&self, streams: Option<&[StreamName]>, alone: Vec<QueuedAppend>) {
        let mut state = self.state();
        state.calls -= 1;
        if streams.is_none() {
            state.is_selecting = false;
        }
        for append in alone {
            state.events += append.events();
            state.bytes += append.bytes;
            *state.busy.entry(append.stream.clone()).or_default() += 1;
            state.alone.push_back(append);
        }
        for stream in streams.into_iter().flatten() {
            state.release(stream);
        }
        self.idle.notify_waiters();
    }

    /// Notes the end of an append that went alone.
    pub(crate) fn finish_alone(&self, stream: &StreamName) {
        let mut state = self.state();
        state.going_alone.remove(stream);
        state.release(stream);
        self.idle.notify_waiters();
    }

    /// Removes everything that has not started: its callers get an error.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        let alone = std::mem::take(&mut state.alone);
        for append in &alone {
            state.release(&append.stream);
        }
        let queued = std::mem::take(&mut state.queued);
        (state.events, state.bytes) = (0, 0);
        self.idle.notify_waiters();
        drop(state);
        drop((alone, queued));
    }

    /// Refuses further appends, and waits until all others have finished or are dropped.
    pub(crate) async fn close(&self) {
        self.state().is_closed = true;
        loop {
            let mut notified = std::pin::pin!(self.idle.notified());
            notified.as_mut().enable();
            if self.state().is_finished() {
                return;
            }
            notified.await;
        }
    }
}

impl QueueState {
    fn is_finished(&self) -> bool {
        self.is_idle() && self.entered == 0
    }

    /// Whether no append is in the queue, in a call or going alone.
    fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.alone.is_empty() && self.busy.is_empty()
    }

    fn release(&mut self, stream: &StreamName) {
        if let Some(appends) = self.busy.get_mut(stream) {
            *appends -= 1;
            if *appends == 0 {
                self.busy.remove(stream);
            }
        }
    }

    fn forget_size_of(&mut self, append: &QueuedAppend) {
        self.events -= append.events();
        self.bytes -= append.bytes;
    }

    fn start_alone(&mut self, alone_max: usize) -> Option<QueuedAppend> {
        if self.going_alone.len() >= alone_max {
            return None;
        }
        let is_free = |append: &QueuedAppend| !self.going_alone.contains(&append.stream);
        let index = self.alone.iter().position(is_free)?;
        let append = self.alone.remove(index)?;
        self.forget_size_of(&append);
        self.going_alone.insert(append.stream.clone());
        Some(append)
    }

    /// Starts a call if an append is free to go. Only one call at a time has yet to select its
    /// appends: until then, all that arrive can join it.
    fn start_call(&mut self, options: &Coalescing) -> bool {
        let is_free = |append: &QueuedAppend| !self.busy.contains_key(&append.stream);
        let starts = !self.is_selecting
            && self.calls < options.calls_max.get()
            && self.queued.iter().any(is_free);
        if starts {
            self.calls += 1;
            self.is_selecting = true;
        }
        starts
    }

    fn select(&mut self, options: &Coalescing) -> Vec<QueuedAppend> {
        let mut call = Selection::default();
        let mut left = VecDeque::with_capacity(self.queued.len());
        while let Some(append) = self.queued.pop_front() {
            if append.is_abandoned() {
                // The caller has dropped its future, and nothing was sent.
                self.forget_size_of(&append);
            } else if call.is_full(options) {
                left.push_back(append);
                break;
            } else if self.busy.contains_key(&append.stream) || !call.accepts(&append, options) {
                call.passed.insert(append.stream.clone());
                left.push_back(append);
            } else {
                self.forget_size_of(&append);
                call.add(append);
            }
        }
        // Appends that were not examined stay behind those that were passed over.
        left.append(&mut self.queued);
        self.queued = left;
        for append in &call.appends {
            *self.busy.entry(append.stream.clone()).or_default() += 1;
        }
        call.appends
    }
}

#[cfg(test)]
mod tests;
