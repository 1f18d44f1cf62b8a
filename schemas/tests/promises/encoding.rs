//! Strict encoding, strict decoding.

use annals_schemas::{DecodeError, Schema};
use serde::{Deserialize, Serialize};

use crate::planted::record;

/// The error of encoding a value.
fn refusal<T: Serialize>(fields: &str, value: &T) -> String {
    record(fields).encode(value).expect_err("the value does not fit").to_string()
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Leg {
    from: String,
    miles: i32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct R {
    carrier: String,
    legs: Vec<Leg>,
    delay: Option<i32>,
}

const LEGS: &str = r#"{"name": "carrier", "type": "string"},
    {"name": "legs", "type": {"type": "array", "items": {"type": "record", "name": "Leg", "fields": [
        {"name": "from", "type": "string"}, {"name": "miles", "type": "int"}]}}},
    {"name": "delay", "type": ["null", "int"], "default": null}"#;

fn united() -> R {
    let legs = vec![Leg { from: "EWR".into(), miles: 1400 }];
    R { carrier: "UA".into(), legs, delay: Some(-1) }
}

#[test]
fn bytes_are_those_of_the_specification() {
    let schema = record(LEGS);
    let payload = schema.encode(&united()).expect("it fits");
    assert_eq!(payload, b"\x04UA\x02\x06EWR\xf0\x15\x00\x02\x01");
    assert_eq!(schema.decode::<R>(&payload, &schema).expect("its own bytes"), united());
}

#[test]
fn a_field_of_another_type_is_named_with_both_types() {
    #[derive(Serialize)]
    struct R {
        a: i64,
    }
    assert_eq!(
        refusal(r#"{"name": "a", "type": "int"}"#, &R { a: 1 }),
        "encode test.R: field `a`: the value gives i64, the schema says int"
    );
}

#[test]
fn a_field_deep_inside_is_named_with_its_path() {
    let fields = LEGS.replace("\"int\"}]", "\"long\"}]");
    assert_eq!(
        refusal(&fields, &united()),
        "encode test.R: field `legs.miles`: the value gives i32, the schema says long"
    );
    let fields = LEGS.replace("\"miles\"", "\"distance\"");
    assert_eq!(
        refusal(&fields, &united()),
        "encode test.R: field `legs.miles`: the value has it, and the schema does not"
    );
    let more = r#"{"name": "miles", "type": "int"}, {"name": "gate", "type": "string"}"#;
    let fields = LEGS.replace(r#"{"name": "miles", "type": "int"}"#, more);
    assert_eq!(
        refusal(&fields, &united()),
        "encode test.R: field `legs.gate`: the value lacks it, and the schema has no default"
    );
}

#[test]
fn a_field_that_the_schema_does_not_know_is_refused() {
    assert_eq!(
        refusal(r#"{"name": "carrier", "type": "string"}"#, &united()),
        "encode test.R: field `legs`: the value has it, and the schema does not"
    );
}

#[test]
fn a_missing_field_is_refused_unless_it_has_a_default() {
    let more = format!(r#"{LEGS}, {{"name": "gate", "type": "string"}}"#);
    assert_eq!(
        refusal(&more, &united()),
        "encode test.R: field `gate`: the value lacks it, and the schema has no default"
    );
    let default = format!(r#"{LEGS}, {{"name": "gate", "type": "string", "default": "A1"}}"#);
    let payload = record(&default).encode(&united()).expect("the default takes its place");
    assert!(payload.ends_with(b"\x04A1"));
}

#[test]
fn a_number_beyond_int_is_refused() {
    #[derive(Serialize)]
    struct R {
        a: u32,
    }
    assert_eq!(
        refusal(r#"{"name": "a", "type": "int"}"#, &R { a: u32::MAX }),
        "encode test.R: field `a`: the value gives u32, the schema says int"
    );
}

#[test]
fn bytes_too_long_for_a_fixed_are_refused() {
    #[derive(Serialize)]
    struct R {
        #[serde(with = "apache_avro::serde::bytes")]
        a: Vec<u8>,
    }
    let message = refusal(
        r#"{"name": "a", "type": {"type": "fixed", "name": "F", "size": 2}}"#,
        &R { a: vec![1, 2, 3] },
    );
    assert!(
        message.starts_with(
            "encode test.R: field `a`: the value gives bytes, the schema says fixed F of 2: "
        ),
        "{message}"
    );
}

fn malformed(schema: &Schema, payload: &[u8]) -> String {
    match schema.decode::<R>(payload, schema).expect_err("no datum of this schema") {
        DecodeError::Malformed { record, reason } => format!("{record}: {reason}"),
        other => panic!("another kind of error: {other}"),
    }
}

#[test]
fn a_payload_cut_off_anywhere_is_refused() {
    let schema = record(LEGS);
    let payload = schema.encode(&united()).expect("it fits");
    for length in 0..payload.len() {
        let told = malformed(&schema, &payload[..length]);
        assert!(told.contains("cut off"), "{length}: {told}");
    }
}

#[test]
fn bytes_after_the_last_field_are_refused() {
    let schema = record(LEGS);
    let mut payload = schema.encode(&united()).expect("it fits");
    payload.extend(b"xy");
    assert_eq!(malformed(&schema, &payload), "test.R: 2 bytes are left after the last field");
}

#[test]
fn a_branch_that_does_not_exist_is_refused() {
    let schema = record(LEGS);
    let told = malformed(&schema, b"\x04UA\x00\x08");
    assert!(told.contains("Union index 4 out of bounds"), "{told}");
}
