//! What can go wrong, by what the caller can do about it.

use std::borrow::Cow;
use std::fmt;

use annals_schemas::Fingerprint;

use crate::event::{EventId, RecordedEvent};
use crate::limits::HEADER_NAME_BYTES_MAX;
use crate::migrate::MigrationError;
use crate::outbox::History;
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
    /// The events may be recorded, or not: the connection broke, or the server reported an error that can come after
    /// the commit, such as a statement that was cancelled while it committed. Repeat the append with the same
    /// [`NewEvent`](crate::NewEvent)s: it writes them once.
    #[error("append with unknown outcome: repeat it with the same events to settle it")]
    Unknown(#[source] sqlx::Error),
    /// Nothing is written: the server refused with an error that can only come before the commit, or was not reached.
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
            | Refusal::OtherCluster { .. }
            | Refusal::Malformed { .. }
            | Refusal::IncompatibleSchema { .. }
            | Refusal::NulCharacter { .. }
            | Refusal::HeaderName { .. }
            | Refusal::Limit { .. } => None,
        })
    }
}

impl From<sqlx::Error> for AppendError {
    /// What an error of a commit means, the caller's own after [`append_in`](crate::Store::append_in) included: a lost race,
    /// which `SERIALIZABLE` can find as late as that; a failure, where the error can only come before the commit; and else
    /// an unknown outcome.
    fn from(error: sqlx::Error) -> Self {
        match code_of(&error).as_deref() {
            Some(code) if is_lost_race(code) => Self::LostRace(Some(error)),
            Some(code) if is_before_commit(code) => Self::Failed(error),
            Some(_) | None => Self::Unknown(error),
        }
    }
}

impl AppendError {
    /// What an error of a statement inside a transaction means: nothing is written, because of another transaction or for
    /// another reason.
    pub(crate) fn inside_a_transaction(error: sqlx::Error) -> Self {
        match code_of(&error).as_deref() {
            Some(code) if is_lost_race(code) => Self::LostRace(Some(error)),
            Some(_) | None => Self::Failed(error),
        }
    }
}

/// Serialisation failure, deadlock, and an id that another transaction has recorded meanwhile.
fn is_lost_race(code: &str) -> bool {
    ["40001", "40P01", "23505"].contains(&code)
}

/// Whether an error can only come before the transaction is committed.
///
/// Not so: a cancelled statement (57014), since a `COMMIT` inside a procedure does not disarm `statement_timeout`; a lock
/// timeout (55P03), lack of memory or disk (53), and what is internal (58, XX), since the server takes a snapshot and reads
/// its catalogs again between the commit and the answer; and what ends the session (25P04, 57P, 08).
fn is_before_commit(code: &str) -> bool {
    // 0A: not supported. 22: data. 23: constraints, deferred ones included. 25: state of the transaction. 28: login.
    // 2D: commit inside a transaction block. 3D, 3F: no such database or schema. 40: rolled back. 42: names and rights.
    // 44: check option. 54: a program's limits. P0: raised by a function.
    const CLASSES: [&str; 12] =
        ["0A", "22", "23", "25", "28", "2D", "3D", "3F", "42", "44", "54", "P0"];
    // 25P04: transaction timeout. 40: but for 40003, completion unknown.
    let is_of_a_class = CLASSES.iter().any(|class| code.starts_with(class)) && code != "25P04";
    is_of_a_class || (code.starts_with("40") && code != "40003")
}

/// Whether the server may not write: a standby, or a session for which it, its database or its login is read-only.
pub(crate) fn is_read_only(error: &sqlx::Error) -> bool {
    code_of(error).as_deref() == Some("25006")
}

/// The SQLSTATE, where the server answered.
pub(crate) fn code_of(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code)
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
    ///
    /// What is compared is what was decided: stream, event type, schema and payload. Metadata and headers say how a
    /// request went: those of a retry may differ, and what the first try recorded stays.
    IdTaken {
        /// The id.
        event_id: EventId,
        /// The stream that has it.
        stream: String,
        /// The fields that differ: `stream`, `event_type`, `schema`, `payload`.
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
    /// A schema is not registered in the store for this category. The store registers what it appends, so the table was
    /// changed by somebody else.
    UnknownSchema {
        /// The category.
        category: String,
        /// Its fingerprint.
        fingerprint: Fingerprint,
    },
    /// The store came here from another database cluster, where its transaction ids meant something, and is not adopted yet.
    OtherCluster {
        /// The identifier of the cluster that the store is at home in.
        recorded: String,
        /// That of the cluster that it is in.
        found: String,
    },
    /// The database does not take the event's metadata or headers, which nobody could publish.
    Malformed {
        /// The event.
        event_id: EventId,
        /// Which: `metadata` or `headers`.
        place: String,
    },
    /// A new version of a schema cannot read what an earlier one wrote in this category: as this type, those events could
    /// never be read again. There is one refusal for each such version.
    IncompatibleSchema {
        /// The record's full name.
        full_name: String,
        /// The earlier version that it cannot read.
        earlier: Fingerprint,
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
            Self::UnknownSchema { category, fingerprint } => {
                write!(
                    f,
                    "schema {fingerprint} is not registered in the store for category {category}"
                )
            }
            Self::OtherCluster { recorded, found } => f.write_str(&other_cluster(recorded, found)),
            Self::Malformed { event_id, place } => {
                write!(
                    f,
                    "the database refuses the {place} of event {event_id}: they could not be published"
                )
            }
            Self::IncompatibleSchema { full_name, earlier, reason } => write!(
                f,
                "the new version of schema {full_name} cannot read events that its version {earlier} wrote: {reason}; a \
                 field that is new since then needs a default, and a field that comes back its old type or another name"
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

/// What is wrong in a cluster that is not the store's own, and what to do.
fn other_cluster(recorded: &str, found: &str) -> String {
    format!(
        "the store belongs to database cluster {recorded}, and this is cluster {found}: it was restored, copied or upgraded; run \
         `annals-relay adopt --reason ...` to go on here, with --copy if the store goes on there, too"
    )
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
    /// The store came here from another database cluster, where its transaction ids meant something, and is not adopted yet.
    #[error("{}", other_cluster(recorded, found))]
    OtherCluster {
        /// The identifier of the cluster that the store is at home in.
        recorded: String,
        /// That of the cluster that it is in.
        found: String,
    },
    /// A checkpoint belongs to another store.
    #[error("the checkpoint is of {checkpoint}, and this is {found}: follow from the beginning")]
    OtherStore {
        /// The history of the checkpoint.
        checkpoint: Box<History>,
        /// The history of the database.
        found: Box<History>,
    },
    /// Something that the follower passed is not in the store any more, or something else is: the database has lost a part of
    /// its history, by a restore to an earlier state or the promotion of a standby that lagged.
    #[error(
        "the follower passed {passed} events since position {since}, of which the store has not all the same ({present} there \
         now): the checkpoint is of {checkpoint}, and this is {found}, which has lost a part of it; follow from the beginning, or \
         from a checkpoint of before the loss with what belongs to it"
    )]
    OtherHistory {
        /// The history of the checkpoint.
        checkpoint: Box<History>,
        /// The history of the database.
        found: Box<History>,
        /// The position since which the events were counted.
        since: i64,
        /// How many the follower passed since then.
        passed: u64,
        /// How many are there now.
        present: i64,
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
            | Self::OtherCluster { .. }
            | Self::OtherStore { .. }
            | Self::UnreadableEvent { .. }
            | Self::OtherHistory { .. }
            | Self::Decode { .. } => false,
        }
    }
}

/// Whether the cause may be gone at the next try: no connection, a lost race, a server that restarts or may not write.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match code_of(error) {
        // 25006: read-only, until a standby is promoted. 40: serialisation failure, deadlock. 53: resources. 55P03: lock
        // timeout. 57P0x: shutdown.
        Some(code) => ["25006", "40001", "40P01", "53", "55P03", "57P", "08"]
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
