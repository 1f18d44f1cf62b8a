//! The events of one category, as a Rust enum.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::definition::{NAMELESS, refuse};
use crate::{DecodeError, EncodeError, Fingerprint, Misfit, Schema, SchemaError};

const CATEGORY_BYTES_MAX: usize = 100;

/// The event types of one category. Made by [`events!`](crate::events).
pub trait EventSet: Sized + Send + Sync + 'static {
    /// The category: the part of a stream's name before its first `-`.
    const CATEGORY: &'static str;

    /// What was declared, in order.
    const EVENTS: &'static [EventDeclaration];

    /// Each event type with its schema, in the order of declaration.
    ///
    /// # Errors
    /// The first schema that does not parse; [`verify`] shows them all.
    fn schemas() -> Result<&'static [(&'static str, Schema)], SchemaError>;

    /// The type of this event: the name of the variant, of its struct and of its Avro record.
    fn event_type(&self) -> &'static str;

    /// Encodes this event as it is stored and published.
    ///
    /// # Errors
    /// [`EncodeError`], if the value does not fit its schema.
    fn encode(&self) -> Result<Encoded, EncodeError>;

    /// Decodes a payload of the given event type that `writer` wrote.
    ///
    /// # Errors
    /// [`DecodeError::UnknownEventType`] for a type that is not declared here, otherwise as
    /// [`Schema::decode`].
    fn decode(event_type: &str, writer: &Schema, payload: &[u8]) -> Result<Self, DecodeError>;
}

/// An event, ready to be stored.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The type of the event.
    pub event_type: &'static str,
    /// The schema that wrote the payload.
    pub schema: Schema,
    /// The fingerprint of that schema.
    pub fingerprint: Fingerprint,
    /// The Avro datum, without any prefix.
    pub payload: Vec<u8>,
    /// The same as JSON, for people and SQL.
    pub data: Box<RawValue>,
}

/// One event type as it was declared.
#[derive(Debug, Clone, Copy)]
pub struct EventDeclaration {
    /// The name of the variant.
    pub event_type: &'static str,
    /// The text of the `.avsc` file.
    pub definition: &'static str,
    /// [`check_fit`](crate::check_fit) of the variant's struct.
    pub check_fit: fn(&Schema) -> Result<(), Vec<Misfit>>,
}

impl EventDeclaration {
    fn schema(&self) -> Result<Schema, SchemaError> {
        Schema::parse(self.definition).map_err(|error| match error {
            // The definition does not even tell its name.
            SchemaError { name, reason } if name == NAMELESS => {
                SchemaError { name: self.event_type.into(), reason }
            }
            named => named,
        })
    }
}

/// What is wrong with a set of events. Its text is a list, in both forms of formatting: a test
/// that returns it prints something to read.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    /// The category of the set.
    pub category: &'static str,
    /// One line each, never empty.
    pub problems: Vec<String>,
}

/// Checks everything about a set of events that can be known before the first one is written:
/// the category's name, that each schema parses, that it is named as the variant, that the type
/// fits it. The test made by [`events!`](crate::events) calls this.
///
/// # Errors
/// A [`Report`] of all that is wrong.
pub fn verify<E: EventSet>() -> Result<(), Report> {
    let mut problems = Vec::new();
    if !is_category(E::CATEGORY) {
        problems.push(format!(
            "category {:?}: a letter, then up to {} letters, digits or _",
            E::CATEGORY,
            CATEGORY_BYTES_MAX - 1
        ));
    }
    for declared in E::EVENTS {
        problems.extend(problems_of(declared));
    }
    if problems.is_empty() { Ok(()) } else { Err(Report { category: E::CATEGORY, problems }) }
}

fn problems_of(declared: &EventDeclaration) -> Vec<String> {
    let EventDeclaration { event_type, definition, check_fit } = declared;
    let schema = match declared.schema() {
        Ok(schema) => schema,
        Err(error) => return vec![format!("{event_type}: {error}")],
    };
    let misfits = check_fit(&schema).err().unwrap_or_default();
    let misfits = misfits.iter().map(|misfit| format!("{event_type}: {misfit}"));
    let renamed = (schema.name() != *event_type)
        .then(|| format!("{event_type}: the Avro record is named {}", schema.name()));
    let unmeant = crate::unmeant::logical_types(definition).into_iter();
    let unmeant = unmeant.map(|unmeant| format!("{event_type}: {unmeant}"));
    renamed.into_iter().chain(unmeant).chain(misfits).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the events of category {} do not fit:", self.category)?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Report {}

/// Whether a text may be a category. Usable in a constant.
#[must_use]
pub const fn is_category(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), true) = (bytes.first(), bytes.len() <= CATEGORY_BYTES_MAX) else {
        return false;
    };
    let mut index = 0;
    while index < bytes.len() {
        // Indexing, since iterators do not work in constants; the bound is one line above.
        if !(bytes[index].is_ascii_alphanumeric() || bytes[index] == b'_') {
            return false;
        }
        index += 1;
    }
    first.is_ascii_alphabetic()
}

/// The parsed schemas of a set of events.
#[doc(hidden)]
#[derive(Debug)]
pub struct Table(Result<Vec<(&'static str, Schema)>, SchemaError>);

impl Table {
    #[must_use]
    pub fn parse(events: &'static [EventDeclaration]) -> Self {
        let parse = |declared: &EventDeclaration| Ok((declared.event_type, declared.schema()?));
        Self(events.iter().map(parse).collect())
    }

    /// # Errors
    /// The first schema that does not parse.
    pub fn schemas(&self) -> Result<&[(&'static str, Schema)], SchemaError> {
        self.0.as_deref().map_err(Clone::clone)
    }

    fn schema(&self, place: usize) -> Result<Schema, SchemaError> {
        let found = self.schemas()?.get(place).map(|(_, schema)| *schema);
        // The places are those of the enum that the table was made for.
        found.ok_or_else(|| refuse(NAMELESS, "declared in no table"))
    }

    /// # Errors
    /// As [`EventSet::encode`].
    pub fn encode<T: Serialize>(
        &self,
        place: usize,
        event_type: &'static str,
        event: &T,
    ) -> Result<Encoded, EncodeError> {
        let schema = self.schema(place)?;
        let payload = schema.encode(event)?;
        let data = serde_json::value::to_raw_value(event)
            .map_err(|source| EncodeError::Json { event_type, source })?;
        Ok(Encoded { event_type, schema, fingerprint: schema.fingerprint(), payload, data })
    }

    /// # Errors
    /// As [`Schema::decode`].
    pub fn decode<T: DeserializeOwned>(
        &self,
        place: usize,
        writer: &Schema,
        payload: &[u8],
    ) -> Result<T, DecodeError> {
        writer.decode(payload, &self.schema(place)?)
    }
}
