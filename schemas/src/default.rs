//! Encodes the default of a field as a datum
//! (<https://avro.apache.org/docs/1.12.0/specification/#schema-record>).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::avro_types::{Branches, Fields, Node, Shape};
use crate::datum::{put_bytes, put_index, put_long};

/// Appends the datum of a default, or explains why it is invalid.
pub(crate) fn encode(node: Node, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    put(node, value, out).ok_or_else(|| format!("the default {value} is no {node}"))
}

fn put(node: Node, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match node.shape() {
        Shape::Null => value.as_null()?,
        Shape::Boolean => out.push(value.as_bool()?.into()),
        Shape::Int => put_long(out, i32::try_from(value.as_i64()?).ok()?.into()),
        Shape::Long => put_long(out, value.as_i64()?),
        Shape::Float => {
            let real: f32 = value.as_number()?.to_string().parse().ok()?;
            out.extend(real.to_le_bytes());
        }
        Shape::Double => out.extend(value.as_f64()?.to_le_bytes()),
        Shape::Bytes => put_bytes(out, &latin(value)?),
        Shape::String => put_bytes(out, value.as_str()?.as_bytes()),
        Shape::Fixed(fixed) => out.extend(latin(value).filter(|bytes| bytes.len() == fixed.size)?),
        Shape::Enum(of) => {
            let symbol = value.as_str()?;
            put_index(out, of.symbols.iter().position(|known| known == symbol)?);
        }
        Shape::Array(items) => {
            let values = value.as_array()?;
            put_count(out, values.len());
            values.iter().try_for_each(|value| put(items, value, out))?;
        }
        Shape::Map(of) => {
            let values = value.as_object()?;
            put_count(out, values.len());
            // Sorted: features of the JSON library, which any crate can enable, decide its order.
            for (key, value) in values.iter().collect::<BTreeMap<_, _>>() {
                put_bytes(out, key.as_bytes());
                put(of, value, out)?;
            }
        }
        Shape::Union(branches) => put_branch(branches, value, out)?,
        Shape::Record(fields) => put_record(fields, value, out)?,
    }
    if let Shape::Array(_) | Shape::Map(_) = node.shape() {
        put_long(out, 0);
    }
    Some(())
}

/// Up to Avro 1.11 the default of a union belongs to its first branch; since then to any.
fn put_branch(branches: Branches, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    branches.iter().enumerate().find_map(|(index, branch)| {
        let mut datum = Vec::new();
        put(branch, value, &mut datum)?;
        put_index(out, index);
        out.append(&mut datum);
        Some(())
    })
}

/// Whether every program reads a default the same: where a union is, it must be of the first
/// branch, for Avro before 1.12 and for registries.
pub(crate) fn is_portable(node: Node, value: &Value) -> bool {
    match node.shape() {
        Shape::Union(branches) => branches.get(0).is_some_and(|first| {
            put(first, value, &mut Vec::new()).is_some() && is_portable(first, value)
        }),
        Shape::Array(items) => value
            .as_array()
            .is_some_and(|values| values.iter().all(|value| is_portable(items, value))),
        Shape::Map(of) => value
            .as_object()
            .is_some_and(|values| values.values().all(|value| is_portable(of, value))),
        Shape::Record(fields) => fields.iter().all(|(field, node)| {
            value.get(&field.name).is_none_or(|value| is_portable(node, value))
        }),
        Shape::Null
        | Shape::Boolean
        | Shape::Int
        | Shape::Long
        | Shape::Float
        | Shape::Double
        | Shape::Bytes
        | Shape::String
        | Shape::Fixed(_)
        | Shape::Enum(_) => true,
    }
}

fn put_record(fields: Fields, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    let values = value.as_object()?;
    fields.iter().try_for_each(|(field, node)| {
        let value = values.get(&field.name).or(field.default.as_ref())?;
        put(node, value, out)
    })
}

/// The block of an array or map; an empty one has no block.
fn put_count(out: &mut Vec<u8>, count: usize) {
    if count > 0 {
        put_index(out, count);
    }
}

/// In a default, the characters U+0000 to U+00FF denote the bytes 0 to 255.
fn latin(value: &Value) -> Option<Vec<u8>> {
    value.as_str()?.chars().map(|character| u8::try_from(character).ok()).collect()
}
