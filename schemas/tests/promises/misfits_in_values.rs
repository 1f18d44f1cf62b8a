//! Planted misfits between types of values.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

planted! {
    i64_where_the_schema_says_int: r#"{"name": "a", "type": "int"}"#
    { a: i64 }
    "`a`: the type wants i64, the schema says int; use i32, or say long"
}

planted! {
    numbers_narrower_than_long: r#"{"name": "a", "type": "long"}, {"name": "b", "type": "long"}"#
    { a: i32, b: u8 }
    "`a`: the type wants i32, the schema says long; use i64, or say int",
    "`b`: the type wants u8, the schema says long; use i64, or say int",
}

planted! {
    numbers_that_avro_does_not_have: r#"{"name": "a", "type": "long"}, {"name": "b", "type": "int"}"#
    { a: u64, b: usize }
    "`a`: the type wants u64, the schema says long; Avro's widest integer is i64",
    "`b`: the type wants u64, the schema says int; Avro's widest integer is i64",
}

planted! {
    floats_of_another_width: r#"{"name": "a", "type": "double"}, {"name": "b", "type": "float"}"#
    { a: f32, b: f64 }
    "`a`: the type wants f32, the schema says double; use f64, or say float",
    "`b`: the type wants f64, the schema says float; use f32, or say double",
}

planted! {
    integers_and_floats: r#"{"name": "a", "type": "double"}, {"name": "b", "type": "int"}"#
    { a: i32, b: f64 }
    "`a`: the type wants i32, the schema says double",
    "`b`: the type wants f64, the schema says int",
}

planted! {
    text_bytes_and_truth:
    r#"{"name": "a", "type": "bytes"}, {"name": "b", "type": "string"}, {"name": "c", "type": "boolean"},
       {"name": "d", "type": "string"}, {"name": "e", "type": "int"}"#
    { a: String, #[serde(with = "apache_avro::serde::bytes")] b: Vec<u8>, c: i32, d: bool, e: char }
    "`a`: the type wants text, the schema says bytes",
    "`b`: the type wants bytes, the schema says string",
    "`c`: the type wants i32, the schema says boolean",
    "`d`: the type wants bool, the schema says string",
    "`e`: the type wants char, the schema says int",
}

planted! {
    bytes_that_serde_sees_as_numbers:
    r#"{"name": "a", "type": "bytes"}, {"name": "b", "type": {"type": "fixed", "name": "F", "size": 4}}"#
    { a: Vec<u8>, b: [u8; 4] }
    "`a`: the type wants a sequence, the schema says bytes; use #[serde(with = \"serde_bytes\")]",
    "`b`: the type wants a tuple of 4, the schema says fixed F of 4; use #[serde(with = \"serde_bytes\")]",
}

planted! {
    a_fixed_of_another_size:
    r#"{"name": "a", "type": {"type": "fixed", "name": "F", "size": 4}}"#
    { #[serde(with = "apache_avro::serde::fixed")] a: [u8; 3] }
    "`a`: the type refuses every value tried: invalid length 4, expected a byte array of length 3, the schema has no example that it takes; if it is right to, add \"examples\": [..] to this field of the schema, with values that the type takes"
}

planted! {
    a_uuid_where_the_schema_says_text:
    r#"{"name": "a", "type": {"type": "string", "logicalType": "uuid"}}"#
    { a: Uuid }
    "`a`: the type wants bytes, the schema says string (uuid); a uuid::Uuid is 16 bytes here: say fixed of 16, or write it as text with #[serde(with = \"uuid::serde::hyphenated\")]"
}

planted! {
    a_number_too_narrow_for_the_times_of_today:
    r#"{"name": "a", "type": {"type": "long", "logicalType": "timestamp-millis"}}"#
    { a: u32 }
    "`a`: the type refuses every value tried: Could not convert long (1357034400123) to an u32, the schema has no example that it takes; if it is right to, add \"examples\": [..] to this field of the schema, with values that the type takes"
}

planted! {
    a_timestamp_as_jiff_writes_it:
    r#"{"name": "a", "type": {"type": "long", "logicalType": "timestamp-millis"}}"#
    { a: Timestamp }
    "`a`: the type wants text, the schema says long (timestamp-millis); write the number, as #[serde(with = \"timestamp_millis\")] does"
}

planted! {
    timestamps_of_another_unit:
    r#"{"name": "a", "type": {"type": "long", "logicalType": "timestamp-millis"}},
       {"name": "b", "type": {"type": "long", "logicalType": "timestamp-micros"}},
       {"name": "c", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
       {"name": "d", "type": {"type": "long", "logicalType": "timestamp-millis"}}"#
    {
        #[serde(with = "annals_schemas::timestamp_micros")] a: Timestamp,
        #[serde(with = "annals_schemas::timestamp_millis")] b: Timestamp,
        #[serde(with = "annals_schemas::timestamp_millis::option")] c: Option<Timestamp>,
        #[serde(with = "jiff::fmt::serde::timestamp::second::required")] d: Timestamp,
    }
    "`a`: the type wants a timestamp in microseconds since the Unix epoch, the schema says long (timestamp-millis); use the same unit",
    "`b`: the type wants a timestamp in milliseconds since the Unix epoch, the schema says long (timestamp-micros); use the same unit",
    "`c`: the type wants a timestamp in milliseconds since the Unix epoch, the schema says long (timestamp-micros); use the same unit",
    "`d`: the type wants an integer number of seconds from the Unix epoch, the schema says long (timestamp-millis); use the same unit",
}

planted! {
    an_option_where_null_is_not_allowed: r#"{"name": "a", "type": "int"}, {"name": "b", "type": "int"}"#
    { a: Option<i32>, b: Option<i64> }
    "`a`: the type wants an Option, the schema says int; drop the Option, or say [\"null\", int]",
    "`b`: the type wants an Option, the schema says int; drop the Option, or say [\"null\", int]",
}

planted! {
    no_option_where_null_is_allowed: r#"{"name": "a", "type": ["null", "int"]}"#
    { a: i32 }
    "`a`: the type wants i32, the schema says [null, int]; use an Option, or take null out of the schema"
}

planted! {
    another_type_inside_an_option: r#"{"name": "a", "type": ["null", "int"]}"#
    { a: Option<String> }
    "`a`: the type wants text, the schema says int"
}

planted! {
    an_option_of_three_branches: r#"{"name": "a", "type": ["null", "int", "string"]}"#
    { a: Option<i32> }
    "`a`: the type wants an Option, the schema says [null, int, string]; an Option is null and one other branch"
}

#[derive(Serialize, Deserialize)]
struct Airport(String);

planted! {
    a_newtype_that_is_not_transparent: r#"{"name": "a", "type": "string"}, {"name": "b", "type": "int"}"#
    { a: Airport, b: Airport }
    "`a`: the type wants newtype Airport, the schema says string; put #[serde(transparent)] on Airport",
    "`b`: the type wants newtype Airport, the schema says int; put #[serde(transparent)] on Airport",
}

planted! {
    sequences_tuples_and_maps:
    r#"{"name": "a", "type": {"type": "array", "items": "int"}}, {"name": "b", "type": {"type": "map", "values": "int"}},
       {"name": "c", "type": {"type": "array", "items": "int"}}, {"name": "d", "type": "int"}"#
    { a: (i32, i32), b: Vec<i32>, c: HashMap<String, i32>, d: Vec<i32> }
    "`a`: the type wants a tuple of 2, the schema says array of int; use a Vec",
    "`b`: the type wants a sequence, the schema says map of int",
    "`c`: the type wants a map, the schema says array of int",
    "`d`: the type wants a sequence, the schema says int",
}

planted! {
    keys_and_items_of_another_type:
    r#"{"name": "a", "type": {"type": "map", "values": "int"}}, {"name": "b", "type": {"type": "array", "items": "string"}}"#
    { a: HashMap<i32, i64>, b: Vec<i32> }
    "`a{key}`: the type wants i32, the schema says string",
    "`a{}`: the type wants i64, the schema says int; use i32, or say long",
    "`b[]`: the type wants i32, the schema says string",
}

/// Refuses everything but flight numbers.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[derive(Clone)]
struct FlightNumber(String);

impl TryFrom<String> for FlightNumber {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("UA") { Ok(Self(text)) } else { Err(format!("{text:?} is no flight")) }
    }
}

impl From<FlightNumber> for String {
    fn from(number: FlightNumber) -> Self {
        number.0
    }
}

planted! {
    a_type_that_takes_no_sample: r#"{"name": "a", "type": "string"}"#
    { a: FlightNumber }
    "`a`: the type refuses every value tried: \"\" is no flight, the schema has no example that it takes; if it is right to, add \"examples\": [..] to this field of the schema, with values that the type takes"
}

planted! {
    the_example_that_a_type_needs: r#"{"name": "a", "type": "string", "examples": ["UA1545"]}"#
    { a: FlightNumber }
}

/// Read as a number, written as text.
struct Lopsided(i32);

impl Serialize for Lopsided {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Lopsided {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i32::deserialize(deserializer).map(Self)
    }
}

planted! {
    a_type_that_writes_other_than_it_reads: r#"{"name": "a", "type": "int"}"#
    { a: Lopsided }
    "`a`: the type writes str, the schema says int"
}

planted! {
    a_record_that_is_read_as_a_map:
    r#"{"name": "a", "type": {"type": "record", "name": "M", "fields": [{"name": "x", "type": "int"}]}}"#
    { a: HashMap<String, i32> }
    "`a`: the type refuses every value tried: Only expected `deserialize_identifier` to be called but `deserialize_string` was called, the schema has no example that it takes; if it is right to, add \"examples\": [..] to this field of the schema, with values that the type takes"
}

/// Cannot be written.
struct Broken;

impl Serialize for Broken {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("out of order"))
    }
}

impl<'de> Deserialize<'de> for Broken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i32::deserialize(deserializer).map(|_| Self)
    }
}

planted! {
    a_type_that_cannot_be_written: r#"{"name": "a", "type": "int"}"#
    { a: Broken }
    "`a`: the type cannot be written, out of order"
}

/// Writes the same number, for any input.
struct Forgetful;

impl Serialize for Forgetful {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(0)
    }
}

impl<'de> Deserialize<'de> for Forgetful {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i32::deserialize(deserializer).map(|_| Self)
    }
}

planted! {
    a_type_that_loses_what_it_reads: r#"{"name": "a", "type": "int"}"#
    { a: Forgetful }
    "`a`: the type gives back 0, it was given -1, -2147483648, 0; it must write the value that it has read"
}
