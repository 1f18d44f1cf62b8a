//! Errors of a decision, by the response that they need of the caller.

use annals_schemas::EncodeError;

use crate::error::{AppendError, Conflict, Error};
use crate::tag::Tag;

/// Why a decision is not recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError<E> {
    /// The domain refused: the closure returned this error. Nothing is written.
    #[error(transparent)]
    Refused(E),
    /// Each try met a conflict with another append. Nothing is written: try again later, or raise
    /// [`Decide::tries_max`](crate::Decide::tries_max).
    #[error("{} after {tries} tries: other appends came first each time", contended(.conflicts))]
    Contended {
        /// Appends that were tried.
        tries: u32,
        /// The conflicts of the last one.
        conflicts: Vec<Conflict>,
    },
    /// The same of a decision on tags: other events with these tags came first each time.
    #[error("contended tag {} after {tries} tries: other events came first each time", named(.tags))]
    ContendedTags {
        /// Appends that were tried.
        tries: u32,
        /// The tags that had other events at the last one.
        tags: Vec<Tag>,
    },
    /// The append failed for another reason than a conflict. After an error with an unknown outcome
    /// ([`AppendError::Unknown`], [`AppendError::Interrupted`]) the events may be recorded or not:
    /// only a decision with a command id ([`Decide::command`](crate::Decide::command)) can be
    /// repeated without recording them twice.
    #[error("append the events of a decision")]
    Append(#[source] AppendError),
    /// The streams could not be read. Nothing is written.
    #[error("load the state for a decision")]
    Load(#[source] Error),
    /// An event of the decision does not match its schema. Nothing is written.
    #[error("encode an event of a decision")]
    Encode(#[source] EncodeError),
}

fn contended(conflicts: &[Conflict]) -> String {
    let streams: Vec<&str> = conflicts.iter().map(|conflict| conflict.stream.as_str()).collect();
    format!("contended stream {}", streams.join(", "))
}

fn named(tags: &[Tag]) -> String {
    tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(", ")
}

impl<E> DecideError<E> {
    /// Whether the same decision can succeed later, without a change of the command: after
    /// contention, and after failures of the database that pass.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Encode(_) => false,
            Self::Contended { .. } | Self::ContendedTags { .. } => true,
            Self::Append(error) => error.is_retryable(),
            Self::Load(error) => error.is_retryable(),
        }
    }

    /// The error of the domain, if it refused.
    #[must_use]
    pub fn refused(self) -> Option<E> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Contended { .. }
            | Self::ContendedTags { .. }
            | Self::Append(_)
            | Self::Load(_)
            | Self::Encode(_) => None,
        }
    }
}
