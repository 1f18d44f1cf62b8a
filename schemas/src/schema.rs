//! One event type's schema, parsed once and kept for the life of the process.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::ResolvedSchema;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::{Serialize, de::DeserializeOwned};

use crate::avro_types::{Names, Node};
use crate::definition::{self, refuse};
use crate::explain;
use crate::lint;
use crate::personal::Marks;
use crate::reals;
use crate::resolution::{Resolution, ResolutionError};
use crate::semantic_form::SemanticForm;
use crate::{DecodeError, EncodeError, Fingerprint, Incompatibility, Incompatible, SchemaError};

/// Events are small: most payloads fit without growing this.
const PAYLOAD_BYTES_FIRST: usize = 128;

/// The schema of one event type: an Avro record.
///
/// Cheap to copy. [`parse`](Self::parse) parses, resolves and leaks each definition once a process:
/// schemas are few and live as long as the process, and encoders and decoders borrow from them. So
/// do not parse unlimited definitions from an untrusted source.
///
/// ```
/// use annals_schemas::{Schema, can_read};
///
/// let first = Schema::parse(
///     r#"{"type": "record", "name": "OrderPaid", "fields": [{"name": "cents", "type": "int"}]}"#,
/// )?;
/// assert_eq!(first.decode_json(&[0x02])?, serde_json::json!({"cents": 1}));
///
/// let second = Schema::parse(
///     r#"{"type": "record", "name": "OrderPaid", "fields": [
///         {"name": "cents", "type": "long"},
///         {"name": "coupon", "type": ["null", "string"], "default": null}
///     ]}"#,
/// )?;
/// assert!(can_read(&second, &first).is_ok());
/// assert!(can_read(&first, &second).is_err(), "no int has each long");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Schema(&'static Parsed);

struct Parsed {
    definition: String,
    full_name: String,
    fingerprint: Fingerprint,
    root: Node,
    has_reals: bool,
    marks: Marks,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    /// By the reader's fingerprint; `None` for an equivalent schema, which needs no rewriting.
    resolutions: RwLock<HashMap<Fingerprint, Arc<Option<Resolution>>>>,
}

/// The outcome of every parse, errors included, by minified definition.
static PARSED: LazyLock<RwLock<HashMap<String, Result<Schema, SchemaError>>>> =
    LazyLock::new(RwLock::default);

impl Schema {
    /// Parses the definition of an event type: one self-contained Avro record, named types inside
    /// it included.
    ///
    /// # Errors
    /// [`SchemaError`] if it is not valid Avro, not a record, refers to itself, has a name that is
    /// no legal registry subject, or an array whose items take no bytes.
    pub fn parse(definition: &str) -> Result<Self, SchemaError> {
        let definition = definition::minified(definition);
        let known = PARSED.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = known.get(&definition) {
            return outcome.clone();
        }
        drop(known);
        let mut known = PARSED.write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the same text is leaked once.
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

    /// The short name of the schema that is stored with each event.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// Encodes a value as a bare Avro datum, without any prefix.
    ///
    /// A type that passed [`check_fit`](crate::check_fit) does not fail here.
    ///
    /// # Errors
    /// [`EncodeError::Misfit`] if the value has a field that the schema does not have, lacks one
    /// without a default, or has one of another type.
    pub fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, EncodeError> {
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES_FIRST);
        match self.0.writer.write_ser(&mut payload, value) {
            Ok(_) => Ok(payload),
            Err(error) => Err(explain::encode(self.root(), self.full_name(), error)),
        }
    }

    /// Decodes a payload that this schema wrote, by the schema `reader` of `T`.
    ///
    /// If both schemas are equivalent, it decodes the bytes directly into `T`. Otherwise it first
    /// rewrites the bytes by Avro's resolution rules, which are resolved once a pair of schemas.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] for bytes that this schema did not write, trailing ones included;
    /// [`DecodeError::Incompatible`] if `reader` cannot represent their values.
    pub fn decode<T: DeserializeOwned>(
        &self,
        payload: &[u8],
        reader: &Self,
    ) -> Result<T, DecodeError> {
        if self.fingerprint() == reader.fingerprint() {
            return self.read(payload);
        }
        let resolution = self.resolution(*reader);
        let Some(resolution) = &*resolution else { return self.read(payload) };
        let rewritten = resolution.rewrite(payload).map_err(|error| match error {
            ResolutionError::Malformed(error) => self.malformed(error),
            ResolutionError::Unresolvable(reason) => reader.incompatible(self, vec![reason]).into(),
        })?;
        reader.read(&rewritten)
    }

    /// Decodes a payload that this schema wrote into JSON.
    ///
    /// Dates and times become RFC 3339 text, UUIDs, decimals and durations text, bytes arrays of
    /// numbers. NaN and the infinities, which events cannot have, become `"NaN"`, `"Infinity"` and
    /// `"-Infinity"`.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] for bytes that this schema did not write.
    pub fn decode_json(&self, payload: &[u8]) -> Result<serde_json::Value, DecodeError> {
        crate::json::decode(self.root(), payload).map_err(|error| self.malformed(error))
    }

    /// Whether another schema is equivalent: both read and write the same bytes under the same
    /// names.
    ///
    /// These may differ: white space, the order of attributes, the split of names into name and
    /// namespace, the notation of numbers, attributes at their defaults, docs, and attributes that
    /// Avro does not define. These may not: names, types, the order of fields, defaults, logical
    /// types with precision and scale, aliases, symbols and their order.
    #[must_use]
    pub fn is_equivalent_to(&self, other: &Self) -> bool {
        self == other || self.semantic_form() == other.semantic_form()
    }

    /// Definitions in this schema that other programs refuse or misread, although it is legal here:
    /// logical types without effect, defaults that are not of the first branch of a union, decimals
    /// that do not fit their fixed. Empty if nothing.
    #[must_use]
    pub fn refused_elsewhere(&self) -> Vec<String> {
        let logical = lint::ineffective_logical_types(self.definition());
        logical.into_iter().chain(lint::unportable_defaults(self.root())).collect()
    }

    /// Whether any field is marked as personal ([`personal`](crate::personal)).
    #[must_use]
    pub fn has_personal_fields(&self) -> bool {
        self.0.marks.any
    }

    /// The fields that are marked as personal, and whose type is not bytes.
    #[must_use]
    pub fn misplaced_personal_fields(&self) -> &'static [String] {
        &self.0.marks.misplaced
    }

    pub(crate) fn semantic_form(&self) -> SemanticForm {
        SemanticForm::of(self.definition(), self.root())
    }

    pub(crate) fn root(&self) -> Node {
        self.0.root
    }

    /// The path of the first number in a payload that JSON cannot express.
    pub(crate) fn not_finite(&self, payload: &[u8]) -> Option<String> {
        self.0.has_reals.then(|| reals::not_finite(self.root(), payload)).flatten()
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

    fn resolution(&self, reader: Self) -> Arc<Option<Resolution>> {
        let known = self.0.resolutions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolution) = known.get(&reader.fingerprint()) {
            return Arc::clone(resolution);
        }
        drop(known);
        let differs = !self.is_equivalent_to(&reader);
        let resolution = differs.then(|| Resolution::of(self.root(), reader.root()));
        let mut known = self.0.resolutions.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(reader.fingerprint()).or_insert(Arc::new(resolution)))
    }

    fn incompatible(&self, writer: &Self, reasons: Vec<Incompatibility>) -> Incompatible {
        Incompatible { reader: self.to_string(), writer: writer.to_string(), reasons }
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
            has_reals: reals::has_reals(root),
            marks: Marks::of(root),
            writer,
            reader,
            resolutions: RwLock::default(),
        })
    }
}

/// Whether `reader` can read every value that `writer` can write: backward compatibility, if
/// `reader` is the newer one.
///
/// # Errors
/// [`Incompatible`] with every reason. A value that only some events have (a new enum symbol, a new
/// branch of a union) counts.
pub fn can_read(reader: &Schema, writer: &Schema) -> Result<(), Incompatible> {
    let resolution = writer.resolution(*reader);
    match (*resolution).as_ref().map(Resolution::reasons) {
        None | Some([]) => Ok(()),
        Some(reasons) => Err(reader.incompatible(writer, reasons.to_vec())),
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Schema {}

impl Hash for Schema {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint().hash(state);
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equivalent_schema_is_read_without_a_change_and_compared_once() {
        let parse = |text| Schema::parse(text).unwrap();
        let writer = parse(
            r#"{"type": "record", "name": "shop.Paid", "fields": [{"name": "cents", "type": "long"}]}"#,
        );
        let printed = parse(
            r#"{"name": "Paid", "namespace": "shop", "type": "record", "fields": [
                {"type": {"type": "long"}, "name": "cents", "doc": "How much."}]}"#,
        );
        let wider = parse(
            r#"{"type": "record", "name": "shop.Paid", "fields": [{"name": "cents", "type": "double"}]}"#,
        );
        let resolution = writer.resolution(printed);
        assert!(resolution.is_none());
        assert!(Arc::ptr_eq(&resolution, &writer.resolution(printed)));
        assert!(writer.resolution(wider).is_some());
    }
}
