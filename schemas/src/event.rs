//! The events of one category, as a Rust enum.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::definition::{NAMELESS, refuse};
use crate::{DecodeError, EncodeError, Fingerprint, Misfit, Schema, SchemaError};

const CATEGORY_BYTES_MAX: usize = 100;

/// The event types of one category. Made by [`events!`](crate::events), and by nothing else: a
/// minor release can add methods.
pub trait EventSet: Sized + Send + Sync + 'static {
    /// The category: the part of a stream's name before its first `-`.
    const CATEGORY: &'static str;

    /// The declared event types, in order.
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
    fn encode(&self) -> Result<EncodedEvent, EncodeError>;

    /// Decodes a payload of the given event type that `writer` wrote.
    ///
    /// # Errors
    /// [`DecodeError::UnknownEventType`] for a type that is not declared here, otherwise as
    /// [`Schema::decode`].
    fn decode(event_type: &str, writer: &Schema, payload: &[u8]) -> Result<Self, DecodeError>;

    /// Decodes a payload as [`decode`](Self::decode) does; one of an event type of the set that
    /// this one replaces (`upcast` in [`events!`](crate::events)) as the events that its upcaster
    /// makes of it.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn decode_all(
        event_type: &str,
        writer: &Schema,
        payload: &[u8],
    ) -> Result<Vec<Self>, DecodeError> {
        Self::decode(event_type, writer, payload).map(|event| vec![event])
    }

    /// The event types that [`decode_all`](Self::decode_all) reads.
    #[must_use]
    fn readable_types() -> Vec<&'static str> {
        Self::EVENTS.iter().map(|event| event.event_type).collect()
    }
}

/// How a reader treats event types that its [`EventSet`] does not declare, which a newer program
/// wrote or which it does not need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UnknownEvents {
    /// It ends with an error that names the type.
    #[default]
    Refuse,
    /// It skips them.
    Skip,
}

/// An encoded event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EncodedEvent {
    /// The type of the event.
    pub event_type: &'static str,
    /// The schema that wrote the payload.
    pub schema: Schema,
    /// The fingerprint of that schema.
    pub fingerprint: Fingerprint,
    /// The Avro datum, without any prefix.
    pub payload: Vec<u8>,
    /// The same value as JSON.
    pub data: Box<RawValue>,
}

/// A declared event type.
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
            // The definition has no name.
            SchemaError { name, reason } if name == NAMELESS => {
                SchemaError { name: self.event_type.into(), reason }
            }
            named => named,
        })
    }
}

/// The problems of a set of events. `Debug` prints the same list as `Display`, so that a test that
/// returns it is readable.
#[derive(Clone, PartialEq, Eq)]
pub struct FitReport {
    /// The category of the set.
    pub category: &'static str,
    /// One line each; never empty.
    pub problems: Vec<String>,
}

/// Named types that the schemas of a category define differently; one line each. A union of the
/// category's events, and classes that are generated from its schemas, have one definition of each
/// name.
///
/// `schemas` has one version of each event type.
#[must_use]
pub fn conflicting_definitions(schemas: &[Schema]) -> Vec<String> {
    let mut known: BTreeMap<String, (&Schema, Value)> = BTreeMap::new();
    let mut problems = Vec::new();
    for schema in schemas {
        for (name, definition) in schema.semantic_form().named() {
            match known.get(&name) {
                Some((first, same)) if *same != definition => problems.push(format!(
                    "{}: {name} is defined otherwise than in {}; a category has one definition of \
                     each name",
                    schema.name(),
                    first.name()
                )),
                Some(_) => {}
                None => {
                    known.insert(name, (schema, definition));
                }
            }
        }
    }
    problems
}

/// Checks a set of events: the category's name, and of each schema that it parses, has the name of
/// the variant, fits the type, and has nothing that other programs refuse or misread: logical types
/// without effect, a default that is not of its union's first branch, a decimal that does not fit
/// its fixed, two definitions of one name in the category. The test generated by
/// [`events!`](crate::events) calls this.
///
/// # Errors
/// A [`FitReport`] of all problems.
pub fn verify<E: EventSet>() -> Result<(), FitReport> {
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
    let schemas: Vec<Schema> =
        E::EVENTS.iter().filter_map(|declared| declared.schema().ok()).collect();
    problems.extend(conflicting_definitions(&schemas));
    if problems.is_empty() { Ok(()) } else { Err(FitReport { category: E::CATEGORY, problems }) }
}

fn problems_of(declared: &EventDeclaration) -> Vec<String> {
    let EventDeclaration { event_type, check_fit, .. } = declared;
    let schema = match declared.schema() {
        Ok(schema) => schema,
        Err(error) => return vec![format!("{event_type}: {error}")],
    };
    let misfits = check_fit(&schema).err().unwrap_or_default();
    let misfits = misfits.iter().map(|misfit| format!("{event_type}: {misfit}"));
    let renamed = (schema.name() != *event_type)
        .then(|| format!("{event_type}: the Avro record is named {}", schema.name()));
    let lints = schema.refused_elsewhere().into_iter();
    let lints = lints.map(|lint| format!("{event_type}: {lint}"));
    let misplaced = schema.misplaced_personal_fields().iter().map(|field| {
        format!("{event_type}: field {field} is marked as personal: its type must be bytes")
    });
    renamed.into_iter().chain(lints).chain(misplaced).chain(misfits).collect()
}

impl fmt::Display for FitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the events of category {} do not fit:", self.category)?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl fmt::Debug for FitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for FitReport {}

/// Proves that a set of events reads every one of these schemas, such as all versions of all its
/// event types that were ever released: samples of each schema are decoded, and upcast.
///
/// Keep the `.avsc` file of each released version, and list them in a test. To check a database,
/// take the recorded schemas from it.
///
/// # Errors
/// A [`FitReport`] with the schemas that are not read.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Serialize, Deserialize)]
/// # pub struct OrderShipped { carrier: Carrier, weight_grams: i64 }
/// # #[derive(Debug, Serialize, Deserialize)]
/// # enum Carrier { Post, Courier }
/// # annals_schemas::events! {
/// #     #[derive(Debug)]
/// #     pub enum OrderEvent in "order" {
/// #         OrderShipped = "../tests/avro/order/OrderShipped.v1.avsc",
/// #     }
/// # }
/// use annals_schemas::{Schema, verify_released};
///
/// let released = [include_str!("../tests/avro/order/OrderShipped.v1.avsc")];
/// let schemas = released.into_iter().map(Schema::parse).collect::<Result<Vec<_>, _>>()?;
/// verify_released::<OrderEvent>(schemas)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify_released<E: EventSet>(
    schemas: impl IntoIterator<Item = Schema>,
) -> Result<(), FitReport> {
    let problems_of = |schema: Schema| {
        let decode = |datum: &[u8]| E::decode_all(schema.name(), &schema, datum).map(drop);
        let misfits = crate::fit::try_samples(&schema, decode).err().unwrap_or_default();
        let of = move |misfit| format!("{} {}: {misfit}", schema.name(), schema.fingerprint());
        misfits.into_iter().map(of)
    };
    let problems: Vec<String> = schemas.into_iter().flat_map(problems_of).collect();
    if problems.is_empty() { Ok(()) } else { Err(FitReport { category: E::CATEGORY, problems }) }
}

/// Whether a text is a legal category.
#[must_use]
pub const fn is_category(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), true) = (bytes.first(), bytes.len() <= CATEGORY_BYTES_MAX) else {
        return false;
    };
    let mut index = 0;
    while index < bytes.len() {
        // Indexing, since iterators do not work in constants.
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
pub struct SchemaTable(Result<Vec<(&'static str, Schema)>, SchemaError>);

impl SchemaTable {
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

    fn schema(&self, index: usize) -> Result<Schema, SchemaError> {
        let found = self.schemas()?.get(index).map(|(_, schema)| *schema);
        // The indices are those of the enum that the table was made for.
        found.ok_or_else(|| refuse(NAMELESS, "declared in no table"))
    }

    /// # Errors
    /// As [`EventSet::encode`].
    pub fn encode<T: Serialize>(
        &self,
        index: usize,
        event_type: &'static str,
        event: &T,
    ) -> Result<EncodedEvent, EncodeError> {
        let schema = self.schema(index)?;
        let payload = schema.encode(event)?;
        if let Some(field) = schema.not_finite(&payload) {
            return Err(EncodeError::NotFinite { record: schema.full_name().into(), field });
        }
        let data = serde_json::value::to_raw_value(event)
            .map_err(|source| EncodeError::Json { event_type, source })?;
        Ok(EncodedEvent { event_type, schema, fingerprint: schema.fingerprint(), payload, data })
    }

    /// # Errors
    /// As [`Schema::decode`].
    pub fn decode<T: DeserializeOwned>(
        &self,
        index: usize,
        writer: &Schema,
        payload: &[u8],
    ) -> Result<T, DecodeError> {
        writer.decode(payload, &self.schema(index)?)
    }
}
