//! Events: new ones for an append, and recorded ones.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use annals_schemas::personal::{Draft, placed};
use annals_schemas::{DecodeError, EncodeError, EventSet, Schema, conflicting_definitions};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::context::Context;
use crate::metadata::Metadata;
use crate::stream::{Position, StreamName, Version};
use crate::tag::Tag;

/// The identity of an event: the store records an id once.
///
/// New ids are UUIDs of version 7, which sort by time and keep the store's index compact.
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

/// An event for an append: checked against its schema, encoded, with an id.
///
/// Keep the value for a retry: the retry is safe because it has the same id.
///
/// ```
/// use annals_store::NewEvent;
/// # use annals_testkit::{AccountEvent, AccountOpened};
///
/// let opened = AccountEvent::from(AccountOpened { owner: "Ann".to_owned() });
/// let event = NewEvent::new(&opened)?.with_header("tenant", "north");
/// assert_eq!(event.event_type(), "AccountOpened");
/// # Ok::<(), annals_store::EncodeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub(crate) id: EventId,
    pub(crate) event_type: &'static str,
    /// The category of its set.
    pub(crate) category: Cow<'static, str>,
    pub(crate) schema: Schema,
    /// The event types of its set, with their schemas.
    pub(crate) set: &'static [(&'static str, Schema)],
    pub(crate) payload: Vec<u8>,
    pub(crate) data: Box<RawValue>,
    pub(crate) metadata: Metadata,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) tags: BTreeSet<Tag>,
    /// With open personal values, to seal them for another id.
    pub(crate) draft: Option<Draft>,
}

impl NewEvent {
    /// Encodes an event with its schema, without a server, and generates an id. In the scope of a
    /// [`Context`](crate::Context), the event takes its metadata.
    ///
    /// Personal values ([`Personal`](crate::Personal)) are sealed here: the appended and published
    /// event is encrypted. The open values stay in memory with the event, until it is dropped.
    ///
    /// # Errors
    /// [`EncodeError`] if the value does not match the schema; it names the field.
    pub fn new<E: EventSet>(event: &E) -> Result<Self, EncodeError> {
        let id = EventId::generate();
        let (encoded, draft) = Draft::of(event)?.into_sealed(*id.get().as_bytes())?;
        let event = Self {
            id,
            event_type: encoded.event_type,
            category: E::CATEGORY.into(),
            schema: encoded.schema,
            // They are parsed: the event is encoded.
            set: E::schemas().unwrap_or_default(),
            payload: encoded.payload,
            data: encoded.data,
            metadata: Metadata::default(),
            headers: BTreeMap::new(),
            tags: BTreeSet::new(),
            draft,
        };
        Ok(match Context::in_scope() {
            Some(context) => event.with_context(&context),
            None => event,
        })
    }

    /// Takes the metadata and headers of a context where the event has none. [`new`](Self::new)
    /// does this with the context of the task's scope.
    #[must_use]
    pub fn with_context(mut self, context: &Context) -> Self {
        context.complete(&mut self.metadata, &mut self.headers);
        self
    }

    /// Replaces the id, for instance by one that is derived from a command's id.
    #[must_use]
    pub fn with_id(mut self, id: EventId) -> Self {
        self.id = id;
        // The id is authenticated with each value. Sealing them again cannot fail: they are the
        // same.
        let sealed = self.draft.as_ref().map(|draft| draft.seal(*id.get().as_bytes()));
        if let Some(Ok(payload)) = sealed {
            self.payload = payload;
        }
        self
    }

    /// Replaces the metadata, those of a [`Context`](crate::Context) included.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Lets the event be appended to streams of this category, instead of that of its set: for a
    /// set that several categories share. Each category has its own topic and versions of the
    /// schema.
    #[must_use]
    pub fn for_category(mut self, category: impl Into<String>) -> Self {
        self.category = Cow::Owned(category.into());
        self
    }

    /// Adds a free header, passed to the consumers as a record header. The append refuses the names
    /// of the topic contract (`ce_*`, `__*`, `content-type`, `traceparent`, `tracestate`).
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Adds a tag: a thing that the event concerns, besides its stream. Reads and conditions of
    /// appends find the event by it ([`Read::tag`](crate::Read::tag),
    /// [`Append::under`](crate::Append::under)).
    #[must_use]
    pub fn with_tag(mut self, tag: &Tag) -> Self {
        self.tags.insert(tag.clone());
        self
    }

    /// What other programs refuse or misread of its schema, alone and beside the others of its set;
    /// as the generated test of the set tells it.
    pub(crate) fn refused_elsewhere(&self) -> Vec<String> {
        let mut reasons = self.schema.refused_elsewhere();
        let others = self.set.iter().filter(|(_, other)| *other != self.schema);
        let beside = others.flat_map(|(_, other)| conflicting_definitions(&[*other, self.schema]));
        reasons.extend(beside);
        reasons
    }

    /// Whether it has personal values, which are open in this process.
    pub(crate) const fn is_personal(&self) -> bool {
        self.draft.is_some()
    }

    /// The event as a read returns it.
    pub(crate) fn recorded(
        &self,
        stream: &StreamName,
        (version, position): (Version, Position),
        recorded_at: Option<Timestamp>,
    ) -> RecordedEvent {
        RecordedEvent {
            position,
            stream: stream.clone(),
            version,
            id: self.id,
            event_type: self.event_type.to_owned(),
            recorded_at: recorded_at.unwrap_or_default(),
            schema: self.schema,
            payload: self.payload.clone(),
            metadata: self.metadata.clone(),
            headers: self.headers.clone(),
            removed_before: 0,
        }
    }

    /// The event's id.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// The event's metadata.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The event's type: the name of its Avro record.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        self.event_type
    }
}

/// A recorded event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    /// The time of recording, by the database's clock, in microseconds.
    pub recorded_at: Timestamp,
    /// The schema that it was encoded with.
    pub schema: Schema,
    /// The event in Avro, without prefix.
    pub payload: Vec<u8>,
    /// Its origin.
    pub metadata: Metadata,
    /// Free headers.
    pub headers: BTreeMap<String, String>,
    /// The number of events that an administrator removed between this event and the previous one,
    /// or the start of the read: those of its stream in a read of one stream; those of the
    /// category, or all, in a read by position. They have any type, also if the read excludes
    /// types. 0 in a read of a correlation, a causation or a tag.
    pub removed_before: u64,
}

impl RecordedEvent {
    /// Decodes the event as a value of the application's type, with schema resolution.
    ///
    /// # Errors
    /// [`DecodeError`] if `E` has no such event type or the payload does not resolve to it.
    pub fn decode<E: EventSet>(&self) -> Result<E, DecodeError> {
        E::decode(&self.event_type, &self.schema, &self.placed())
    }

    /// Decodes the event as values of the application's type: one, or those that an upcaster makes
    /// of an event type that the application has replaced.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_all<E: EventSet>(&self) -> Result<Vec<E>, DecodeError> {
        E::decode_all(&self.event_type, &self.schema, &self.placed())
    }

    /// The payload, with the place of each personal value in front of it.
    fn placed(&self) -> Cow<'_, [u8]> {
        placed(&self.schema, *self.id.get().as_bytes(), &self.event_type, &self.payload)
    }

    /// Decodes the event as JSON, for people and for tools without the types.
    ///
    /// # Errors
    /// [`DecodeError`] if the payload does not match its schema.
    pub fn to_json(&self) -> Result<serde_json::Value, DecodeError> {
        self.schema.decode_json(&self.payload)
    }
}

impl Context {
    /// The context of work that an event causes, in a process manager for instance: the event is
    /// the cause, and its correlation id goes on; an event without one begins the correlation.
    #[must_use]
    pub fn caused_by(event: &RecordedEvent) -> Self {
        let id = event.id.get();
        Self::new().correlation_id(event.metadata.correlation_id.unwrap_or(id)).causation_id(id)
    }
}
