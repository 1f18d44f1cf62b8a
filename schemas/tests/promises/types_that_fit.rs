//! Types that fit, each for a reason that is easy to get wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::planted::misfits;

planted! {
    every_plain_type:
    r#"{"name": "a", "type": "boolean"}, {"name": "b", "type": "int"}, {"name": "c", "type": "long"},
       {"name": "d", "type": "float"}, {"name": "e", "type": "double"}, {"name": "f", "type": "string"},
       {"name": "g", "type": "bytes"}, {"name": "h", "type": {"type": "fixed", "name": "F", "size": 4}},
       {"name": "i", "type": "null"}, {"name": "j", "type": "string"}"#
    {
        a: bool, b: i32, c: i64, d: f32, e: f64, f: String,
        #[serde(with = "apache_avro::serde::bytes")] g: Vec<u8>,
        #[serde(with = "apache_avro::serde::fixed")] h: [u8; 4],
        i: (), j: char,
    }
}

planted! {
    numbers_that_always_fit_into_a_wider_one:
    r#"{"name": "a", "type": "int"}, {"name": "b", "type": "int"}, {"name": "c", "type": "int"},
       {"name": "d", "type": "int"}, {"name": "e", "type": "long"}"#
    { a: i8, b: i16, c: u8, d: u16, e: u32 }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Reason {
    Carrier,
    #[serde(alias = "STORM")]
    BadWeather,
}

#[derive(Serialize, Deserialize)]
struct Leg {
    from: String,
    miles: Option<i32>,
    late_for: Option<Reason>,
}

const LEG: &str = r#"{"type": "record", "name": "Leg", "fields": [
    {"name": "from", "type": "string"},
    {"name": "miles", "type": ["int", "null"]},
    {"name": "late_for", "type": ["null", {"type": "enum", "name": "Cause",
        "symbols": ["BAD_WEATHER", "CARRIER"]}], "default": null}]}"#;

#[test]
fn records_arrays_maps_options_and_enums_in_one_another() {
    #[derive(Serialize, Deserialize)]
    struct R {
        first: Leg,
        all: Vec<Leg>,
        by_day: HashMap<String, Vec<Option<Leg>>>,
        sorted: BTreeMap<String, BTreeSet<i64>>,
        boxed: Box<Leg>,
    }
    let fields = format!(
        r#"{{"name": "first", "type": {LEG}}},
           {{"name": "all", "type": {{"type": "array", "items": "Leg"}}}},
           {{"name": "by_day", "type": {{"type": "map", "values":
               {{"type": "array", "items": ["null", "Leg"]}}}}}},
           {{"name": "sorted", "type": {{"type": "map", "values":
               {{"type": "array", "items": "long"}}}}}},
           {{"name": "boxed", "type": "test.Leg"}}"#
    );
    assert_eq!(misfits::<R>(&fields), [""; 0]);
}

planted! {
    uuids_as_bytes_and_as_text:
    r#"{"name": "a", "type": {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}},
       {"name": "b", "type": {"type": "string", "logicalType": "uuid"}}, {"name": "c", "type": ["null", "Id"]},
       {"name": "d", "type": {"type": "string", "logicalType": "uuid"}}"#
    { a: Uuid, #[serde(with = "uuid::serde::hyphenated")] b: Uuid, c: Option<Uuid>, d: String }
}

planted! {
    times_in_their_units:
    r#"{"name": "a", "type": {"type": "long", "logicalType": "timestamp-millis"}},
       {"name": "b", "type": {"type": "long", "logicalType": "timestamp-micros"}},
       {"name": "c", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
       {"name": "d", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
       {"name": "e", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
       {"name": "f", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
       {"name": "g", "type": {"type": "int", "logicalType": "date"}},
       {"name": "h", "type": {"type": "int", "logicalType": "time-millis"}},
       {"name": "i", "type": {"type": "long", "logicalType": "time-micros"}},
       {"name": "j", "type": {"type": "string"}}"#
    {
        #[serde(with = "annals_schemas::timestamp_millis")] a: Timestamp,
        #[serde(with = "annals_schemas::timestamp_micros")] b: Timestamp,
        #[serde(with = "annals_schemas::timestamp_millis::option")] c: Option<Timestamp>,
        #[serde(with = "annals_schemas::timestamp_micros::option")] d: Option<Timestamp>,
        e: i64, f: i64, g: i32, h: i32, i: i64, j: Date,
    }
}

planted! {
    decimals_as_their_bytes:
    r#"{"name": "a", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
       {"name": "b", "type": {"type": "fixed", "name": "D", "size": 5, "logicalType": "decimal", "precision": 9, "scale": 2}},
       {"name": "c", "type": {"type": "bytes", "logicalType": "big-decimal"}},
       {"name": "d", "type": {"type": "fixed", "name": "L", "size": 12, "logicalType": "duration"}}"#
    {
        #[serde(with = "apache_avro::serde::bytes")] a: Vec<u8>,
        #[serde(with = "apache_avro::serde::fixed")] b: [u8; 5],
        #[serde(with = "apache_avro::serde::bytes")] c: Vec<u8>,
        #[serde(with = "apache_avro::serde::fixed")] d: [u8; 12],
    }
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Airline(String);

/// Takes three capitals only.
#[derive(Serialize, Deserialize, Clone)]
#[serde(try_from = "String", into = "String")]
struct Airport(String);

impl TryFrom<String> for Airport {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let legal = text.len() == 3 && text.bytes().all(|letter| letter.is_ascii_uppercase());
        if legal { Ok(Self(text)) } else { Err(format!("{text:?} is no airport")) }
    }
}

impl From<Airport> for String {
    fn from(airport: Airport) -> Self {
        airport.0
    }
}

/// Keeps text in lower case.
#[derive(Serialize, Deserialize)]
#[serde(from = "String")]
struct Lower(String);

impl From<String> for Lower {
    fn from(text: String) -> Self {
        Self(text.to_lowercase())
    }
}

impl Lower {
    fn write<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

planted! {
    types_behind_a_text:
    r#"{"name": "a", "type": "string"}, {"name": "b", "type": "string"}, {"name": "c", "type": ["null", "string"]},
       {"name": "d", "type": {"type": "map", "values": "string"}}, {"name": "e", "type": "string"}"#
    {
        a: Airline, b: Airport, c: Option<Airport>, d: HashMap<String, Airport>,
        #[serde(serialize_with = "Lower::write")] e: Lower,
    }
}

planted! {
    fields_left_out_where_the_default_says_the_same:
    r#"{"name": "a", "type": ["null", "int"], "default": null},
       {"name": "b", "type": {"type": "array", "items": "int"}, "default": []},
       {"name": "c", "type": "string", "default": ""}"#
    {
        #[serde(default, skip_serializing_if = "Option::is_none")] a: Option<i32>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")] b: Vec<i32>,
        #[serde(default, skip_serializing_if = "String::is_empty")] c: String,
    }
}

planted! {
    names_changed_by_serde_on_both_sides:
    r#"{"name": "type", "type": "string"}, {"name": "b", "type": "int"}"#
    { #[serde(rename = "type")] kind: String, #[serde(alias = "old")] b: i32, #[serde(skip)] _c: i32 }
}

#[derive(Serialize, Deserialize)]
struct Route {
    from: String,
    to: String,
}

planted! {
    flattened_structs:
    r#"{"name": "from", "type": "string"}, {"name": "to", "type": "string"}, {"name": "miles", "type": "int"}"#
    { #[serde(flatten)] route: Route, miles: i32 }
}

planted! {
    fields_in_another_order:
    r#"{"name": "a", "type": "string"}, {"name": "b", "type": "int"}, {"name": "c", "type": "long"}"#
    { c: i64, a: String, b: i32 }
}

#[derive(Serialize, Deserialize)]
enum Amount {
    None,
    Whole(i64),
    Route(Route),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Loose {
    Number(i64),
    Text(String),
}

planted! {
    unions_as_enums:
    r#"{"name": "a", "type": ["null", "long", {"type": "record", "name": "Route", "fields": [
            {"name": "from", "type": "string"}, {"name": "to", "type": "string"}]}]},
       {"name": "b", "type": ["long", "string"]}"#
    { a: Amount, b: Loose }
}

#[test]
fn an_event_without_fields() {
    #[derive(Serialize, Deserialize)]
    struct R {}
    assert_eq!(misfits::<R>(""), [""; 0]);
}

#[test]
fn a_record_as_wide_and_deep_as_they_come_takes_no_time() {
    type Maybe<T> = Option<Vec<Option<T>>>;
    #[derive(Serialize, Deserialize)]
    struct R {
        a: Option<Vec<Maybe<Vec<Option<Reason>>>>>,
        b: Vec<Vec<Vec<Vec<Vec<Airport>>>>>,
    }
    let nullable = |inner: String| format!(r#"["null", {inner}]"#);
    let array = |inner: String| format!(r#"{{"type": "array", "items": {inner}}}"#);
    let reason = r#"{"type": "enum", "name": "Reason", "symbols": ["CARRIER", "BAD_WEATHER"]}"#;
    let mut a = nullable(reason.into());
    let mut b = r#""string""#.to_owned();
    for _ in 0..3 {
        a = nullable(array(a));
    }
    for _ in 0..5 {
        b = array(b);
    }
    let fields = format!(r#"{{"name": "a", "type": {a}}}, {{"name": "b", "type": {b}}}"#);
    assert_eq!(misfits::<R>(&fields), [""; 0]);
}
