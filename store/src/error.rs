//! What can go wrong, by what the caller can do about it.

use std::fmt;

use annals_schemas::Fingerprint;

use crate::event::{EventId, RecordedEvent};
use crate::limits::HEADER_NAME_BYTES_MAX;
use crate::migrate::MigrationError;
use crate::outbox::Cluster;
use crate::stream::{ExpectedVersion, Position, StreamName, Version};

/// Why an append was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing is written, for these reasons; the transaction of [`append_in`](crate::Store::append_in)
    /// stays usable. Repeating the same append gives the same answer until something else changes.
    #[error("append refused: {}", Listed(.0))]
    Refused(Vec<Refusal>),
    /// Another transaction was faster than this one, which sees the store as it was before: of
    /// [`append_in`](crate::Store::append_in), mostly in transactions above `READ COMMITTED`. Nothing is
    /// written and the transaction is of no use any more: roll back, and run all of it again.
    #[error("append lost a race against another transaction: roll back, and run this one again")]
    LostRace(#[source] Option<sqlx::Error>),
    /// The connection broke at or after the commit: the events may be recorded, or not. Repeat the
    /// append with the same [`NewEvent`](crate::NewEvent)s: it writes them once.
    #[error("append with unknown outcome: repeat it with the same events to settle it")]
    Unknown(#[source] sqlx::Error),
    /// Nothing is written: the server refused, or was not reached.
    #[error("append events")]
    Failed(#[source] sqlx::Error),
}

impl AppendError {
    /// Whether repeating the same append, with the same events, can succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Unknown(_) | Self::LostRace(_) => true,
            Self::Failed(source) => is_transient(source),
        }
    }

    /// The version conflict of `stream`, if that is a reason of the refusal.
    #[must_use]
    pub fn conflict_of(&self, stream: &StreamName) -> Option<&Conflict> {
        let Self::Refused(refusals) = self else { return None };
        refusals.iter().find_map(|refusal| match refusal {
            Refusal::Conflict(conflict) if conflict.stream == *stream => Some(conflict),
            Refusal::Conflict(_)
            | Refusal::IdTaken { .. }
            | Refusal::PartlyKnown { .. }
            | Refusal::IllegalStream { .. }
            | Refusal::UnknownSchema { .. }
            | Refusal::IncompatibleSchema { .. }
            | Refusal::NulCharacter { .. }
            | Refusal::HeaderName { .. }
            | Refusal::Limit { .. } => None,
        })
    }
}

impl From<sqlx::Error> for AppendError {
    /// What an error of the caller's own commit means, after [`append_in`](crate::Store::append_in): a lost race, which
    /// `SERIALIZABLE` can find as late as that; an unknown outcome, when no answer came; or a failure.
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref() {
            // The session was ended, possibly between the commit and its reply.
            Some(code) if code.starts_with("57P") || code.starts_with("08") => Self::Unknown(error),
            Some(_) => Self::refused_by_server(error),
            None => Self::Unknown(error),
        }
    }
}

impl AppendError {
    /// Nothing is written: because of another transaction, or for another reason.
    pub(crate) fn refused_by_server(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref() {
            // Serialisation failure, deadlock, and an id that another transaction has recorded meanwhile.
            Some("40001" | "40P01" | "23505") => Self::LostRace(Some(error)),
            Some(_) | None => Self::Failed(error),
        }
    }
}

/// A stream is not as the append expected it.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// The stream.
    pub stream: StreamName,
    /// What the append expected.
    pub expected: ExpectedVersion,
    /// The version of its last event; `None` when there is no such stream.
    pub actual: Option<Version>,
    /// The events after the expected version, as many as the append asked for.
    pub events: Vec<RecordedEvent>,
}

/// One reason why nothing was written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Refusal {
    /// Somebody else was there first: read what happened, decide again.
    Conflict(Conflict),
    /// The event's id is recorded with another content: an id was used twice.
    IdTaken {
        /// The id.
        event_id: EventId,
        /// The stream that has it.
        stream: String,
        /// The fields that differ: `stream`, `event_type`, `schema`, `payload`, `metadata`, `headers`.
        differs: Vec<String>,
    },
    /// Some of the events are recorded and others are not: two different appends share ids.
    PartlyKnown {
        /// The ids that are recorded.
        event_ids: Vec<EventId>,
    },
    /// The database does not take the stream's name.
    IllegalStream {
        /// The name.
        stream: String,
    },
    /// A schema is not registered in the store. The store registers what it appends, so the table was
    /// changed by somebody else.
    UnknownSchema {
        /// Its fingerprint.
        fingerprint: Fingerprint,
    },
    /// The schema cannot read what its last version wrote: consumers would break.
    IncompatibleSchema {
        /// The record's full name.
        full_name: String,
        /// What does not fit.
        reason: String,
    },
    /// A text has a NUL character, which PostgreSQL cannot store.
    NulCharacter {
        /// The event.
        event_id: EventId,
        /// Where: `data`, `metadata` or `headers`.
        place: &'static str,
    },
    /// A header has a name that the topic contract uses itself, or that is no header's name.
    HeaderName {
        /// The event.
        event_id: EventId,
        /// The name.
        name: String,
    },
    /// More than there may be.
    Limit {
        /// What is limited, with its unit, and where it was found.
        what: String,
        /// How much there is.
        actual: usize,
        /// How much there may be.
        max: usize,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(Conflict { stream, expected, actual: Some(actual), .. }) => {
                write!(f, "stream {stream} is at version {actual}, expected {expected}")
            }
            Self::Conflict(Conflict { stream, expected, actual: None, .. }) => {
                write!(f, "stream {stream} does not exist, expected {expected}")
            }
            Self::IdTaken { event_id, stream, differs } => write!(
                f,
                "event id {event_id} is recorded in stream {stream} with another {}: use a new id for a new event",
                differs.join(", ")
            ),
            Self::PartlyKnown { event_ids } => write!(
                f,
                "{} of the events are recorded already and others are not: repeat an append with exactly its events",
                event_ids.len()
            ),
            Self::IllegalStream { stream } => {
                write!(f, "the database refuses the stream name {stream:?}")
            }
            Self::UnknownSchema { fingerprint } => {
                write!(f, "schema {fingerprint} is not registered in the store")
            }
            Self::IncompatibleSchema { full_name, reason } => write!(
                f,
                "schema {full_name} cannot read what its last version wrote: {reason}; give new fields a default"
            ),
            Self::NulCharacter { event_id, place } => {
                write!(
                    f,
                    "the {place} of event {event_id} have a NUL character, which PostgreSQL cannot store"
                )
            }
            Self::HeaderName { event_id, name } => write!(
                f,
                "event {event_id} has a header named {name:?}: ce_*, content-type, traceparent and tracestate are the \
                 topic contract's own, and a name has 1 to {HEADER_NAME_BYTES_MAX} bytes of A-Z a-z 0-9 . _ -"
            ),
            Self::Limit { what, actual, max } => write!(f, "{what}: {actual}, at most {max}"),
        }
    }
}

struct Listed<'a>(&'a [Refusal]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, refusal) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{refusal}")?;
        }
        Ok(())
    }
}

/// Why something other than an append was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL refused or was not reached.
    #[error("{action}")]
    Database {
        /// What was being done: a verb and an object.
        action: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The server confirms commits that are not on its disk: it runs with `fsync = off`.
    #[error(
        "the database server runs with fsync = off: a crash of its machine can lose or damage what it has confirmed; set \
         fsync = on, or connect with StoreOptions::allow_fsync_off where nothing is worth keeping"
    )]
    NotDurable,
    /// The tables could not be created or upgraded.
    #[error("migrate the store's tables")]
    Migrate(#[source] MigrationError),
    /// The store has something that this version of the crate cannot read.
    #[error("{what} in the store is not readable: {reason}")]
    Unreadable {
        /// What, and where it is.
        what: String,
        /// Why.
        reason: String,
    },
    /// What the store has of an event is not what an append writes, or its schema is none: somebody else has written it.
    #[error(
        "event {version} of stream {stream:?}, at position {position}, cannot be read: {reason}; a read goes on from behind it, \
         a follower passes it with Follow::passing"
    )]
    UnreadableEvent {
        /// The stream; a text, since its name may be what is wrong.
        stream: String,
        /// The event.
        version: i64,
        /// Its position. A read begins [`from`](crate::Read::from) behind it, and a follower leaves it out by
        /// [`passing`](crate::Follow::passing).
        position: Position,
        /// What cannot be read, and why not.
        reason: String,
    },
    /// A checkpoint belongs to another history: another database cluster, or the one that a promoted standby began.
    #[error(
        "the checkpoint is of database cluster {} on timeline {}, and this is cluster {} on timeline {}: \
         what is behind the checkpoint there may not be here; compare, or follow from the beginning",
        checkpoint.system_identifier, checkpoint.timeline, found.system_identifier, found.timeline
    )]
    OtherHistory {
        /// The history of the checkpoint.
        checkpoint: Cluster,
        /// The history of the database.
        found: Cluster,
    },
    /// An event is not what its schema or the application's type says.
    #[error("decode event {version} of stream {stream}")]
    Decode {
        /// The stream.
        stream: StreamName,
        /// The event.
        version: Version,
        /// The cause.
        #[source]
        source: annals_schemas::DecodeError,
    },
}

impl Error {
    pub(crate) fn database(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { action, source }
    }

    pub(crate) fn database_each(action: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Database { action, source }
    }

    /// Whether doing the same again can succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Database { source, .. } | Self::Migrate(MigrationError::Database(source)) => {
                is_transient(source)
            }
            Self::Migrate(_)
            | Self::NotDurable
            | Self::Unreadable { .. }
            | Self::UnreadableEvent { .. }
            | Self::OtherHistory { .. }
            | Self::Decode { .. } => false,
        }
    }
}

/// Whether the cause may be gone at the next try: no connection, a lost race, a server that restarts.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code) {
        // 40: serialisation failure, deadlock. 53: resources. 55P03: lock timeout. 57P0x: shutdown.
        Some(code) => ["40001", "40P01", "53", "55P03", "57P", "08"]
            .iter()
            .any(|class| code.starts_with(class)),
        None => matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed
        ),
    }
}
