//! The reasons for which the store refuses an append.

use std::fmt;

use annals_schemas::{Broken, Fingerprint};
use jiff::Timestamp;

use crate::event::{EventId, RecordedEvent};
use crate::limits::HEADER_NAME_BYTES_MAX;
use crate::stream::{ExpectedVersion, Position, StreamName, Version};
use crate::tag::Tag;

/// A stream is not at the version that the append expected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// The stream.
    pub stream: StreamName,
    /// The version that the append expected.
    pub expected: ExpectedVersion,
    /// The version of the stream's last event; `None` if there is no such stream.
    pub actual: Option<Version>,
    /// The events after the expected version, up to the number that the append asked for.
    pub events: Vec<RecordedEvent>,
}

/// Events with a tag are recorded behind those that the append's condition allows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagConflict {
    /// The tag.
    pub tag: Tag,
    /// The position of the condition.
    pub after: Position,
    /// The position of the last such event: the one for the next condition, once its event is read.
    pub last: Position,
    /// The events after the position, up to the number that the append asked for.
    pub events: Vec<RecordedEvent>,
}

/// One reason why the store wrote nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// A concurrent append came first: read the new events, and decide again.
    Conflict(Conflict),
    /// An event with the tag of a condition came first: read the new events, and decide again. The
    /// conditions are checked before the versions.
    TagConflict(TagConflict),
    /// The append has tags, and the caller's transaction is above `READ COMMITTED`: it would not
    /// see the events that others recorded before it got the locks of the tags.
    Isolation {
        /// The isolation level of the transaction.
        found: String,
    },
    /// The event's id is recorded with other content: the caller used an id twice.
    ///
    /// Stream, event type, schema and payload are compared. Metadata and headers describe a request
    /// and may differ in a retry; the store keeps those of the first attempt.
    IdTaken {
        /// The id.
        event_id: EventId,
        /// The stream that has an event with this id.
        stream: String,
        /// The fields that differ: `stream`, `event_type`, `schema`, `payload`.
        differs: Vec<String>,
    },
    /// Some of the events are recorded and others are not: two different appends share ids.
    PartlyKnown {
        /// The ids that are recorded.
        event_ids: Vec<EventId>,
    },
    /// The database rejects the stream's name.
    IllegalStream {
        /// The name.
        stream: String,
    },
    /// The stream is closed ([`Store::close_stream`](crate::Store::close_stream)): it gets no
    /// further event.
    StreamClosed {
        /// The stream.
        stream: StreamName,
        /// When an administrator closed it.
        closed_at: Timestamp,
    },
    /// A schema is not registered in the store for this category. The store registers the schemas
    /// of these events, so another program has changed the table.
    UnknownSchema {
        /// The category.
        category: String,
        /// The schema's fingerprint.
        fingerprint: Fingerprint,
    },
    /// The store came from another database cluster and is not adopted yet. Its transaction ids
    /// have no meaning in this cluster.
    OtherCluster {
        /// The identifier of the cluster that the store belongs to.
        recorded: String,
        /// The identifier of the cluster that serves this session.
        found: String,
    },
    /// The database rejects the event's metadata or headers, because no relay could publish them.
    Malformed {
        /// The event.
        event_id: EventId,
        /// `metadata` or `headers`.
        field: String,
    },
    /// A new version of a schema would break programs: it cannot read events that an earlier
    /// version wrote in this category, or that version cannot read its events
    /// ([`StoreOptions::compatibility`](crate::StoreOptions::compatibility)). There is one refusal
    /// for each such earlier version and direction.
    IncompatibleSchema {
        /// The record's full name.
        full_name: String,
        /// The earlier version.
        earlier: Fingerprint,
        /// Who would break.
        breaks: Broken,
        /// The incompatibility.
        reason: String,
    },
    /// A schema is new, and other programs refuse or misread it, though it is legal here: a logical
    /// type without effect, a default that is not of its union's first branch, a decimal that does
    /// not fit its fixed, or a named type that another schema of its set defines differently. The
    /// generated test of the set fails with the same reasons ([`verify`](crate::verify)).
    RefusedElsewhere {
        /// The record's full name.
        full_name: String,
        /// The reasons, one line each.
        reasons: Vec<String>,
    },
    /// The event belongs to a set of another category than the stream.
    /// [`NewEvent::for_category`](crate::NewEvent::for_category) allows it.
    OtherCategory {
        /// The event.
        event_id: EventId,
        /// Its type.
        event_type: &'static str,
        /// The category of its set.
        category: String,
        /// The stream.
        stream: StreamName,
    },
    /// A text contains a NUL character, which PostgreSQL cannot store.
    NulCharacter {
        /// The event.
        event_id: EventId,
        /// `data`, `metadata` or `headers`.
        field: &'static str,
    },
    /// A header's name belongs to the topic contract, or is not a legal header name.
    HeaderName {
        /// The event.
        event_id: EventId,
        /// The name.
        name: String,
    },
    /// A limit is exceeded.
    Limit {
        /// The limited quantity, with its unit and the event that exceeds it.
        what: String,
        /// The actual number.
        actual: usize,
        /// The maximum.
        max: usize,
    },
}

impl Refusal {
    /// The version conflict, if the refusal is one.
    pub(crate) const fn conflict(&self) -> Option<&Conflict> {
        match self {
            Self::Conflict(conflict) => Some(conflict),
            Self::TagConflict(_)
            | Self::Isolation { .. }
            | Self::IdTaken { .. }
            | Self::PartlyKnown { .. }
            | Self::IllegalStream { .. }
            | Self::StreamClosed { .. }
            | Self::UnknownSchema { .. }
            | Self::OtherCluster { .. }
            | Self::Malformed { .. }
            | Self::IncompatibleSchema { .. }
            | Self::RefusedElsewhere { .. }
            | Self::OtherCategory { .. }
            | Self::NulCharacter { .. }
            | Self::HeaderName { .. }
            | Self::Limit { .. } => None,
        }
    }

    /// The conflict of a tag, if the refusal is one.
    pub(crate) const fn tag_conflict(&self) -> Option<&TagConflict> {
        if let Self::TagConflict(conflict) = self { Some(conflict) } else { None }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, expected, actual, .. } = self;
        match actual {
            Some(actual) => {
                write!(f, "stream {stream} is at version {actual}, expected {expected}")
            }
            None => write!(f, "stream {stream} does not exist, expected {expected}"),
        }
    }
}

impl fmt::Display for TagConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, after, last, .. } = self;
        write!(f, "events with tag {tag} were recorded behind position {after}, the last at {last}")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(conflict) => conflict.fmt(f),
            Self::TagConflict(conflict) => conflict.fmt(f),
            Self::Isolation { found } => write!(
                f,
                "an append with tags needs a transaction at READ COMMITTED, and this one is at {}",
                found.to_uppercase()
            ),
            Self::IdTaken { event_id, stream, differs } => write!(
                f,
                "event id {event_id} is recorded in stream {stream} with another {}: use a new id \
                 for a new event",
                differs.join(", ")
            ),
            Self::PartlyKnown { event_ids } => write!(
                f,
                "{} of the events are already recorded and others are not: repeat an append with \
                 exactly its events",
                event_ids.len()
            ),
            Self::IllegalStream { stream } => {
                write!(f, "the database rejects the stream name {stream:?}")
            }
            Self::StreamClosed { stream, closed_at } => {
                write!(f, "stream {stream} is closed since {closed_at}")
            }
            Self::UnknownSchema { category, fingerprint } => write!(
                f,
                "schema {fingerprint} is not registered in the store for category {category}"
            ),
            Self::OtherCluster { recorded, found } => f.write_str(&other_cluster(recorded, found)),
            Self::Malformed { event_id, field } => write!(
                f,
                "the database rejects the {field} of event {event_id}: they cannot be published"
            ),
            Self::IncompatibleSchema { full_name, earlier, breaks, reason } => write!(
                f,
                "the new version of schema {full_name} breaks {breaks}, by its version {earlier}: \
                 {reason}; {}",
                correction(*breaks)
            ),
            Self::RefusedElsewhere { full_name, reasons } => {
                f.write_str(&refused_elsewhere(full_name, reasons))
            }
            Self::OtherCategory { event_id, event_type, category, stream } => write!(
                f,
                "event {event_id} ({event_type}) belongs to category {category}, and stream \
                 {stream} does not"
            ),
            Self::NulCharacter { event_id, field } => write!(
                f,
                "the {field} of event {event_id} contain a NUL character, which PostgreSQL cannot \
                 store"
            ),
            Self::HeaderName { event_id, name } => f.write_str(&illegal_header(*event_id, name)),
            Self::Limit { what, actual, max } => write!(f, "{what}: {actual}, at most {max}"),
        }
    }
}

/// How to correct a version that breaks programs.
const fn correction(breaks: Broken) -> &'static str {
    match breaks {
        Broken::ReadersOfOldEvents => {
            "give a new field a default, and give a field that was removed and added again its old \
             type or another name"
        }
        Broken::ConsumersNotUpgraded => {
            "keep a field without a default, and give an enum a default before it gets another \
             symbol; or upgrade all consumers first, and choose Compatibility::Backward"
        }
    }
}

fn refused_elsewhere(full_name: &str, reasons: &[String]) -> String {
    format!("other programs refuse or misread schema {full_name}: {}", reasons.join("; "))
}

fn illegal_header(event_id: EventId, name: &str) -> String {
    format!(
        "event {event_id} has a header named {name:?}: ce_*, __*, content-type, traceparent and \
         tracestate belong to the topic contract, and a name has 1 to {HEADER_NAME_BYTES_MAX} bytes \
         of A-Z a-z 0-9 . _ -"
    )
}

/// The message about a store that serves in a cluster that it does not belong to.
pub(crate) fn other_cluster(recorded: &str, found: &str) -> String {
    format!(
        "the store belongs to database cluster {recorded}, and this is cluster {found}: it was \
         restored, copied or upgraded; run `annals-relay adopt --reason ...` to continue here, and \
         add --copy if the original continues, too"
    )
}
