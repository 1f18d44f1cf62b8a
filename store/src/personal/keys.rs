//! The keys of subjects: found, made and decrypted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use annals_schemas::personal::{
    BlindIndex, KeyId, KeyRing, Personal, RingKey, Subject, SubjectError, SubjectKey,
};
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::Error;
use crate::personal::error::PersonalError;
use crate::personal::provider::KeyProvider;
use crate::sqlstate::is_lost_race;
use crate::store::Store;

/// Decrypted keys in memory; beyond this number all are dropped, and decrypted again when needed.
const CACHED_KEYS_MAX: usize = 10_000;

/// Tries to give a subject its key while the wrapping key is rotated.
const TRIES_MAX: u32 = 5;

/// The prefix of the subjects whose keys belong to blind indices.
const BLIND_INDEX: &str = "blind-index:";

/// The keys of the subjects of a store.
///
/// A decrypted key stays in memory, so that a provider is asked once a key and process. Whether the
/// subject is erased is read from the database each time: after
/// [`erase`](Self::erase) has returned, no process opens a value of the subject, nor gets its key.
///
/// ```
/// # use annals_store::{Append, ExpectedVersion, FileKeyProvider, NewEvent, Personal};
/// # use annals_store::PersonalKeys;
/// # use annals_store::{Read, Store, StreamName, Subject, events};
/// # use futures_util::TryStreamExt;
/// # use serde::{Deserialize, Serialize};
/// // {"name": "name", "type": "bytes", "annals.personal": true}
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// pub struct CustomerNamed {
///     name: Personal<String>,
/// }
///
/// events! {
///     #[derive(Debug, Clone, PartialEq)]
///     pub enum CustomerEvent in "customer" {
///         CustomerNamed = "../../../schemas/avro/customer/CustomerNamed.v1.avsc",
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let bed = annals_testkit::Testbed::new("doc_personal").await;
/// # let store = bed.store();
/// # let path = std::env::temp_dir().join(bed.name());
/// let keys = PersonalKeys::new(store, FileKeyProvider::open_or_create(&path)?);
/// let customer = Subject::new("customer-17")?;
/// let name = Personal::new(keys.subject(&customer).await?, "Ann".to_owned());
/// let stream = StreamName::new("customer-17")?;
/// let named = NewEvent::new(&CustomerEvent::from(CustomerNamed { name }))?;
/// store.append(&Append::to(&stream, ExpectedVersion::NoStream, [named])).await?;
///
/// let events: Vec<_> = store.read(Read::stream(&stream)).try_collect().await?;
/// let CustomerEvent::CustomerNamed(named) = events[0].decode()?;
/// assert_eq!(keys.open(&named.name).await?.value(), Some(&"Ann".to_owned()));
///
/// keys.erase(&customer, "request of 2026-11-29").await?;
/// assert!(keys.open(&named.name).await?.is_erased());
/// # std::fs::remove_file(&path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PersonalKeys {
    pub(super) store: Store,
    pub(super) provider: Arc<dyn KeyProvider>,
    cache: Arc<Mutex<BTreeMap<KeyId, SubjectKey>>>,
}

/// A row of the table.
struct Found {
    key_id: Option<KeyId>,
    wrapped: Option<Vec<u8>>,
    is_erased: bool,
}

impl PersonalKeys {
    /// The keys of a store, encrypted by a provider.
    #[must_use]
    pub fn new(store: &Store, provider: impl KeyProvider) -> Self {
        Self { store: store.clone(), provider: Arc::new(provider), cache: Arc::default() }
    }

    /// The key of a subject; its first one, if it has none. Processes that ask at the same time get
    /// the same key.
    ///
    /// # Errors
    /// [`PersonalError::Erased`] from the begin of the subject's erasure on; otherwise if the
    /// database or the provider fails.
    pub async fn subject(&self, subject: &Subject) -> Result<SubjectKey, PersonalError> {
        for _ in 0..TRIES_MAX {
            let found = match self.find(subject).await? {
                Some(found) => Some(found),
                None => self.create(subject).await?,
            };
            let Some(found) = found else { continue };
            return match (found.is_erased, found.key_id, found.wrapped) {
                (false, Some(id), Some(wrapped)) => self.decrypt(subject, id, &wrapped).await,
                (_, _, _) => Err(PersonalError::Erased(subject.clone())),
            };
        }
        Err(PersonalError::RotatedTooOften)
    }

    /// An index of equal values, by its name. Its key is made at the first use.
    ///
    /// # Errors
    /// As [`subject`](Self::subject).
    pub async fn blind_index(&self, name: &Subject) -> Result<BlindIndex, PersonalError> {
        let subject =
            Subject::new(format!("{BLIND_INDEX}{name}")).map_err(|error| Error::Unreadable {
                what: "the name of a blind index".into(),
                reason: error.to_string(),
            })?;
        self.subject(&subject).await.map(BlindIndex::new)
    }

    /// The keys with these ids, to open many values with. An id that the store does not know is
    /// missing in the ring. Values opened with an old ring are read after an erasure: make a ring
    /// for each batch of events.
    ///
    /// # Errors
    /// If the database or the provider fails.
    pub async fn ring(
        &self,
        ids: impl IntoIterator<Item = KeyId>,
    ) -> Result<KeyRing, PersonalError> {
        let ids: BTreeSet<KeyId> = ids.into_iter().collect();
        if ids.is_empty() {
            return Ok(KeyRing::default());
        }
        let ids: Vec<&[u8]> = ids.iter().map(KeyId::as_bytes).collect();
        let failed = Error::database_each("find personal keys");
        let query = sqlx::query(self.store.statements().personal_keys_by_id.clone()).bind(ids);
        let rows = query.fetch_all(self.store.pool());
        let rows = self.store.within_deadline(rows).await.map_err(&failed)?;
        let mut ring = KeyRing::default();
        for row in rows {
            let subject = subject_of(&row).map_err(&failed)?;
            let found = found(&row).map_err(&failed)?;
            let Some(id) = found.key_id else { continue };
            let key = match found.wrapped {
                Some(wrapped) if !found.is_erased => {
                    RingKey::Present(self.decrypt(&subject, id, &wrapped).await?)
                }
                Some(_) | None => {
                    self.forget(id);
                    RingKey::Destroyed
                }
            };
            ring.insert(id, key);
        }
        Ok(ring)
    }

    /// Opens a value: it is open or erased then.
    ///
    /// # Errors
    /// [`PersonalError::Open`] if the key is unknown or the value was changed; otherwise if the
    /// database or the provider fails.
    pub async fn open<T: DeserializeOwned + Clone>(
        &self,
        value: &Personal<T>,
    ) -> Result<Personal<T>, PersonalError> {
        let ring = self.ring(value.key_id()).await?;
        Ok(value.open(&ring)?)
    }

    async fn find(&self, subject: &Subject) -> Result<Option<Found>, PersonalError> {
        let failed = Error::database_each("find a personal key");
        let query = sqlx::query(self.store.statements().personal_key_find.clone());
        let row = query.bind(subject.as_str()).fetch_optional(self.store.pool());
        let row = self.store.within_deadline(row).await.map_err(&failed)?;
        Ok(row.as_ref().map(found).transpose().map_err(failed)?)
    }

    /// Gives the subject a key. None: another transaction interfered, try again.
    async fn create(&self, subject: &Subject) -> Result<Option<Found>, PersonalError> {
        let epoch = self.epoch().await?;
        let key = SubjectKey::generate(subject);
        let wrapped = self.provider.wrap(key.secret()).await?;
        let query = sqlx::query(self.store.statements().personal_key_create.clone());
        let query = query.bind(subject.as_str()).bind(key.id().as_bytes().to_vec());
        let row = query.bind(wrapped).bind(epoch).fetch_optional(self.store.pool());
        let failed = Error::database_each("create a personal key");
        let row = match self.store.within_deadline(row).await {
            Err(error) if is_lost_race(&error) => None,
            row => row.map_err(&failed)?,
        };
        Ok(row.as_ref().map(found).transpose().map_err(failed)?)
    }

    pub(super) async fn epoch(&self) -> Result<i64, PersonalError> {
        let epoch = sqlx::query_scalar(self.store.statements().personal_epoch.clone());
        let epoch = self.store.within_deadline(epoch.fetch_one(self.store.pool())).await;
        Ok(epoch.map_err(Error::database("read the epoch of the wrapping key"))?)
    }

    async fn decrypt(
        &self,
        subject: &Subject,
        id: KeyId,
        wrapped: &[u8],
    ) -> Result<SubjectKey, PersonalError> {
        if let Some(key) = self.cached(id) {
            return Ok(key);
        }
        let secret = self.provider.unwrap(wrapped).await?;
        let key = SubjectKey::from_secret(subject, &secret).filter(|key| key.id() == id);
        let key = key.ok_or_else(|| PersonalError::WrongSecret(subject.to_string()))?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED_KEYS_MAX {
            cache.clear();
        }
        cache.insert(id, key.clone());
        drop(cache);
        Ok(key)
    }

    fn cached(&self, id: KeyId) -> Option<SubjectKey> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Drops a key from memory.
    pub(super) fn forget(&self, id: KeyId) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

fn found(row: &PgRow) -> Result<Found, sqlx::Error> {
    let key_id: Option<Vec<u8>> = row.try_get("key_id")?;
    Ok(Found {
        key_id: key_id.and_then(|id| KeyId::from_slice(&id)),
        wrapped: row.try_get("wrapped")?,
        is_erased: row.try_get("is_erased")?,
    })
}

/// The subject of a row.
pub(super) fn subject_of(row: &PgRow) -> Result<Subject, sqlx::Error> {
    let subject: String = row.try_get("subject")?;
    Subject::new(subject).map_err(|error: SubjectError| sqlx::Error::Decode(Box::new(error)))
}
