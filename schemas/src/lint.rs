//! Finds mistakes that are legal in Avro's Rust library.
//!
//! Defaults of a later branch of a union: Java and registries refuse them. Avro ignores logical
//! types that are unknown, incomplete, or annotate another type: a timestamp becomes a plain number
//! for every reader, without an error.

use serde_json::{Map, Value};

use crate::avro_types::{Node, Shape};
use crate::{decimal, default};

/// Every default whose value is not of the first branch of a union.
pub(crate) fn unportable_defaults(root: Node) -> Vec<String> {
    let mut found = Vec::new();
    search_defaults(root, "", &mut found);
    found
}

fn search_defaults(node: Node, path: &str, found: &mut Vec<String>) {
    match node.shape() {
        Shape::Record(fields) => {
            for (field, node) in fields.iter() {
                let point = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{point}{}", field.name);
                if let Some(value) = &field.default
                    && !default::is_portable(node, value)
                {
                    found.push(format!(
                        "field `{path}`: the default {value} is not of the first branch of its \
                         union; Java and registries refuse it: put its branch first"
                    ));
                }
                search_defaults(node, &path, found);
            }
        }
        Shape::Array(inner) | Shape::Map(inner) => search_defaults(inner, path, found),
        Shape::Union(branches) => {
            branches.iter().for_each(|branch| search_defaults(branch, path, found));
        }
        Shape::Null
        | Shape::Boolean
        | Shape::Int
        | Shape::Long
        | Shape::Float
        | Shape::Double
        | Shape::Bytes
        | Shape::String
        | Shape::Fixed(_)
        | Shape::Enum(_) => {}
    }
}

/// Every logical type in a definition that has no effect.
pub(crate) fn ineffective_logical_types(definition: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(definition) = serde_json::from_str(definition) {
        search(&definition, &mut found);
    }
    found
}

fn search(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            found.extend(ignored(object));
            // Defaults, examples and docs contain no schemas.
            let schemas = ["type", "fields", "items", "values"];
            let inner = schemas.iter().filter_map(|name| object.get(*name));
            inner.for_each(|inner| search(inner, found));
        }
        Value::Array(values) => values.iter().for_each(|value| search(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn ignored(object: &Map<String, Value>) -> Option<String> {
    let logical = object.get("logicalType")?;
    // Of named types only a fixed can have a logical type; other named objects are fields.
    if let Some(name) = object.get("name")
        && object.get("size").is_none()
    {
        return Some(format!(
            "field {name}: logicalType beside the type has no effect; \
             say \"type\": {{\"type\": .., \"logicalType\": ..}}"
        ));
    }
    let base = object.get("type")?.as_str()?;
    let size = object.get("size").and_then(Value::as_u64);
    let effective = match (logical.as_str()?, base) {
        ("date" | "time-millis", "int") | ("uuid", "string") | ("big-decimal", "bytes") => true,
        (
            "time-micros"
            | "timestamp-millis"
            | "timestamp-micros"
            | "timestamp-nanos"
            | "local-timestamp-millis"
            | "local-timestamp-micros"
            | "local-timestamp-nanos",
            "long",
        ) => true,
        ("uuid", "fixed") => size == Some(16),
        ("duration", "fixed") => size == Some(12),
        ("decimal", "bytes" | "fixed") => decimal_is_complete(object),
        (_, _) => false,
    };
    if let ("decimal", "fixed", Some(size)) = (logical.as_str()?, base, size)
        && effective
        && let Some(precision) = object.get("precision").and_then(Value::as_u64)
        && let Ok(size) = usize::try_from(size)
        && usize::try_from(precision).is_ok_and(|digits| decimal::digits_of(size) < digits)
    {
        let digits = decimal::digits_of(size);
        return Some(format!(
            "a decimal of {precision} digits does not fit a fixed of {size} bytes, which has \
             {digits}"
        ));
    }
    (!effective).then(|| format!("logicalType {logical} has no effect on this {base}"))
}

fn decimal_is_complete(object: &Map<String, Value>) -> bool {
    let precision = object.get("precision").and_then(Value::as_u64).unwrap_or_default();
    let scale = object.get("scale").map_or(Some(0), Value::as_u64);
    precision > 0 && scale.is_some_and(|scale| scale <= precision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(fields: &str) -> Vec<String> {
        ineffective_logical_types(&format!(
            r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#
        ))
    }

    #[test]
    fn logical_types_without_effect_are_found_wherever_they_are() {
        let fields = r#"
            {"name": "a", "type": {"type": "long", "logicalType": "timestamp-milis"}},
            {"name": "b", "type": ["null", {"type": "array", "items":
                {"type": "int", "logicalType": "timestamp-millis"}}]},
            {"name": "c", "type": {"type": "map", "values":
                {"type": "bytes", "logicalType": "decimal", "scale": 2}}},
            {"name": "d", "type": {"type": "fixed", "name": "F", "size": 8, "logicalType": "uuid"}}"#;
        assert_eq!(
            found(fields),
            [
                r#"logicalType "timestamp-milis" has no effect on this long"#,
                r#"logicalType "timestamp-millis" has no effect on this int"#,
                r#"logicalType "decimal" has no effect on this bytes"#,
                r#"logicalType "uuid" has no effect on this fixed"#,
            ]
        );
    }

    #[test]
    fn a_logical_type_beside_the_type_is_found_once() {
        let fields = r#"{"name": "a", "type": "long", "logicalType": "timestamp-millis"}"#;
        let told = found(fields);
        assert_eq!(told.len(), 1);
        assert!(
            told.iter().all(|told| told.starts_with("field \"a\": logicalType beside the type"))
        );
    }

    #[test]
    fn effective_logical_types_and_defaults_are_left_alone() {
        let fields = r#"
            {"name": "a", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "b", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "c", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "d", "type": {"type": "map", "values": "string"},
                "default": {"type": "long", "logicalType": "x"}}"#;
        assert_eq!(found(fields), [""; 0]);
    }
}
