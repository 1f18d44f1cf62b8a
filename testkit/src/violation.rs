//! What the checker finds, as facts.

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
    /// The store acknowledged an event at another version than it has it at.
    AnswerWrong {
        /// The event.
        id: Uuid,
        /// The version of the answer.
        answered: i64,
        /// The version in the store.
        recorded: i64,
    },
    /// The store has an event that its writer was told it has not, or took back.
    Unwanted {
        /// The event.
        id: Uuid,
        /// The stream.
        stream: String,
        /// What the writer knows.
        outcome: Outcome,
    },
    /// The store has some events of an append and not the others.
    Torn {
        /// Those that are there.
        ids_recorded: Vec<Uuid>,
        /// Those that are not.
        ids_missing: Vec<Uuid>,
    },
    /// A stream in the store leaves out a version.
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
    /// The store has it, and no topic.
    Lost {
        /// The event.
        id: Uuid,
        /// The stream.
        stream: String,
        /// The version.
        version: i64,
    },
    /// A topic has it, and not the store.
    Ghost {
        /// The event.
        id: Uuid,
        /// Where: `topic[partition]@offset`.
        place: String,
    },
    /// A topic has it with another stream, version or content than the store.
    Altered {
        /// The event.
        id: Uuid,
        /// Where: `topic[partition]@offset`.
        place: String,
    },
    /// The same event came again.
    Duplicate {
        /// The event.
        id: Uuid,
        /// Where it came first.
        first: String,
        /// Where it came again.
        again: String,
    },
    /// Another event came with the same stream and version.
    VersionTwice {
        /// The stream.
        stream: String,
        /// The version.
        version: i64,
        /// Where it came first.
        first: String,
        /// Where it came again.
        again: String,
    },
    /// A version came for the first time after a later one.
    Inversion {
        /// The stream.
        stream: String,
        /// The version.
        version: i64,
        /// The number it came after.
        after: i64,
        /// Where: `topic[partition]@offset`.
        place: String,
    },
    /// The topic's stream leaves out a version.
    Gap {
        /// The stream.
        stream: String,
        /// The version.
        version: i64,
    },
    /// A stream lies in two partitions.
    SplitStream {
        /// The stream.
        stream: String,
        /// Which.
        partitions: Vec<String>,
    },
    /// A partition was handed out in another order than it lies in.
    OffsetsInverted {
        /// Where: `topic[partition]@offset`.
        place: String,
        /// The number it came after.
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
