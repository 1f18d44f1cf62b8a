//! Planted misfits between the fields of structs and of records.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::planted::misfits;

planted! {
    a_field_that_the_schema_lacks: r#"{"name": "a", "type": "int"}"#
    { a: i32, b: i32 }
    "`b`: the type wants field b, the schema has no such field"
}

planted! {
    several_fields_that_the_schema_lacks: r#"{"name": "a", "type": "int"}"#
    { a: i32, b: i32, c: String, d: Option<i32> }
    "`b`: the type wants field b, the schema has no such field",
    "`c`: the type wants field c, the schema has no such field",
}

planted! {
    a_skippable_field_that_the_schema_lacks: r#"{"name": "a", "type": "int"}"#
    { a: i32, #[serde(skip_serializing_if = "Option::is_none")] b: Option<i32> }
    "`b`: the type writes field b, the schema has no such field"
}

planted! {
    a_field_that_the_type_lacks: r#"{"name": "a", "type": "int"}, {"name": "b", "type": "long"}"#
    { a: i32 }
    "`b`: the type has no such field, the schema says long"
}

planted! {
    a_field_with_a_default_that_the_type_lacks:
    r#"{"name": "a", "type": "int"}, {"name": "b", "type": "long", "default": 0}"#
    { a: i32 }
    "`b`: the type has no such field, the schema says long"
}

planted! {
    a_field_that_is_not_read: r#"{"name": "a", "type": "int"}"#
    { #[serde(skip_deserializing)] a: i32 }
    "`a`: the type has no such field, the schema says int"
}

#[test]
fn a_field_that_is_not_written() {
    #[derive(Serialize, Deserialize)]
    struct R {
        #[serde(skip_serializing)]
        #[expect(dead_code, reason = "that is what is wrong with it")]
        a: i32,
    }
    assert_eq!(
        misfits::<R>(r#"{"name": "a", "type": "int", "default": 0}"#),
        [
            "`a`: the type gives back 0, it was given -1, -2147483648, 0; it must write the value that it has read"
        ]
    );
}

planted! {
    a_field_that_is_written_under_another_name: r#"{"name": "a", "type": "int"}"#
    { #[serde(rename(serialize = "b"))] a: i32 }
    "`b`: the type writes field b, the schema has no such field",
}

planted! {
    a_field_that_is_read_under_an_alias: r#"{"name": "old", "type": "int"}"#
    { #[serde(alias = "old")] new: i32 }
    "`new`: the type writes field new, the schema has no such field",
}

planted! {
    a_field_named_by_an_alias_of_the_schema:
    r#"{"name": "new", "aliases": ["old"], "type": "int"}"#
    { old: i32 }
    "`new`: the type has no such field, the schema says int",
    "`old`: the type wants field old, the schema has no such field",
}

planted! {
    a_field_left_out_at_times_without_a_default:
    r#"{"name": "a", "type": ["null", "int"]}, {"name": "b", "type": {"type": "array", "items": "int"}}"#
    {
        #[serde(default, skip_serializing_if = "Option::is_none")] a: Option<i32>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")] b: Vec<i32>,
    }
    "`a`: the type leaves it out at times, the schema has no default for it; do not skip it",
    "`b`: the type leaves it out at times, the schema has no default for it; do not skip it",
}

planted! {
    a_default_that_says_something_else:
    r#"{"name": "a", "type": "int", "default": 7}"#
    { #[serde(default, skip_serializing_if = "is_zero")] a: i32 }
    "`a`: the type gives back -1, -2147483648, 1, it was given -1, -2147483648, 0; it must write the value that it has read"
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
struct Leg {
    from: String,
    miles: i32,
}

const LEG: &str = r#"{"type": "record", "name": "Leg", "fields": [
    {"name": "from", "type": "string"}, {"name": "miles", "type": "long"}]}"#;

planted! {
    a_field_of_a_record_in_a_record:
    r#"{"name": "leg", "type": {"type": "record", "name": "Leg", "fields": [
        {"name": "from", "type": "string"}, {"name": "miles", "type": "long"}]}}"#
    { leg: Leg }
    "`leg.miles`: the type wants i32, the schema says long; use i64, or say int"
}

#[test]
fn fields_of_records_in_arrays_maps_and_options() {
    #[derive(Serialize, Deserialize)]
    struct R {
        first: Option<Leg>,
        all: Vec<Leg>,
        by_day: HashMap<String, Vec<Leg>>,
    }
    let fields = format!(
        r#"{{"name": "first", "type": ["null", {LEG}]}},
           {{"name": "all", "type": {{"type": "array", "items": "Leg"}}}},
           {{"name": "by_day", "type": {{"type": "map", "values":
               {{"type": "array", "items": "Leg"}}}}}}"#
    );
    assert_eq!(
        misfits::<R>(&fields),
        [
            "`all[].miles`: the type wants i32, the schema says long; use i64, or say int",
            "`first.miles`: the type wants i32, the schema says long; use i64, or say int",
            "`by_day{}[].miles`: the type wants i32, the schema says long; use i64, or say int",
        ]
    );
}

planted! {
    a_record_of_another_name:
    r#"{"name": "leg", "type": {"type": "record", "name": "Hop", "fields": [
        {"name": "from", "type": "string"}, {"name": "miles", "type": "int"}]}}"#
    { leg: Leg }
    "`leg`: the type wants struct Leg, the schema says record Hop; name both the same, or put #[serde(rename = \"Hop\")] on Leg"
}

#[test]
fn an_event_of_another_name() {
    #[derive(Serialize, Deserialize)]
    struct Other {
        a: i64,
    }
    assert_eq!(
        misfits::<Other>(r#"{"name": "a", "type": "int"}"#),
        [
            "`R`: the type wants struct Other, the schema says record R; name both the same, or put #[serde(rename = \"R\")] on Other",
            "`a`: the type wants i64, the schema says int; use i32, or say long",
        ]
    );
}

planted! {
    a_struct_where_the_schema_has_none: r#"{"name": "a", "type": "string"}, {"name": "b", "type": "int"}"#
    { a: Leg, b: i64 }
    "`a`: the type wants struct Leg, the schema says string",
    "`b`: the type wants i64, the schema says int; use i32, or say long",
}

planted! {
    a_flattened_struct_with_another_field:
    r#"{"name": "from", "type": "string"}, {"name": "distance", "type": "int"}"#
    { #[serde(flatten)] leg: Leg }
    "`miles`: the type wants field miles, the schema has no such field",
}
