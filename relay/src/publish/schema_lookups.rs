//! The schemas of messages, looked up beside the reader: those of several topics at once, and those
//! of one topic one after the other, in the order in which its events need them.
//!
//! A registry that does not answer, or slowly, delays events with new schemas and no others: after
//! a while, which is short if others wait, the result of a lookup is an outage for the page that
//! waits, which leaves the category out, and the lookup continues. The order in a topic keeps a
//! later version of a schema from being registered before an earlier one, which the registry could
//! refuse then.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use crate::model::event_format::WriterSchema;
use crate::publish::registry::Asking;
use crate::publish::writer_schemas::{SchemaKey, WriterSchemas};
use crate::report::failure::{Component, Failure};
use crate::report::threads::locked;

/// How many schemas are looked up at once: each takes two or three requests.
const LOOKUPS_MAX: usize = 16;
/// The longest that pages wait for one lookup that has begun, if nothing else is to be published.
/// Thousands of categories that begin together wait for each other, not for a slow registry.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lookups of schemas.
#[derive(Clone)]
pub(crate) struct SchemaLookups {
    schemas: Arc<WriterSchemas>,
    state: Arc<Mutex<LookupState>>,
    /// Notified when a lookup has ended.
    ended: Arc<Notify>,
    permits: Arc<Semaphore>,
}

#[derive(Default)]
struct LookupState {
    /// The schemas to look up, by topic; a topic with an empty queue has a lookup under way.
    queues: HashMap<Arc<str>, VecDeque<(SchemaKey, Asking)>>,
    /// The schemas in a queue or in a lookup.
    wanted: HashSet<SchemaKey>,
    /// Those of them that are too late for the page that waits for them.
    late: HashSet<SchemaKey>,
    found: HashMap<SchemaKey, Result<WriterSchema, Failure>>,
    /// Whether the last lookup took longer than a page waits.
    is_slow: bool,
    /// Why a lookup ended without a result.
    failure: Option<Failure>,
}

/// How far a lookup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookupProgress {
    /// It was not begun, or its result was taken.
    None,
    /// It is in a queue or under way.
    Pending,
    /// The registry did not answer.
    Failed,
    /// It has ended, with the schema's id or a refusal.
    Ended,
}

impl LookupState {
    /// The result of these lookups, once they have ended; a failure is returned once.
    fn outcome(&mut self, keys: &HashSet<SchemaKey>) -> Option<Result<(), Failure>> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        let is_pending = |key: &SchemaKey| self.wanted.contains(key) && !self.late.contains(key);
        (!keys.iter().any(is_pending)).then_some(Ok(()))
    }

    /// No page waits any longer for those of these that are not found yet.
    fn are_late<'a>(&mut self, keys: impl IntoIterator<Item = &'a SchemaKey>) {
        let wanted = keys.into_iter().filter(|key| self.wanted.contains(*key));
        self.late.extend(wanted.cloned());
    }

    /// A lookup has ended without a result. Those behind it in the queue of its topic are not
    /// begun: they are wanted again.
    fn fail(&mut self, key: SchemaKey, failure: Failure) {
        let queued = self.queues.get_mut(&key.topic).map(std::mem::take).unwrap_or_default();
        for (queued, _) in queued {
            self.wanted.remove(&queued);
            self.late.remove(&queued);
        }
        if failure.policy().quarantines.is_some() {
            self.found.insert(key, Err(failure));
        } else {
            // The page that waits fails with it.
            self.failure = Some(failure);
        }
    }
}

impl SchemaLookups {
    pub(crate) fn new(schemas: Arc<WriterSchemas>) -> Self {
        let permits = Arc::new(Semaphore::new(LOOKUPS_MAX));
        Self { schemas, state: Arc::default(), ended: Arc::default(), permits }
    }

    /// How far a lookup is.
    pub(crate) fn progress(&self, key: &SchemaKey) -> LookupProgress {
        let state = locked(&self.state);
        match state.found.get(key) {
            Some(Err(Failure::Outage { .. })) => LookupProgress::Failed,
            Some(_) => LookupProgress::Ended,
            None if state.wanted.contains(key) => LookupProgress::Pending,
            None => LookupProgress::None,
        }
    }

    /// Has a schema looked up, unless it is under way.
    pub(crate) fn want(&self, key: SchemaKey, asking: Asking) {
        let mut state = locked(&self.state);
        if state.found.contains_key(&key) || !state.wanted.insert(key.clone()) {
            return;
        }
        let topic = Arc::clone(&key.topic);
        let is_working = state.queues.contains_key(&topic);
        state.queues.entry(Arc::clone(&topic)).or_default().push_back((key, asking));
        if !is_working {
            // The failure of an earlier lookup that no page waited for.
            state.failure = None;
            drop(tokio::spawn(self.clone().work(topic)));
        }
    }

    /// The result of a lookup, once; or that it is late.
    pub(crate) fn take(&self, key: &SchemaKey) -> Option<Result<WriterSchema, Failure>> {
        let mut state = locked(&self.state);
        let is_late = state.late.remove(key);
        state.found.remove(key).or_else(|| is_late.then(|| Err(late())))
    }

    /// Waits until these lookups have ended, or until a deadline.
    ///
    /// # Errors
    /// The [`Failure`] of one that ended without a result.
    pub(crate) async fn wait(
        &self,
        keys: &HashSet<SchemaKey>,
        until: Instant,
    ) -> Result<(), Failure> {
        loop {
            let ended = self.ended.notified();
            if let Some(outcome) = locked(&self.state).outcome(keys) {
                return outcome;
            }
            if tokio::time::timeout_at(until.into(), ended).await.is_err() {
                break;
            }
        }
        if locked(&self.state).is_slow {
            self.are_late(keys);
        }
        Ok(())
    }

    /// No page waits any longer for those of these that are not found yet.
    pub(crate) fn are_late(&self, keys: &HashSet<SchemaKey>) {
        locked(&self.state).are_late(keys);
    }

    /// Looks up the schemas of a topic's queue.
    async fn work(self, topic: Arc<str>) {
        while let Some((key, asking)) = self.next(&topic) {
            let Ok(_permit) = self.permits.acquire().await else { return };
            let found = self.look_up(&key, asking).await;
            self.ended(key, found);
        }
    }

    async fn look_up(&self, key: &SchemaKey, asking: Asking) -> Result<WriterSchema, Failure> {
        let mut lookup = pin!(self.schemas.of(key, asking));
        let in_time = tokio::time::timeout(PATIENCE, &mut lookup).await;
        locked(&self.state).is_slow = in_time.is_err();
        if let Ok(found) = in_time {
            return found;
        }
        locked(&self.state).are_late([key]);
        self.ended.notify_waiters();
        lookup.await
    }

    /// The next schema of a topic; without one, the next that is wanted begins another task.
    fn next(&self, topic: &Arc<str>) -> Option<(SchemaKey, Asking)> {
        let mut state = locked(&self.state);
        let next = state.queues.get_mut(topic).and_then(VecDeque::pop_front);
        if next.is_none() {
            state.queues.remove(topic);
        }
        next
    }

    fn ended(&self, key: SchemaKey, found: Result<WriterSchema, Failure>) {
        let mut state = locked(&self.state);
        state.wanted.remove(&key);
        state.late.remove(&key);
        match found {
            Ok(_) | Err(Failure::Schema { .. }) => drop(state.found.insert(key, found)),
            Err(failure) => state.fail(key, failure),
        }
        drop(state);
        self.ended.notify_waiters();
    }
}

/// The failure of a lookup that takes longer than a page waits.
fn late() -> Failure {
    Failure::outage(Component::Registry, "get the id of a schema", Late)
}

#[derive(Debug, thiserror::Error)]
#[error("the registry has not answered in time")]
struct Late;
