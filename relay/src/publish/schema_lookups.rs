//! The schemas of messages, looked up beside the reader: those of several topics at once, and those
//! of one topic one after the other, in the order in which its events need them.
//!
//! A registry that answers slowly delays the first events of new schemas; a page waits for it up to
//! a deadline, and the lookups continue after that. The order in a topic keeps a later version of a
//! schema from being registered before an earlier one, which the registry could refuse then.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use annals_schemas::Fingerprint;
use tokio::sync::{Notify, Semaphore};

use crate::model::message::WriterSchema;
use crate::publish::writer_schemas::WriterSchemas;
use crate::report::failure::Failure;
use crate::report::threads::locked;

/// How many schemas are looked up at once: each takes two or three requests.
const LOOKUPS_MAX: usize = 16;

/// The schema of a category's events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SchemaKey {
    /// The topic of the category.
    pub(crate) topic: Arc<str>,
    pub(crate) category: String,
    pub(crate) fingerprint: Fingerprint,
}

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
    queues: HashMap<Arc<str>, VecDeque<SchemaKey>>,
    /// The schemas in a queue or in a lookup.
    wanted: HashSet<SchemaKey>,
    found: HashMap<SchemaKey, Result<WriterSchema, Failure>>,
    /// Why a lookup ended without a result.
    failure: Option<Failure>,
}

impl LookupState {
    /// The result of these lookups, once they have ended; a failure is returned once.
    fn outcome(&mut self, keys: &HashSet<SchemaKey>) -> Option<Result<(), Failure>> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        self.wanted.is_disjoint(keys).then_some(Ok(()))
    }
}

impl SchemaLookups {
    pub(crate) fn new(schemas: Arc<WriterSchemas>) -> Self {
        let permits = Arc::new(Semaphore::new(LOOKUPS_MAX));
        Self { schemas, state: Arc::default(), ended: Arc::default(), permits }
    }

    /// Has a schema looked up, unless it is under way.
    pub(crate) fn want(&self, key: SchemaKey) {
        let mut state = locked(&self.state);
        if state.found.contains_key(&key) || !state.wanted.insert(key.clone()) {
            return;
        }
        let topic = Arc::clone(&key.topic);
        let is_working = state.queues.contains_key(&topic);
        state.queues.entry(Arc::clone(&topic)).or_default().push_back(key);
        if !is_working {
            // The failure of an earlier lookup that no page waited for.
            state.failure = None;
            drop(tokio::spawn(self.clone().work(topic)));
        }
    }

    /// The result of a lookup, once.
    pub(crate) fn take(&self, key: &SchemaKey) -> Option<Result<WriterSchema, Failure>> {
        locked(&self.state).found.remove(key)
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
                return Ok(());
            }
        }
    }

    /// Looks up the schemas of a topic's queue.
    async fn work(self, topic: Arc<str>) {
        while let Some(key) = self.next(&topic) {
            let Ok(_permit) = self.permits.acquire().await else { return };
            let found = self.schemas.of(&key.topic, &key.category, key.fingerprint).await;
            self.ended(key, found);
        }
    }

    /// The next schema of a topic; without one, the next that is wanted begins another task.
    fn next(&self, topic: &Arc<str>) -> Option<SchemaKey> {
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
        match found {
            Err(failure) if failure.policy().quarantines.is_none() => {
                // The page that waits fails with it; the next one wants all of them again.
                let queued = state.queues.get_mut(&key.topic).map(std::mem::take);
                for queued in queued.into_iter().flatten() {
                    state.wanted.remove(&queued);
                }
                state.failure = Some(failure);
            }
            result => drop(state.found.insert(key, result)),
        }
        drop(state);
        self.ended.notify_waiters();
    }
}
