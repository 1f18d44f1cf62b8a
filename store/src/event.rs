//! Events: before they are appended, and as the store recorded them.

use std::collections::BTreeMap;
use std::fmt;

use annals_schemas::{DecodeError, EncodeError, EventSet, Schema};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::stream::{Position, StreamName, Version};

/// What makes an event itself, whatever happens to the connection: the same id is the same event.
///
/// New ids are UUIDs of version 7, which sort by time and so keep the store's index compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id as a UUID.
    #[must_use]
    pub const fn get(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known about how an event came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Everything that one request or process led to has this in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
    /// The id of the event or command that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// Who did it, in the service's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// W3C trace context, carried to the consumers unchanged. Taken from the current span where it is not set, if the
    /// store is told how ([`StoreOptions::trace_context`](crate::StoreOptions::trace_context)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// W3C trace state, carried to the consumers unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// An event ready to be appended: checked against its schema, encoded, with its id.
///
/// Keep the value for a retry: its id is what makes the retry safe.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub(crate) id: EventId,
    pub(crate) event_type: &'static str,
    pub(crate) schema: Schema,
    pub(crate) payload: Vec<u8>,
    pub(crate) data: Box<RawValue>,
    pub(crate) metadata: Metadata,
    pub(crate) headers: BTreeMap<String, String>,
}

impl NewEvent {
    /// Encodes an event against its schema, offline, and gives it an id.
    ///
    /// # Errors
    /// [`EncodeError`] when the value does not fit the schema; it names the field.
    pub fn new<E: EventSet>(event: &E) -> Result<Self, EncodeError> {
        let encoded = event.encode()?;
        Ok(Self {
            id: EventId::generate(),
            event_type: encoded.event_type,
            schema: encoded.schema,
            payload: encoded.payload,
            data: encoded.data,
            metadata: Metadata::default(),
            headers: BTreeMap::new(),
        })
    }

    /// Replaces the id by one of the caller's, for instance one derived from a command's id.
    #[must_use]
    pub fn with_id(mut self, id: EventId) -> Self {
        self.id = id;
        self
    }

    /// Replaces the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Adds a free header, carried to the consumers as a record header. The names of the topic contract
    /// (`ce_*`, `content-type`, `traceparent`, `tracestate`) are refused in the append.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// The event's id.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// The event's type: the name of its Avro record.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        self.event_type
    }
}

/// An event as the store has it.
#[derive(Debug, Clone)]
pub struct RecordedEvent {
    /// Its number in the store.
    pub position: Position,
    /// Its stream.
    pub stream: StreamName,
    /// Its number in the stream.
    pub version: Version,
    /// Its id.
    pub id: EventId,
    /// Its type: the name of its Avro record.
    pub event_type: String,
    /// When the store recorded it, by the database's clock, in microseconds.
    pub recorded_at: Timestamp,
    /// The schema that it was written with.
    pub schema: Schema,
    /// The event in Avro, without prefix, as written.
    pub payload: Vec<u8>,
    /// How it came to be.
    pub metadata: Metadata,
    /// Free headers.
    pub headers: BTreeMap<String, String>,
    /// How many events of its stream were removed, by logged administration, between this one and the one read before
    /// it, or where the reading began. Counted by whatever reads or follows one stream; 0 elsewhere, where positions
    /// that were never used look the same.
    pub removed_before: u64,
}

impl RecordedEvent {
    /// The event as a value of the application's type; a schema that was changed since is resolved.
    ///
    /// # Errors
    /// [`DecodeError`] when `E` has no such event type or the payload does not resolve to it.
    pub fn decode<E: EventSet>(&self) -> Result<E, DecodeError> {
        E::decode(&self.event_type, &self.schema, &self.payload)
    }

    /// The event as JSON, for people and for tools that know no types.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is not what its schema says.
    pub fn to_json(&self) -> Result<serde_json::Value, DecodeError> {
        self.schema.decode_json(&self.payload)
    }
}
