//! What can go wrong, sorted by what the caller does about it.

use thiserror::Error;

/// A definition that cannot be a schema of Annals events.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("schema {name}: {reason}")]
pub struct SchemaError {
    /// The record's full name, or `?` where the definition does not even say that.
    pub name: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// An event that cannot be encoded. Nothing was written; the same event fails again.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The value does not fit the schema. [`check_fit`](crate::check_fit) finds this in a test.
    #[error("encode {record}: field `{field}`: {reason}")]
    Misfit {
        /// The record's full name.
        record: String,
        /// The path of the field, dots between names; empty for the record itself.
        field: String,
        /// What the value gave, and what the schema says.
        reason: String,
    },
    /// The value has no JSON form: a map whose keys are not text, for instance.
    #[error("write {event_type} as JSON")]
    Json {
        /// The type of the event.
        event_type: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A schema declared beside the type is broken; the test made by
    /// [`events!`](crate::events) shows it.
    #[error("encode an event whose declared schema is broken")]
    Definition(#[from] SchemaError),
}

/// A payload that cannot be decoded.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// An event type that this program does not know: written by a newer one, or of no interest
    /// here. A projection usually passes over it.
    #[error("category {category} declares no event type {event_type}")]
    UnknownEventType {
        /// The category of the [`EventSet`](crate::EventSet) that was asked.
        category: &'static str,
        /// The type that was not found.
        event_type: String,
    },
    /// The reader's schema cannot hold what the writer's schema wrote. The bytes are fine: a newer
    /// version of this program may read them.
    #[error(transparent)]
    Incompatible(#[from] Incompatible),
    /// The bytes are not what the writer's schema says: cut off, too long, or of another schema.
    #[error("decode {record}: {reason}")]
    Malformed {
        /// The full name of the writer's record.
        record: String,
        /// What was found, and in which field if that is known.
        reason: String,
    },
    /// A schema declared beside the type is broken; the test made by
    /// [`events!`](crate::events) shows it.
    #[error("decode an event whose declared schema is broken")]
    Definition(#[from] SchemaError),
}

/// Why one schema cannot read what another one wrote. Lists every reason.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reader} cannot read what {writer} wrote: {}", join(.reasons))]
pub struct Incompatible {
    /// Full name and fingerprint of the reader's schema.
    pub reader: String,
    /// Full name and fingerprint of the writer's schema.
    pub writer: String,
    /// One each, never empty.
    pub reasons: Vec<Incompatibility>,
}

/// One reason why a schema cannot read another.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{field}`: {reason}")]
pub struct Incompatibility {
    /// The path of the field in the reader's schema, dots between names.
    pub field: String,
    /// What the one says, what the other says.
    pub reason: String,
}

fn join(reasons: &[Incompatibility]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
