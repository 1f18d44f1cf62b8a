//! Rewrites the library's errors in terms of fields and types.
//!
//! The library's messages print whole schemas, and lose the schema's type in nested records. Tests
//! pin the texts that are parsed here: if they change, only our messages get worse.

use apache_avro::Error;
use apache_avro::error::Details;

use crate::EncodeError;
use crate::avro_types::{Node, Shape};

const FIELD: &str = "Failed to serialize field '";
const VALUE: &str = "Failed to serialize value of type `";
const NO_DEFAULT: &str = "Missing default for skipped field '";
const UNKNOWN: &str = "Missing field in record: ";
const UNKNOWN_IN_MAP: &str = "Invalid field name ";

/// Why a value cannot be encoded, with the path of its field.
pub(crate) fn encode(root: Node, record: &str, error: Error) -> EncodeError {
    let mut path = Vec::new();
    let mut text = match error.into_details() {
        Details::SerializeRecordFieldWithSchema { field_name, error, .. } => {
            path.push(field_name);
            error
        }
        Details::MissingDefaultForSkippedField { field_name, .. } => {
            format!("{NO_DEFAULT}{field_name}'")
        }
        Details::SerializeValueWithSchema { value_type, value, .. } => {
            format!("{VALUE}{value_type}`: {value}")
        }
        other => other.to_string(),
    };
    while let Some((field, inner)) = nested(&text) {
        path.push(field.to_owned());
        text = inner.to_owned();
    }
    let reason = match missing_or_unknown(&text) {
        Some((field, reason)) => {
            path.push(field);
            reason.to_owned()
        }
        None => mismatch(find(root, &path), &text),
    };
    EncodeError::Misfit { record: record.to_owned(), field: path.join("."), reason }
}

/// Why bytes cannot be decoded into a type.
pub(crate) fn decode(error: Error) -> String {
    match error.into_details() {
        Details::DeserializeSchemaAware { value_type, value, .. } => {
            format!("the type wants {value_type}: {value}")
        }
        Details::DeserializeValue(text) => text,
        Details::ReadBytes(cause) | Details::ReadVariableIntegerBytes(cause) => {
            format!("the payload is cut off: {cause}")
        }
        other => other.to_string(),
    }
}

/// `Failed to serialize field 'x' of record R: rest`.
fn nested(text: &str) -> Option<(&str, &str)> {
    let (field, rest) = text.strip_prefix(FIELD)?.split_once("' of record ")?;
    let (_record, inner) = rest.split_once(": ")?;
    Some((field, inner))
}

fn missing_or_unknown(text: &str) -> Option<(String, &'static str)> {
    if let Some(rest) = text.strip_prefix(NO_DEFAULT) {
        let (field, _record) = rest.split_once('\'')?;
        return Some((field.into(), "the value lacks it, and the schema has no default"));
    }
    let unknown = text.strip_prefix(UNKNOWN).or_else(|| text.strip_prefix(UNKNOWN_IN_MAP))?;
    Some((unknown.trim_matches('"').into(), "the value has it, and the schema does not"))
}

/// `Failed to serialize value of type `i64`: Expected Schema::Int | ..`.
fn mismatch(node: Option<Node>, text: &str) -> String {
    let parts = text.strip_prefix(VALUE).and_then(|rest| rest.split_once("`: "));
    match (parts, node) {
        (Some((given, expected)), Some(node)) if expected.starts_with("Expected Schema") => {
            format!("the value gives {given}, the schema says {node}")
        }
        (Some((given, detail)), Some(node)) => {
            format!("the value gives {given}, the schema says {node}: {detail}")
        }
        (Some(_) | None, Some(_) | None) => text.to_owned(),
    }
}

/// The node at a path of field names, through arrays, maps and unions.
fn find(node: Node, path: &[String]) -> Option<Node> {
    let Some((name, rest)) = path.split_first() else { return Some(node) };
    match node.shape() {
        Shape::Record(fields) => {
            let (_, inner) = fields.iter().find(|(field, _)| field.name == *name)?;
            find(inner, rest)
        }
        Shape::Array(inner) | Shape::Map(inner) => find(inner, path),
        Shape::Union(branches) => branches.iter().find_map(|branch| find(branch, path)),
        Shape::Null
        | Shape::Boolean
        | Shape::Int
        | Shape::Long
        | Shape::Float
        | Shape::Double
        | Shape::Bytes
        | Shape::String
        | Shape::Fixed(_)
        | Shape::Enum(_) => None,
    }
}
