//! Erasure: a fence, the destruction of the key, an event.

use annals_schemas::events;
use annals_schemas::personal::{KeyId, Subject};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::append::{Append, Appended};
use crate::error::Error;
use crate::event::NewEvent;
use crate::event_store::EventStore;
use crate::personal::error::PersonalError;
use crate::personal::keys::PersonalKeys;
use crate::stream::{ExpectedVersion, StreamName};

/// The key of a subject is destroyed: its personal data in all events is erased. Projections and
/// other services delete what they derived from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectErased {
    /// The subject.
    pub subject: String,
    /// The id of its key in hexadecimal; none if it had no key.
    pub key_id: Option<String>,
    /// The begin of the erasure, by the database's clock.
    #[serde(with = "annals_schemas::timestamp_micros")]
    pub erased_at: Timestamp,
}

events! {
    /// The events of the store about personal data, in the streams `personal_data-<subject>`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum PersonalDataEvent in "personal_data" {
        /// A subject is erased.
        SubjectErased = "../../avro/SubjectErased.v1.avsc",
    }
}

/// An erasure that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Erased {
    /// The id of the destroyed key; none if the subject had no key.
    pub key_id: Option<KeyId>,
    /// The event [`SubjectErased`]; [`Appended::repeated`] if the subject was erased before.
    pub appended: Appended,
}

impl<S: EventStore> PersonalKeys<S> {
    /// Erases a subject: its personal data in events becomes unreadable, in this database, in its
    /// replicas and in Kafka. It cannot be undone, and the subject never gets a key again.
    ///
    /// 1. A fence is committed: from here on each process reads the subject as erased, and gets no
    ///    key for it.
    /// 2. The key is destroyed.
    /// 3. The event [`SubjectErased`] is appended to `personal_data-<subject>`.
    ///
    /// After an error, or a crash, repeat it: it continues where it ended. A backup of the database
    /// from before the erasure has the encrypted key: see
    /// [`destroy_earlier_wrapping_keys`](Self::destroy_earlier_wrapping_keys).
    ///
    /// `reason` stays in the table `personal_keys`, and must not be personal itself.
    ///
    /// # Errors
    /// [`PersonalError::Append`] if the key is destroyed and the event is not recorded yet;
    /// otherwise if the database fails, or the reason is empty.
    pub async fn erase(&self, subject: &Subject, reason: &str) -> Result<Erased, PersonalError> {
        let fence = self.store.fence(subject, reason).await?;
        let key_id = fence.key_id;
        if let Some(id) = key_id {
            self.forget(id);
        }
        self.store.destroy_key(subject).await?;

        let erased = SubjectErased {
            subject: subject.to_string(),
            key_id: key_id.map(|id| id.to_string()),
            erased_at: fence.fenced_at,
        };
        let event = NewEvent::new(&PersonalDataEvent::from(erased))?.with_id(fence.event_id);
        let stream = stream_of(subject)?;
        let appended = self.store.append(&Append::to(&stream, ExpectedVersion::Any, [event])).await;
        let appended = appended
            .map_err(|source| PersonalError::Append { subject: subject.clone(), source })?;
        Ok(Erased { key_id, appended })
    }

    /// Finishes the erasures that have begun, for instance before a crash; their subjects. Call it
    /// at the start of a service, or by a timer.
    ///
    /// # Errors
    /// As [`erase`](Self::erase), for the first that fails.
    pub async fn finish_erasures(&self) -> Result<Vec<Subject>, PersonalError> {
        let mut finished = Vec::new();
        loop {
            let unfinished = self.store.unfinished().await?;
            if unfinished.is_empty() {
                return Ok(finished);
            }
            for (subject, reason) in unfinished {
                self.erase(&subject, &reason).await?;
                finished.push(subject);
            }
        }
    }
}

fn stream_of(subject: &Subject) -> Result<StreamName, PersonalError> {
    StreamName::new(format!("personal_data-{subject}")).map_err(|error| {
        let what = format!("the stream of subject {subject}");
        Error::Unreadable { what, reason: error.to_string() }.into()
    })
}
