//! The errors that end reading, or a run of a projection.

use std::error::Error;
use std::sync::Arc;

use uuid::Uuid;

use crate::envelope::EnvelopeError;
use crate::kafka::KafkaClientError;
use crate::position::{Offset, RecordLocation, Version};
use crate::registry::DecodeRecordError;
use crate::version_filter::{Forked, Gap};

/// Why records cannot be consumed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// A record is not an event of Annals. The next call returns the record behind it.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The partition count of a topic has changed: the events of one stream lie in two partitions,
    /// and their order is lost.
    #[error(
        "topic {topic} has {found} partitions and had {known}: the order of its streams is lost; \
         write its events to a new topic with the wanted number of partitions, and consume that"
    )]
    Repartitioned {
        /// The topic.
        topic: Arc<str>,
        /// The partition count that was recorded.
        known: i32,
        /// The partition count now.
        found: i32,
    },
    /// Kafka reported a permanent error.
    #[error(transparent)]
    Kafka(#[from] KafkaClientError),
}

/// Why a run ended before it was told to. Committed batches stay committed; the next run continues
/// behind them.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A record is not an event, the partition count of a topic changed, or Kafka reported a
    /// permanent error.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// An event cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeRecordError),
    /// Events are missing before this one.
    #[error(
        "{gap} (record {location}): the topic lost events, or is not the one this projection began \
         with; once it is whole, Projection::replay reads it from the beginning and drops what was \
         applied"
    )]
    Gap {
        /// The record that came too early.
        location: RecordLocation,
        /// The stream, the expected version and the version that came.
        #[source]
        gap: Gap,
    },
    /// Another event was applied under the version of this one: the store has lost published
    /// events. Nothing of the record was applied. `docs/operations.md`, "A consumer says Forked",
    /// describes the remedy.
    #[error(
        "{fork} (record {location}): the store's history has changed, and the events applied of \
         this stream since then are no longer part of it; publish the topic anew, empty the read \
         model and call Projection::forget in one transaction"
    )]
    Forked {
        /// The record with the other event.
        location: RecordLocation,
        /// The stream, the version and both events.
        #[source]
        fork: Forked,
    },
    /// The handler returned an error for one event. Its transaction was rolled back.
    #[error(
        "apply {event_type} of {stream}, version {version} (record {location}, event {event_id})"
    )]
    Handler {
        /// The event's stream.
        stream: String,
        /// The event's version.
        version: Version,
        /// The event's type.
        event_type: String,
        /// The event's id.
        event_id: Uuid,
        /// The event's record.
        location: RecordLocation,
        /// The handler's error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another runner of the same projection has committed a batch of this partition. This runner
    /// wrote nothing after that.
    #[error(
        "projection {projection} also runs elsewhere: the next offset of {topic}[{partition}] is \
         {found}, and this runner had stored {expected}; run it once"
    )]
    Superseded {
        /// The projection.
        projection: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The next offset that this runner had stored.
        expected: Offset,
        /// The next offset that PostgreSQL has.
        found: Offset,
    },
    /// PostgreSQL reported a permanent error.
    #[error("{action}")]
    Database {
        /// The action that failed, as verb and object.
        action: &'static str,
        /// PostgreSQL's error.
        source: sqlx::Error,
    },
}

impl From<KafkaClientError> for RunError {
    fn from(error: KafkaClientError) -> Self {
        Self::Consume(error.into())
    }
}
