//! The operations of personal keys that differ between stores.

use std::collections::BTreeSet;
use std::future::Future;

use annals_schemas::personal::{KeyId, Subject};
use jiff::Timestamp;

use crate::error::Error;
use crate::event::EventId;

/// The key of a subject, as a store keeps it.
#[derive(Debug, Clone)]
pub struct StoredKey {
    pub subject: Subject,
    pub key_id: Option<KeyId>,
    /// The secret, encrypted by the key provider; none after its destruction.
    pub wrapped: Option<Vec<u8>>,
    /// Whether the erasure of the subject has begun.
    pub is_erased: bool,
}

/// The begin of an erasure.
#[derive(Debug, Clone)]
pub struct Fence {
    /// None if the subject had no key.
    pub key_id: Option<KeyId>,
    /// The id of the event `SubjectErased`.
    pub event_id: EventId,
    pub fenced_at: Timestamp,
}

/// The table of personal keys. An epoch is the number of the provider's wrapping key, as far as the
/// store knows.
pub trait KeyTable {
    fn find_key(
        &self,
        subject: &Subject,
    ) -> impl Future<Output = Result<Option<StoredKey>, Error>> + Send;

    /// The keys with these ids, as far as they are known.
    fn find_keys(
        &self,
        ids: &BTreeSet<KeyId>,
    ) -> impl Future<Output = Result<Vec<StoredKey>, Error>> + Send;

    fn epoch(&self) -> impl Future<Output = Result<i64, Error>> + Send;

    /// Gives the subject its first key, or returns the one that it has. None: the wrapping key was
    /// rotated since the epoch, try again.
    fn create_key(
        &self,
        key: StoredKey,
        epoch: i64,
    ) -> impl Future<Output = Result<Option<StoredKey>, Error>> + Send;

    /// Begins an erasure, durably. Repeated, it returns the values of the first call.
    fn fence(
        &self,
        subject: &Subject,
        reason: &str,
    ) -> impl Future<Output = Result<Fence, Error>> + Send;

    /// Destroys the key of a fenced subject.
    fn destroy_key(&self, subject: &Subject) -> impl Future<Output = Result<(), Error>> + Send;

    /// Some subjects whose erasure has begun and has not finished, with its reason.
    fn unfinished(&self) -> impl Future<Output = Result<Vec<(Subject, String)>, Error>> + Send;

    /// Notes that the provider has a new wrapping key.
    fn begin_epoch(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Some keys that were wrapped before an epoch.
    fn wrapped_before(
        &self,
        epoch: i64,
    ) -> impl Future<Output = Result<Vec<StoredKey>, Error>> + Send;

    /// Replaces a wrapped key. False: it has changed since it was read.
    fn replace_wrapped(
        &self,
        earlier: &StoredKey,
        wrapped: Vec<u8>,
        epoch: i64,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
}
