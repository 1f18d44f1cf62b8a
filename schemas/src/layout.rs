//! How the values of a category are laid out: one schema for each event type, or one for all.
//!
//! A value of a union is the branch's index, one varint, and the branch's datum. A record around
//! the union adds no byte. So the same stored datum serves every layout.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::datum::{DatumReader, put_index};
use crate::definition::{minified, refuse};
use crate::event::conflicting_definitions;
use crate::{Schema, SchemaError};

const PRIMITIVES: [&str; 8] =
    ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// The field of the union in an envelope.
const EVENT: &str = "event";

/// The layout of the values of a category.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// One subject for each event type.
    #[default]
    Record,
    /// One union of all event types, for readers that take one schema for a topic.
    Union,
    /// A record around that union, for readers that take no union at the top.
    Envelope,
}

/// The schema of a category's values, where all event types share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedSchema {
    definition: String,
    branch: usize,
}

impl Layout {
    /// Its name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Union => "union",
            Self::Envelope => "envelope",
        }
    }

    /// The layout of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Record, Self::Union, Self::Envelope].into_iter().find(|layout| layout.name() == name)
    }

    /// The shared schema of events of the last of `versions`, which are all versions of a category
    /// up to that one, in the order of their registration; none in the layout `Record`.
    ///
    /// It has the newest version of each type at that time, in the order in which the types
    /// appeared. So it never changes for an event, and a new version only adds a shared schema.
    ///
    /// # Errors
    /// [`SchemaError`] if two types define one name differently: a union has one definition of
    /// each.
    pub fn shared(
        self,
        category: &str,
        versions: &[Schema],
    ) -> Result<Option<SharedSchema>, SchemaError> {
        let Some(last) = versions.last().filter(|_| self != Self::Record) else { return Ok(None) };
        let mut types: Vec<Schema> = Vec::new();
        for version in versions {
            match types.iter_mut().find(|known| known.full_name() == version.full_name()) {
                Some(known) => *known = *version,
                None => types.push(*version),
            }
        }
        if let Some(conflict) = conflicting_definitions(&types).into_iter().next() {
            return Err(refuse(last.full_name(), conflict));
        }
        let mut inliner = Inliner::default();
        let branches: Value = types.iter().map(|schema| inliner.inline_root(schema)).collect();
        let definition = match self {
            Self::Record | Self::Union => branches,
            Self::Envelope => json!({
                "type": "record", "name": format!("annals.{category}.Envelope"),
                "fields": [{ "name": EVENT, "type": branches }],
            }),
        };
        let branch = types.iter().position(|known| known == last).unwrap_or_default();
        Ok(Some(SharedSchema { definition: definition.to_string(), branch }))
    }
}

impl SharedSchema {
    /// The definition.
    #[must_use]
    pub fn definition(&self) -> &str {
        &self.definition
    }

    /// The datum of the shared schema, of a datum of its branch.
    #[must_use]
    pub fn datum(&self, datum: &[u8]) -> Vec<u8> {
        let mut shared = Vec::with_capacity(1 + datum.len());
        put_index(&mut shared, self.branch);
        shared.extend_from_slice(datum);
        shared
    }

    /// Whether a definition, as a registry prints it, means the same.
    #[must_use]
    pub fn is_equivalent_to(&self, printed: &str) -> bool {
        let (own, other) = (wrapped(&self.definition), wrapped(printed));
        matches!((own, other), (Ok(own), Ok(other)) if own.is_equivalent_to(&other))
    }
}

/// The schemas of the event types in a definition of any layout: one of `Record`.
///
/// # Errors
/// [`SchemaError`] if it is no Avro, or a branch is no event.
pub fn event_schemas(definition: &str) -> Result<EventSchemas, SchemaError> {
    let definition = minified(definition);
    let parsed: Value = serde_json::from_str(&definition).unwrap_or_default();
    let branches = match &parsed {
        Value::Array(branches) => branches,
        _ => match in_envelope(&parsed) {
            Some(branches) => branches,
            None => return Schema::parse(&definition).map(EventSchemas::One),
        },
    };
    let definitions = definitions(&parsed);
    let parse = |branch: &Value| {
        let mut expander = Expander { definitions: &definitions, seen: BTreeSet::new() };
        Schema::parse(&expander.expand(branch).to_string())
    };
    let branches: Result<Vec<_>, _> = branches.iter().map(parse).collect();
    Ok(EventSchemas::Branches(branches?.into()))
}

/// The event types of a registered schema.
#[derive(Debug, Clone)]
pub enum EventSchemas {
    /// The schema of one type.
    One(Schema),
    /// Those of the branches of a union.
    Branches(Arc<[Schema]>),
}

impl EventSchemas {
    /// The schema and the datum of one event; none if the datum does not begin with a branch.
    #[must_use]
    pub fn event<'a>(&self, datum: &'a [u8]) -> Option<(Schema, &'a [u8])> {
        match self {
            Self::One(schema) => Some((*schema, datum)),
            Self::Branches(branches) => {
                let mut reader = DatumReader::new(datum);
                let branch = reader.index(branches.len()).ok()?;
                Some((*branches.get(branch)?, reader.rest()))
            }
        }
    }
}

/// The branches of an envelope: a record with one field, a union of records.
fn in_envelope(parsed: &Value) -> Option<&Vec<Value>> {
    let [field] = parsed["fields"].as_array()?.as_slice() else { return None };
    let is_envelope = field["name"] == EVENT
        && parsed["name"].as_str().is_some_and(|name| name.rsplit('.').next() == Some("Envelope"));
    field["type"].as_array().filter(|_| is_envelope)
}

/// A record with a field of any type, so that it can be parsed and compared.
fn wrapped(definition: &str) -> Result<Schema, SchemaError> {
    Schema::parse(&format!(
        r#"{{"type":"record","name":"annals.Shared","fields":[{{"name":"{EVENT}","type":{definition}}}]}}"#
    ))
}

/// Writes each named type out once, with its full name, and its name from then on.
#[derive(Default)]
struct Inliner {
    seen: BTreeSet<String>,
}

impl Inliner {
    fn inline_root(&mut self, schema: &Schema) -> Value {
        // A parsed definition is JSON.
        let definition: Value = serde_json::from_str(schema.definition()).unwrap_or_default();
        self.inline(&definition, "")
    }

    fn inline(&mut self, avro: &Value, namespace: &str) -> Value {
        match avro {
            Value::String(name) => qualified(name, namespace).into(),
            Value::Array(branches) => {
                branches.iter().map(|branch| self.inline(branch, namespace)).collect()
            }
            Value::Object(avro) => self.object(avro, namespace),
            Value::Null | Value::Bool(_) | Value::Number(_) => avro.clone(),
        }
    }

    fn field(&mut self, field: &Value, namespace: &str) -> Value {
        let mut copy = field.clone();
        if let Some(of) = field.get("type") {
            copy["type"] = self.inline(of, namespace);
        }
        copy
    }

    fn object(&mut self, avro: &Map<String, Value>, namespace: &str) -> Value {
        let mut copy = avro.clone();
        let mut namespace = namespace.to_owned();
        if let Some(name) = full_name(avro, &namespace) {
            if !self.seen.insert(name.clone()) {
                return name.into();
            }
            namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
            copy.remove("namespace");
            copy.insert("name".to_owned(), name.into());
        }
        for part in ["items", "values", "type"] {
            if let Some(inner) = avro.get(part).filter(|inner| !is_kind(inner)) {
                copy.insert(part.to_owned(), self.inline(inner, &namespace));
            }
        }
        if let Some(fields) = avro.get("fields").and_then(Value::as_array) {
            let field = |field: &Value| self.field(field, &namespace);
            let fields: Value = fields.iter().map(field).collect();
            copy.insert("fields".to_owned(), fields);
        }
        Value::Object(copy)
    }
}

/// The definitions of the named types in a definition, with full names.
fn definitions(parsed: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    collect(&Inliner::default().inline(parsed, ""), &mut found);
    found
}

fn collect(avro: &Value, found: &mut Map<String, Value>) {
    match avro {
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Value::Object(avro) => {
            if let Some(name) = full_name(avro, "") {
                found.insert(name, Value::Object(avro.clone()));
            }
            for part in ["items", "values", "type", "fields"] {
                avro.get(part).into_iter().for_each(|inner| collect(inner, found));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Makes one branch of a union self-contained.
struct Expander<'a> {
    definitions: &'a Map<String, Value>,
    seen: BTreeSet<String>,
}

impl Expander<'_> {
    fn expand(&mut self, avro: &Value) -> Value {
        match avro {
            Value::String(name) => match self.definitions.get(name) {
                Some(definition) if self.seen.insert(name.clone()) => self.parts(definition),
                Some(_) | None => avro.clone(),
            },
            Value::Array(branches) => branches.iter().map(|branch| self.expand(branch)).collect(),
            Value::Object(of) => match full_name(of, "") {
                Some(name) if !self.seen.insert(name.clone()) => name.into(),
                Some(_) | None => self.parts(avro),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => avro.clone(),
        }
    }

    fn parts(&mut self, avro: &Value) -> Value {
        let mut copy = avro.clone();
        for part in ["items", "values", "type"] {
            if let Some(inner) = avro.get(part).filter(|inner| !is_kind(inner)) {
                copy[part] = self.expand(inner);
            }
        }
        for (place, field) in avro["fields"].as_array().into_iter().flatten().enumerate() {
            copy["fields"][place]["type"] = self.expand(&field["type"]);
        }
        copy
    }
}

/// The full name of a definition of a named type; none of another object.
fn full_name(avro: &Map<String, Value>, namespace: &str) -> Option<String> {
    let kind = avro.get("type")?.as_str()?;
    if !["record", "error", "enum", "fixed"].contains(&kind) {
        return None;
    }
    let namespace = avro.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
    Some(qualified(avro.get("name")?.as_str()?, namespace))
}

fn qualified(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() || PRIMITIVES.contains(&name) {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

/// Whether a `type` is a kind of a compound type, not the name of one.
fn is_kind(of: &Value) -> bool {
    let kinds = ["record", "error", "enum", "fixed", "array", "map"];
    of.as_str().is_some_and(|of| kinds.contains(&of) || PRIMITIVES.contains(&of))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"type":"record","name":"Line","fields":[{"name":"n","type":"int"}]}"#;

    fn event(name: &str, fields: &str) -> Schema {
        let definition = format!(
            r#"{{"type":"record","name":"{name}","namespace":"shop","fields":[{fields}]}}"#
        );
        Schema::parse(&definition).unwrap()
    }

    fn versions() -> [Schema; 3] {
        [
            event("Placed", &format!(r#"{{"name":"line","type":{LINE}}}"#)),
            event(
                "Paid",
                &format!(r#"{{"name":"lines","type":{{"type":"array","items":{LINE}}}}}"#),
            ),
            event("Placed", &format!(r#"{{"name":"line","type":["null",{LINE}],"default":null}}"#)),
        ]
    }

    #[test]
    fn each_event_is_read_by_the_shared_schema_of_its_version() {
        let versions = versions();
        let data: [&[u8]; 3] = [b"\x02", b"\x02\x02\x00", b"\x02\x02"];
        for layout in [Layout::Union, Layout::Envelope] {
            for (count, datum) in (1..=3).zip(data) {
                let shared = layout.shared("order", &versions[..count]).unwrap().unwrap();
                let read = event_schemas(shared.definition()).unwrap();
                let value = shared.datum(datum);
                let (schema, rest) = read.event(&value).unwrap();
                assert!(schema.is_equivalent_to(&versions[count - 1]), "{layout:?} {count}");
                assert_eq!((rest, value.len()), (datum, datum.len() + 1));
                assert!(schema.decode_json(rest).is_ok());
            }
        }
        assert_eq!(Layout::Record.shared("order", &versions).unwrap(), None);
    }

    #[test]
    fn a_union_has_one_branch_a_type_and_one_definition_a_name() {
        let shared = Layout::Union.shared("order", &versions()).unwrap().unwrap();
        assert_eq!(
            shared.definition().matches("\"name\":\"shop.Line\"").count(),
            1,
            "{}",
            shared.definition()
        );
        assert_eq!(shared.datum(b"x"), b"\x00x");
        let printed = shared.definition().replace("\"shop.Line\"", "\"Line\"");
        assert!(shared.is_equivalent_to(shared.definition()));
        // Below a name with a namespace, a name without one means the same.
        assert!(shared.is_equivalent_to(&printed));
        assert!(!shared.is_equivalent_to(&printed.replace("int", "long")));
        assert!(!shared.is_equivalent_to("[]"));
    }

    #[test]
    fn two_definitions_of_one_name_are_refused() {
        let other = r#"{"type":"record","name":"Line","fields":[{"name":"n","type":"long"}]}"#;
        let [first, ..] = versions();
        let second = event("Paid", &format!(r#"{{"name":"line","type":{other}}}"#));
        let refused = Layout::Union.shared("order", &[first, second]).unwrap_err();
        assert!(refused.reason.contains("shop.Line"), "{refused}");
    }

    #[test]
    fn a_value_of_no_branch_is_no_event() {
        let shared = Layout::Union.shared("order", &versions()).unwrap().unwrap();
        let read = event_schemas(shared.definition()).unwrap();
        for value in [&b""[..], b"\x04", b"\x01"] {
            assert!(read.event(value).is_none());
        }
        assert!(event_schemas(r#"["null", "int"]"#).is_err());
    }
}
