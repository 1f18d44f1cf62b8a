//! Errors of an append, by the possible responses of the caller.

use std::fmt;

use crate::error::refusal::{Conflict, Refusal, TagConflict};
use crate::sqlstate::{
    code_of, is_before_commit, is_lost_race, is_read_only, is_transient, recorded_already,
};
use crate::stream::StreamName;
use crate::tag::Tag;

/// Why an append was not acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The store wrote nothing, for these reasons. The transaction of
    /// [`append_in`](crate::Store::append_in) stays usable. The same append gets the same answer
    /// until the store changes.
    #[error("append refused: {}", Listed(.0))]
    Refused(Vec<Refusal>),
    /// A concurrent transaction committed first, and this transaction does not see its effect. Only
    /// [`append_in`](crate::Store::append_in) returns it regularly, mostly in transactions above
    /// `READ COMMITTED`. Nothing is written and the transaction is aborted: roll back, and run the
    /// whole transaction again.
    #[error("append lost a race against another transaction: roll back, and run this one again")]
    LostRace(#[source] Option<sqlx::Error>),
    /// The events may be recorded or not: the connection broke, or the server reported an error
    /// that it can raise after the commit, such as the cancellation of a statement that was
    /// committing. Repeat the append with the same [`NewEvent`](crate::NewEvent)s: the store writes
    /// them once.
    #[error("append with unknown outcome: repeat it with the same events to settle it")]
    Unknown(#[source] sqlx::Error),
    /// Nothing is written: the server reported an error that it can only raise before the commit,
    /// or the server was not reached.
    #[error("append events{}", where_read_only(.0))]
    Failed(#[source] sqlx::Error),
    /// Nothing is written: the next position is recorded already. The sequence of positions and the
    /// tables disagree, as after a restore of some of them, or after `setval`. Each append is
    /// refused until an administrator has repaired the sequence.
    #[error(
        "append met a position that is recorded already (constraint {constraint}): the tables were \
         restored in part, or a sequence was set back; an administrator repairs it with: select \
         setval('annals.positions', (select max(position) from annals.events))"
    )]
    Inconsistent {
        /// The violated constraint.
        constraint: String,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// Nothing is written: too many appends wait for the server. Append again later, or raise the
    /// limits in [`Coalescing`](crate::Coalescing).
    #[error("append queue is full: {events} events with {bytes} bytes wait for the server")]
    QueueFull {
        /// The events in the queue.
        events: usize,
        /// Their size.
        bytes: usize,
    },
    /// Nothing is written: the store is closed ([`Store::close`](crate::Store::close)).
    #[error("append to a closed store")]
    Closed,
    /// The task that made the append ended without a result, by a panic or by the shutdown of its
    /// runtime. The events may be recorded or not: repeat the append with the same events.
    #[error(
        "append with unknown outcome: its task ended without a result; repeat it with the same events"
    )]
    Interrupted,
}

impl AppendError {
    /// Whether nothing is written because the session is read-only: the server is a standby, or the
    /// login, the database or the server has `default_transaction_read_only`. It counts as
    /// retryable, for the time of a failover; where it is meant to last, the caller gives up.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Failed(source) if is_read_only(source))
    }

    /// Whether the same append, with the same events, can succeed when repeated.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Closed | Self::Inconsistent { .. } => false,
            Self::Unknown(_) | Self::LostRace(_) | Self::QueueFull { .. } | Self::Interrupted => {
                true
            }
            Self::Failed(source) => is_transient(source),
        }
    }

    /// The version conflict of `stream`, if it is one of the reasons of a refusal.
    #[must_use]
    pub fn conflict_of(&self, stream: &StreamName) -> Option<&Conflict> {
        let Self::Refused(refusals) = self else { return None };
        refusals.iter().filter_map(Refusal::conflict).find(|conflict| conflict.stream == *stream)
    }

    /// The conflict of `tag`, if it is one of the reasons of a refusal.
    #[must_use]
    pub fn conflict_of_tag(&self, tag: &Tag) -> Option<&TagConflict> {
        let Self::Refused(refusals) = self else { return None };
        refusals.iter().filter_map(Refusal::tag_conflict).find(|conflict| conflict.tag == *tag)
    }

    /// The meaning of an error of a statement inside the caller's transaction: nothing is written.
    pub(crate) fn inside_a_transaction(error: sqlx::Error) -> Self {
        if is_lost_race(&error) {
            return Self::LostRace(Some(error));
        }
        Self::inconsistent(error).unwrap_or_else(Self::Failed)
    }

    /// The error, if the tables disagree.
    fn inconsistent(source: sqlx::Error) -> Result<Self, sqlx::Error> {
        match recorded_already(&source).map(str::to_owned) {
            Some(constraint) => Ok(Self::Inconsistent { constraint, source }),
            None => Err(source),
        }
    }
}

impl From<sqlx::Error> for AppendError {
    /// The meaning of an error of a commit, including the caller's own commit after
    /// [`append_in`](crate::Store::append_in): a lost race, which `SERIALIZABLE` can detect as late
    /// as the commit; a failure, if the error can only be raised before the commit; an unknown
    /// outcome otherwise.
    fn from(error: sqlx::Error) -> Self {
        if is_lost_race(&error) {
            return Self::LostRace(Some(error));
        }
        let error = match Self::inconsistent(error) {
            Ok(inconsistent) => return inconsistent,
            Err(error) => error,
        };
        match code_of(&error).as_deref() {
            Some(code) if is_before_commit(code) => Self::Failed(error),
            Some(_) | None => Self::Unknown(error),
        }
    }
}

/// What an append needs, where the session is read-only.
fn where_read_only(source: &sqlx::Error) -> &'static str {
    match is_read_only(source) {
        true => {
            ": the server is a standby, or the login, the database or the server has \
             default_transaction_read_only; append to the primary, with a login that may write"
        }
        false => "",
    }
}

struct Listed<'a>(&'a [Refusal]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refusal) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{refusal}")?;
        }
        Ok(())
    }
}
