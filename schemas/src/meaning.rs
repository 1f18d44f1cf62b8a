//! What a definition means, without how it is written.
//!
//! A schema registry need not keep a definition as it was given: Confluent's parses it and prints it anew, and then
//! names are split or shortened, and what goes without saying is left out. Two definitions mean the same if they
//! read and write the same bytes under the same names.
//!
//! Where the text is only one way to say it the parsed schema is asked: full names, defaults as bytes. Logical types
//! that Avro's Rust library does not know, and the order of sorting, stand in the text alone.

use std::collections::BTreeMap;

use apache_avro::schema::{Alias, EnumSchema, FixedSchema, Name, RecordField};
use serde_json::{Value, json};

use crate::default;
use crate::node::{Fields, Logical, Node, Shape};

/// What one definition means, in a form that can be compared.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Meaning {
    root: Value,
    /// The named types, by full name. Where they are used stands the name alone: which of the places has the
    /// definition does not matter.
    named: BTreeMap<String, Value>,
}

impl Meaning {
    pub(crate) fn of(definition: &str, root: Node) -> Self {
        // What was parsed as a schema is JSON.
        let text = serde_json::from_str(definition).unwrap_or_default();
        let mut meaning = Self::default();
        meaning.root = meaning.place(&text, root);
        meaning
    }

    /// One place of a schema: its text, and what was parsed of it.
    fn place(&mut self, text: &Value, node: Node) -> Value {
        let inner = &text["type"];
        let of = if inner.is_object() || inner.is_array() {
            self.place(inner, node)
        } else {
            match node.shape() {
                Shape::Record(fields) => return self.record(text, fields),
                Shape::Enum(symbols) => return self.symbols(text, symbols),
                Shape::Fixed(fixed) => return self.fixed(text, fixed, node),
                Shape::Array(items) => json!({ "array": self.place(&text["items"], items) }),
                Shape::Map(values) => json!({ "map": self.place(&text["values"], values) }),
                Shape::Union(branches) => {
                    let branches = branches.iter().enumerate();
                    branches.map(|(index, branch)| self.place(&text[index], branch)).collect()
                }
                shape @ (Shape::Null
                | Shape::Boolean
                | Shape::Int
                | Shape::Long
                | Shape::Float
                | Shape::Double
                | Shape::Bytes
                | Shape::String) => shape.to_string().into(),
            }
        };
        with_logical(of, text, node)
    }

    fn record(&mut self, text: &Value, record: Fields) -> Value {
        if let Some(texts) = text["fields"].as_array() {
            let fields = texts.iter().zip(record.iter());
            let fields: Value =
                fields.map(|(text, (field, node))| self.field(text, field, node)).collect();
            let aliases = full_names(record.record.aliases.as_deref());
            let logical = &text["logicalType"];
            let of = json!({ "fields": fields, "aliases": aliases, "logical": logical });
            self.named.insert(record.record.name.fullname(None), of);
        }
        name(&record.record.name)
    }

    fn field(&mut self, text: &Value, field: &RecordField, node: Node) -> Value {
        let order = text["order"].as_str().map(str::to_ascii_lowercase);
        let default = field.default.as_ref().map(|value| datum(node, value));
        json!({
            "name": field.name,
            "aliases": once_each(field.aliases.iter().cloned()),
            "order": order.filter(|order| order != "ascending"),
            "type": self.place(&text["type"], node),
            "default": default,
        })
    }

    fn symbols(&mut self, text: &Value, of: &EnumSchema) -> Value {
        if text["symbols"].is_array() {
            let (symbols, default) = (&of.symbols, &of.default);
            let (aliases, logical) = (full_names(of.aliases.as_deref()), &text["logicalType"]);
            let of_name = of.name.fullname(None);
            let of = json!({ "symbols": symbols, "default": default, "aliases": aliases, "logical": logical });
            self.named.insert(of_name, of);
        }
        name(&of.name)
    }

    fn fixed(&mut self, text: &Value, fixed: &FixedSchema, node: Node) -> Value {
        if text["size"].is_number() {
            let of = json!({ "size": fixed.size, "aliases": full_names(fixed.aliases.as_deref()) });
            self.named.insert(fixed.name.fullname(None), with_logical(of, text, node));
        }
        name(&fixed.name)
    }
}

/// Adds the logical type that stands beside a type. Of those that Avro does not know the name is compared: they mean
/// something to somebody.
fn with_logical(of: Value, text: &Value, node: Node) -> Value {
    match (&text["logicalType"], node.logical()) {
        (Value::Null, _) => of,
        (name, Some(Logical::Decimal { precision, scale })) => {
            json!({ "of": of, "logical": [name, precision, scale] })
        }
        (name, _) => json!({ "of": of, "logical": [name] }),
    }
}

fn name(name: &Name) -> Value {
    json!({ "name": name.fullname(None) })
}

fn full_names(aliases: Option<&[Alias]>) -> Vec<String> {
    once_each(aliases.unwrap_or_default().iter().map(|alias| alias.fullname(None)))
}

/// In their order: the first alias under which something was written counts.
fn once_each(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

/// What a default stands for, as bytes: `1`, `1.0` and `1e0` are one number.
fn datum(node: Node, value: &Value) -> Vec<u8> {
    let mut datum = Vec::new();
    // Every default of a parsed schema is one.
    match default::encode(node, value, &mut datum) {
        Ok(()) => datum,
        Err(_) => value.to_string().into_bytes(),
    }
}
