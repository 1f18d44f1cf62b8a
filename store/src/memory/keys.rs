//! Personal keys of a store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, ready};

use annals_schemas::personal::{KeyId, Subject};
use jiff::Timestamp;

use crate::error::Error;
use crate::event::EventId;
use crate::memory::log::now;
use crate::memory::{MemoryStore, illegal};
use crate::personal::table::{Fence, KeyTable, StoredKey};

/// The keys of all subjects, as the table `personal_keys` has them.
#[derive(Debug, Default)]
pub(super) struct MemoryKeys {
    epoch: i64,
    of: BTreeMap<Subject, MemoryKey>,
}

#[derive(Debug)]
struct MemoryKey {
    key_id: Option<KeyId>,
    wrapped: Option<Vec<u8>>,
    epoch: i64,
    erasure: Option<Erasure>,
}

#[derive(Debug)]
struct Erasure {
    event_id: EventId,
    fenced_at: Timestamp,
    reason: String,
}

impl MemoryKey {
    fn stored(&self, subject: &Subject) -> StoredKey {
        let (subject, key_id, wrapped) = (subject.clone(), self.key_id, self.wrapped.clone());
        StoredKey { subject, key_id, wrapped, is_erased: self.erasure.is_some() }
    }
}

impl MemoryKeys {
    fn fence(&mut self, subject: &Subject, reason: &str) -> Fence {
        let none = MemoryKey { key_id: None, wrapped: None, epoch: 0, erasure: None };
        let key = self.of.entry(subject.clone()).or_insert(none);
        let erasure = key.erasure.get_or_insert_with(|| Erasure {
            event_id: EventId::generate(),
            fenced_at: now(),
            reason: reason.to_owned(),
        });
        let (event_id, fenced_at) = (erasure.event_id, erasure.fenced_at);
        Fence { key_id: key.key_id, event_id, fenced_at }
    }

    fn replace(&mut self, earlier: &StoredKey, wrapped: Vec<u8>, epoch: i64) -> bool {
        let key = self.of.get_mut(&earlier.subject);
        let unchanged = |key: &&mut MemoryKey| {
            key.wrapped.is_some() && key.wrapped == earlier.wrapped && key.epoch <= epoch
        };
        let Some(key) = key.filter(unchanged) else { return false };
        (key.wrapped, key.epoch) = (Some(wrapped), epoch);
        true
    }
}

impl KeyTable for MemoryStore {
    fn find_key(
        &self,
        subject: &Subject,
    ) -> impl Future<Output = Result<Option<StoredKey>, Error>> + Send {
        ready(Ok(self.keys().of.get(subject).map(|key| key.stored(subject))))
    }

    fn find_keys(
        &self,
        ids: &BTreeSet<KeyId>,
    ) -> impl Future<Output = Result<Vec<StoredKey>, Error>> + Send {
        let keys = self.keys();
        let has_one = |key: &MemoryKey| key.key_id.is_some_and(|id| ids.contains(&id));
        let found = keys.of.iter().filter(|(_, key)| has_one(key));
        ready(Ok(found.map(|(subject, key)| key.stored(subject)).collect()))
    }

    fn epoch(&self) -> impl Future<Output = Result<i64, Error>> + Send {
        ready(Ok(self.keys().epoch))
    }

    fn create_key(
        &self,
        key: StoredKey,
        epoch: i64,
    ) -> impl Future<Output = Result<Option<StoredKey>, Error>> + Send {
        let mut keys = self.keys();
        if keys.epoch != epoch {
            return ready(Ok(None));
        }
        let StoredKey { subject, key_id, wrapped, .. } = key;
        let first = MemoryKey { key_id, wrapped, epoch, erasure: None };
        let key = keys.of.entry(subject.clone()).or_insert(first);
        ready(Ok(Some(key.stored(&subject))))
    }

    fn fence(
        &self,
        subject: &Subject,
        reason: &str,
    ) -> impl Future<Output = Result<Fence, Error>> + Send {
        if reason.trim().is_empty() {
            return ready(Err(illegal("erase a subject", "without a reason".to_owned())));
        }
        ready(Ok(self.keys().fence(subject, reason)))
    }

    fn destroy_key(&self, subject: &Subject) -> impl Future<Output = Result<(), Error>> + Send {
        let mut keys = self.keys();
        if let Some(key) = keys.of.get_mut(subject).filter(|key| key.erasure.is_some()) {
            key.wrapped = None;
        }
        ready(Ok(()))
    }

    fn unfinished(&self) -> impl Future<Output = Result<Vec<(Subject, String)>, Error>> + Send {
        let (keys, log) = (self.keys(), self.log());
        let unfinished = keys.of.iter().filter_map(|(subject, key)| {
            let erasure = key.erasure.as_ref()?;
            let is_finished = key.wrapped.is_none() && log.recorded(erasure.event_id).is_some();
            (!is_finished).then(|| (subject.clone(), erasure.reason.clone()))
        });
        ready(Ok(unfinished.collect()))
    }

    fn begin_epoch(&self) -> impl Future<Output = Result<(), Error>> + Send {
        self.keys().epoch += 1;
        ready(Ok(()))
    }

    fn wrapped_before(
        &self,
        epoch: i64,
    ) -> impl Future<Output = Result<Vec<StoredKey>, Error>> + Send {
        let keys = self.keys();
        let earlier = keys.of.iter().filter(|(_, key)| key.epoch < epoch && key.wrapped.is_some());
        ready(Ok(earlier.map(|(subject, key)| key.stored(subject)).collect()))
    }

    fn replace_wrapped(
        &self,
        earlier: &StoredKey,
        wrapped: Vec<u8>,
        epoch: i64,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        ready(Ok(self.keys().replace(earlier, wrapped, epoch)))
    }
}
