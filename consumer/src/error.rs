//! The errors that end reading, or a run of a projection.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::envelope::Delivered;
use crate::envelope_error::EnvelopeError;
use crate::filter_error::{Forked, Gap};
use crate::kafka::KafkaClientError;
use crate::position::{Offset, RecordLocation, Version};
use crate::registry::DecodeRecordError;

/// Why records cannot be consumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// A record is not an event of Annals. The next call returns the record behind it.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// A topic has fewer partitions than before: it is another one of the same name, in which the
    /// offsets of this reader mean nothing. Partitions that are added are read like the others.
    #[error(
        "topic {topic} has {found} partitions and had {known}: it was deleted and created again; \
         once its events are published again, Projection::replay reads it from the beginning and \
         drops what was applied"
    )]
    Repartitioned {
        /// The topic.
        topic: Arc<str>,
        /// The partition count that was recorded.
        known: i32,
        /// The partition count now.
        found: i32,
    },
    /// Records were removed before they were read: by the topic's retention, or by hand.
    #[error(
        "the records of {topic}[{partition}] from offset {from} to {low} were removed before they \
         were read, by retention or by hand; publish the topic anew, or continue without them with \
         Projection::accept_removal",
        topic = next.topic, partition = next.partition, from = next.offset
    )]
    RecordsRemoved {
        /// The record to read next.
        next: RecordLocation,
        /// The first record that the partition still has.
        low: Offset,
    },
    /// Kafka reported a permanent error.
    #[error(transparent)]
    Kafka(#[from] KafkaClientError),
}

/// Why a run ended before it was told to. Committed batches stay committed; the next run continues
/// behind them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A record is not an event, a topic lost partitions or records, or Kafka reported a permanent
    /// error.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// An event cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeRecordError),
    /// Events are missing before this one.
    #[error("{gap} (record {location}): {}", explain(gap))]
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
    /// The handler of dead letters returned an error. Its transaction was rolled back.
    #[error("handle record {location}, which cannot be applied")]
    DeadLetter {
        /// The record.
        location: RecordLocation,
        /// The handler's error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The transaction of one event exceeded a limit each time, also alone.
    #[error(
        "apply {event_type} of {stream}, version {version} (record {location}): exceeded {limit} \
         in each of {tries} tries, without other events in the transaction"
    )]
    LimitExceeded {
        /// The event's stream.
        stream: String,
        /// The event's version.
        version: Version,
        /// The event's type.
        event_type: String,
        /// The event's record.
        location: RecordLocation,
        /// The limit.
        limit: TransactionLimit,
        /// The number of tries.
        tries: u32,
        /// The last error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another runner of the same projection has taken this partition over. This runner wrote
    /// nothing after that.
    #[error(
        "projection {projection} also runs elsewhere: another runner owns {topic}[{partition}], with \
         the next offset {found}, and this runner had stored {expected}; run it once"
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
    /// The database of [`Projection::runner_on`](crate::Projection::runner_on) refused.
    #[error("{action}")]
    OtherDatabase {
        /// The action that failed, as verb and object.
        action: &'static str,
        /// The database's error.
        source: Box<dyn Error + Send + Sync>,
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

/// The meaning of a gap, which depends on its place: at the start of a stream, or within it.
fn explain(gap: &Gap) -> &'static str {
    if gap.expected == Version::ZERO {
        "this projection knows no event of the stream, and the topic does not have its first one; \
         if the topic begins within its streams, because of retention or by design, declare \
         FirstVersion::Any"
    } else {
        "the topic lost events, or is not the one this projection began with; once it is whole, \
         Projection::replay reads it from the beginning and drops what was applied; \
         Projection::accept_gap continues without them"
    }
}

/// A limit that the transaction of a batch can exceed.
///
/// The projection applies fewer events in one transaction when a batch exceeds a limit, and ends
/// when one event alone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionLimit {
    /// [`Projection::batch_deadline`](crate::Projection::batch_deadline).
    #[error("the deadline of the projection, {0:?}")]
    BatchDeadline(Duration),
    /// PostgreSQL's `statement_timeout`. A request to cancel the statement shows as this, too.
    #[error("PostgreSQL's statement_timeout")]
    StatementTimeout,
    /// PostgreSQL's `idle_in_transaction_session_timeout`: the handler waited for something else.
    #[error("PostgreSQL's idle_in_transaction_session_timeout")]
    IdleInTransaction,
    /// PostgreSQL's `transaction_timeout`.
    #[error("PostgreSQL's transaction_timeout")]
    TransactionTimeout,
    /// The life of the connection: each time the handler wrote, the connection was lost.
    #[error("the life of the connection")]
    Connection,
}

impl TransactionLimit {
    /// How often a batch may exceed it before it is split, or the run ends.
    pub(crate) fn tries_max(self, handled: usize) -> u32 {
        match self {
            // The connection may have been lost for another reason.
            Self::Connection if handled > 1 => 2,
            Self::Connection => 8,
            Self::BatchDeadline(_)
            | Self::StatementTimeout
            | Self::IdleInTransaction
            | Self::TransactionTimeout => {
                if handled > 1 {
                    1
                } else {
                    3
                }
            }
        }
    }
}

impl RunError {
    pub(crate) fn handler(event: &Delivered, source: Box<dyn Error + Send + Sync>) -> Self {
        Self::Handler {
            stream: event.stream.clone(),
            version: event.version,
            event_type: event.event_type.clone(),
            event_id: event.event_id,
            location: event.location(),
            source,
        }
    }
}

impl From<KafkaClientError> for RunError {
    fn from(error: KafkaClientError) -> Self {
        Self::Consume(error.into())
    }
}
