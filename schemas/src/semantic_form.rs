//! The semantic form of a definition: equal for definitions that differ in notation only.
//!
//! A schema registry may print a definition anew: Confluent's splits or shortens names, and omits
//! attributes at their defaults. Two definitions are equivalent if they read and write the same
//! bytes under the same names.
//!
//! Full names and defaults (as bytes) come from the parsed schema. The sort order, and logical
//! types that Avro's Rust library does not know, are in the text only.

use std::collections::BTreeMap;

use apache_avro::schema::{Alias, EnumSchema, FixedSchema, Name, RecordField};
use serde_json::{Value, json};

use crate::avro_types::{Fields, Logical, Node, Shape};
use crate::default;

/// A definition in a form that can be compared.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SemanticForm {
    root: Value,
    /// The named types, by full name. Uses contain the name only: it does not matter which use has
    /// the definition.
    named: BTreeMap<String, Value>,
}

impl SemanticForm {
    pub(crate) fn of(definition: &str, root: Node) -> Self {
        // A parsed definition is JSON.
        let text = serde_json::from_str(definition).unwrap_or_default();
        let mut form = Self::default();
        form.root = form.place(&text, root);
        form
    }

    /// The definitions of the named types, by full name.
    pub(crate) fn named(self) -> BTreeMap<String, Value> {
        self.named
    }

    /// One type of the schema: its text, and its node.
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

/// Adds the logical type of a type. Unknown logical types are compared by name: other programs may
/// know them.
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

/// Without duplicates, in their order: the first matching alias counts.
fn once_each(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

/// The datum of a default: `1`, `1.0` and `1e0` are one number.
fn datum(node: Node, value: &Value) -> Vec<u8> {
    let mut datum = Vec::new();
    // The parser has checked every default.
    match default::encode(node, value, &mut datum) {
        Ok(()) => datum,
        Err(_) => value.to_string().into_bytes(),
    }
}
