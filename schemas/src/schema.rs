//! One event type's schema, parsed once and kept for the life of the process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::ResolvedSchema;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::{Serialize, de::DeserializeOwned};

use crate::convert::Conversion;
use crate::definition::{self, refuse};
use crate::explain;
use crate::meaning::Meaning;
use crate::node::{Names, Node};
use crate::{DecodeError, EncodeError, Fingerprint, Incompatible, SchemaError};

/// Events are small: most payloads fit without growing this.
const PAYLOAD_BYTES_FIRST: usize = 128;

/// The schema of one event type: an Avro record.
///
/// Cheap to copy. A definition is parsed, resolved and leaked once a process, however often it is
/// given to [`parse`](Self::parse): schemas are few and needed as long as the process lives, and
/// what encodes and decodes borrows from them. So do not parse definitions that strangers can
/// invent without limit.
#[derive(Clone, Copy)]
pub struct Schema(&'static Parsed);

struct Parsed {
    definition: String,
    full_name: String,
    fingerprint: Fingerprint,
    root: Node,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    /// How what this schema wrote becomes what another one reads, by the reader's fingerprint.
    conversions: RwLock<HashMap<Fingerprint, Arc<Conversion>>>,
}

/// Everything that was ever parsed, what was refused included, by minified definition.
static PARSED: LazyLock<RwLock<HashMap<String, Result<Schema, SchemaError>>>> =
    LazyLock::new(RwLock::default);

impl Schema {
    /// Parses the definition of an event type: one self-contained Avro record, named types inside
    /// it included.
    ///
    /// # Errors
    /// [`SchemaError`] if it is not legal Avro, not a record, refers to itself, has a name no
    /// registry subject can hold, or an array whose items take no bytes.
    pub fn parse(definition: &str) -> Result<Self, SchemaError> {
        let definition = definition::minified(definition);
        let known = PARSED.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = known.get(&definition) {
            return outcome.clone();
        }
        drop(known);
        let mut known = PARSED.write().unwrap_or_else(PoisonError::into_inner);
        // Parsed under the lock: the same text twice would be leaked twice.
        let parse = || Parsed::new(&definition).map(|parsed| Self(Box::leak(Box::new(parsed))));
        known.entry(definition.clone()).or_insert_with(parse).clone()
    }

    /// The definition as it was given, without the white space between its tokens.
    ///
    /// Every attribute stays, in its order. (Avro's parsing canonical form drops docs, defaults and
    /// logical types: two different contracts would share a fingerprint.) Keep it as text: a
    /// `jsonb` column would reorder it.
    #[must_use]
    pub fn definition(&self) -> &'static str {
        &self.0.definition
    }

    /// The record's name with its namespace: `airline.FlightDeparted`.
    #[must_use]
    pub fn full_name(&self) -> &'static str {
        &self.0.full_name
    }

    /// The record's name without its namespace: `FlightDeparted`. It is the event type.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let full_name = self.full_name();
        full_name.rsplit_once('.').map_or(full_name, |(_, name)| name)
    }

    /// What an event stores to say which schema wrote it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// Encodes a value as a bare Avro datum, without any prefix.
    ///
    /// A type that passed [`check_fit`](crate::check_fit) does not fail here.
    ///
    /// # Errors
    /// [`EncodeError::Misfit`] if the value has a field that the schema does not know, lacks one
    /// that has no default, or has one of another type.
    pub fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, EncodeError> {
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES_FIRST);
        match self.0.writer.write_ser(&mut payload, value) {
            Ok(_) => Ok(payload),
            Err(error) => Err(explain::encode(*self, error)),
        }
    }

    /// Decodes a payload that this schema wrote, as `reader` sees it.
    ///
    /// With the same schema on both sides, however it is written, it goes straight from the bytes into `T`; otherwise
    /// the bytes are first rewritten by Avro's resolution rules, planned once a pair of schemas.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] for bytes that this schema did not write, trailing ones included;
    /// [`DecodeError::Incompatible`] if `reader` cannot hold what they say.
    pub fn decode<T: DeserializeOwned>(
        &self,
        payload: &[u8],
        reader: &Self,
    ) -> Result<T, DecodeError> {
        if self.fingerprint() == reader.fingerprint() {
            return self.read(payload);
        }
        let conversion = self.conversion(*reader);
        if conversion.is_identity() {
            return self.read(payload);
        }
        let converted = conversion.run(payload)?;
        reader.read(&converted)
    }

    /// Decodes a payload that this schema wrote, for people and for programs without a type for it.
    ///
    /// Timestamps and dates become RFC 3339 text, UUIDs and decimals text, bytes arrays of numbers.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] for bytes that this schema did not write.
    pub fn decode_json(&self, payload: &[u8]) -> Result<serde_json::Value, DecodeError> {
        crate::json::decode(self.root(), payload).map_err(|fault| self.malformed(fault))
    }

    /// Whether another schema means the same: it reads and writes the same bytes under the same names, however it
    /// is written.
    ///
    /// What may differ: white space, the order of attributes, how names are split into name and namespace or
    /// shortened, how numbers are written, attributes at their defaults, docs, and attributes that Avro does not know.
    /// What may not: names, types, the order of fields, defaults, logical types with precision and scale, aliases,
    /// symbols and their order.
    #[must_use]
    pub fn means_the_same_as(&self, other: &Self) -> bool {
        self == other || self.meaning() == other.meaning()
    }

    fn meaning(&self) -> Meaning {
        Meaning::of(self.definition(), self.root())
    }

    pub(crate) fn root(&self) -> Node {
        self.0.root
    }

    fn read<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, DecodeError> {
        let mut rest = payload;
        let value = self.0.reader.read_deser(&mut rest);
        let value = value.map_err(|error| self.malformed(explain::decode(error)))?;
        match rest.len() {
            0 => Ok(value),
            extra => Err(self.malformed(format!("{extra} bytes are left after the last field"))),
        }
    }

    fn conversion(&self, reader: Self) -> Arc<Conversion> {
        let known = self.0.conversions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(conversion) = known.get(&reader.fingerprint()) {
            return Arc::clone(conversion);
        }
        drop(known);
        let planned = Arc::new(Conversion::plan(*self, reader));
        let mut known = self.0.conversions.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(reader.fingerprint()).or_insert(planned))
    }

    pub(crate) fn malformed(&self, reason: impl fmt::Display) -> DecodeError {
        DecodeError::Malformed { record: self.full_name().into(), reason: reason.to_string() }
    }
}

impl Parsed {
    fn new(definition: &str) -> Result<Self, SchemaError> {
        let avro = definition::parse(definition)?;
        let full_name = definition::full_name(&avro)?;
        let avro: &'static apache_avro::Schema = Box::leak(Box::new(avro));
        let resolve = || {
            let resolved = ResolvedSchema::new(avro)?;
            let writer = GenericDatumWriter::builder(avro)
                .resolved_schemata(resolved.clone())
                .human_readable(false)
                .build()?;
            let reader = GenericDatumReader::builder(avro)
                .resolved_writer_schemata(resolved.clone())
                .human_readable(false)
                .build()?;
            Ok((resolved, writer, reader))
        };
        let (resolved, writer, reader) =
            resolve().map_err(|error: apache_avro::Error| refuse(&full_name, error.to_string()))?;
        let names: &'static Names = Box::leak(Box::new(resolved.get_names().clone()));
        let root = Node::new(avro, names);
        definition::check(root, &full_name)?;
        Ok(Self {
            definition: definition.to_owned(),
            full_name,
            fingerprint: Fingerprint::of(definition),
            root,
            writer,
            reader,
            conversions: RwLock::default(),
        })
    }
}

/// Whether what `writer` wrote can be read with `reader`, whatever it was: backward compatibility,
/// if `reader` is the newer one.
///
/// # Errors
/// [`Incompatible`] with every reason. A value that only some events have (a new enum symbol, a new
/// branch of a union) counts.
pub fn can_read(reader: &Schema, writer: &Schema) -> Result<(), Incompatible> {
    writer.conversion(*reader).complete()
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Schema {}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({self})")
    }
}

/// Full name and fingerprint.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.full_name(), self.fingerprint())
    }
}
