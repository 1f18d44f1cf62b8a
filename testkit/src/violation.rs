//! The checker's findings, as facts.

use std::fmt;

use uuid::Uuid;

use crate::history::Outcome;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// The store acknowledged an event and does not have it.
    AcknowledgedMissing {
        /// The event.
        id: Uuid,
        /// The stream.
        stream: String,
    },
    /// The store acknowledged an event at another version than the recorded one.
    AnswerWrong {
        /// The event.
        id: Uuid,
        /// The version of the answer.
        answered: i64,
        /// The version in the store.
        recorded: i64,
    },
    /// The store has an event although it refused the event, or the writer rolled it back.
    Unwanted {
        /// The event.
        id: Uuid,
        /// The stream.
        stream: String,
        /// The outcome as the writer knows it.
        outcome: Outcome,
    },
    /// The store has some events of an append and lacks others.
    Torn {
        /// The recorded ones.
        ids_recorded: Vec<Uuid>,
        /// The missing ones.
        ids_missing: Vec<Uuid>,
    },
    /// A stream in the store lacks a version.
    HoleInStream {
        /// The stream.
        stream: String,
        /// The version.
        version: i64,
    },
    /// In the store, a later version has an earlier position.
    PositionsInverted {
        /// The stream.
        stream: String,
        /// The version.
        version: i64,
    },
    /// The store has the event, and no topic has it.
    Lost {
        /// The event.
        id: Uuid,
        /// The stream.
        stream: String,
        /// The version.
        version: i64,
    },
    /// A topic has the event, and the store lacks it.
    Ghost {
        /// The event.
        id: Uuid,
        /// The place: `topic[partition]@offset`.
        place: String,
    },
    /// A topic has the event with another stream, version or content than the store.
    Altered {
        /// The event.
        id: Uuid,
        /// The place: `topic[partition]@offset`.
        place: String,
    },
    /// The same event came again.
    Duplicate {
        /// The event.
        id: Uuid,
        /// The first place.
        first: String,
        /// The second place.
        again: String,
    },
    /// Another event came with the same stream and version.
    VersionTwice {
        /// The stream.
        stream: String,
        /// The version.
        version: i64,
        /// The first place.
        first: String,
        /// The second place.
        again: String,
    },
    /// A version came for the first time after a later one.
    Inversion {
        /// The stream.
        stream: String,
        /// The version.
        version: i64,
        /// The later version, which came before.
        after: i64,
        /// The place: `topic[partition]@offset`.
        place: String,
    },
    /// The stream lacks a version in the topic.
    Gap {
        /// The stream.
        stream: String,
        /// The version.
        version: i64,
    },
    /// A stream is in two partitions.
    SplitStream {
        /// The stream.
        stream: String,
        /// The partitions.
        partitions: Vec<String>,
    },
    /// A partition was delivered in another order than that of its offsets.
    OffsetsInverted {
        /// The place: `topic[partition]@offset`.
        place: String,
        /// The offset that came before.
        after: i64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcknowledgedMissing { id, stream } => {
                write!(f, "event {id} of {stream} was acknowledged and is not recorded")
            }
            Self::AnswerWrong { id, answered, recorded } => {
                write!(f, "event {id} was answered with version {answered} and has {recorded}")
            }
            Self::Unwanted { id, stream, outcome } => {
                write!(f, "event {id} of {stream} is recorded although its append was {outcome:?}")
            }
            Self::Torn { ids_recorded, ids_missing } => {
                write!(f, "an append is half there: {ids_recorded:?} recorded, {ids_missing:?} not")
            }
            Self::HoleInStream { stream, version } => {
                write!(f, "{stream} has no version {version} in the store")
            }
            Self::PositionsInverted { stream, version } => {
                write!(f, "{stream} version {version} has a lower position than the version before")
            }
            Self::Lost { id, stream, version } => {
                write!(f, "{stream} version {version} ({id}) is recorded and on no topic")
            }
            Self::Ghost { id, place } => write!(f, "{place} has event {id}, which is not recorded"),
            Self::Altered { id, place } => {
                write!(f, "{place} has event {id} with another stream, version or content")
            }
            Self::Duplicate { id, first, again } => {
                write!(f, "event {id} came at {first} and again at {again}")
            }
            Self::VersionTwice { stream, version, first, again } => {
                write!(
                    f,
                    "{stream} version {version} came at {first} and as another event at {again}"
                )
            }
            Self::Inversion { stream, version, after, place } => {
                write!(f, "{stream} version {version} came after version {after} at {place}")
            }
            Self::Gap { stream, version } => write!(f, "{stream} version {version} never came"),
            Self::SplitStream { stream, partitions } => {
                write!(f, "{stream} lies in {}", partitions.join(" and "))
            }
            Self::OffsetsInverted { place, after } => {
                write!(f, "{place} was handed out after offset {after}")
            }
        }
    }
}
