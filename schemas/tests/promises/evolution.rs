//! Reading with one schema what another one wrote.

use annals_schemas::{Broken, Compatibility, DecodeError, Schema, can_read};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::any::Any;
use crate::planted::record;

/// The view of a reader on an event that was written with other fields.
fn seen(written: &str, event: &impl Serialize, read: &str) -> Value {
    let (writer, reader) = (record(written), record(read));
    assert_eq!(can_read(&reader, &writer), Ok(()));
    let payload = writer.encode(event).expect("it fits its own schema");
    let Any(value) = writer.decode(&payload, &reader).expect("it can be read");
    value
}

/// Why a reader cannot read.
fn reasons(written: &str, read: &str) -> Vec<String> {
    let incompatible = can_read(&record(read), &record(written)).expect_err("incompatible");
    incompatible.reasons.iter().map(ToString::to_string).collect()
}

#[derive(Serialize)]
struct R {
    a: i32,
    b: String,
}

const OLD: &str = r#"{"name": "a", "type": "int"}, {"name": "b", "type": "string"}"#;

fn old() -> R {
    R { a: -7, b: "old".into() }
}

#[test]
fn a_new_field_gets_its_default() {
    let read = format!(
        r#"{{"name": "z", "type": ["null", "long"], "default": null}}, {OLD},
           {{"name": "c", "type": {{"type": "array", "items": "int"}}, "default": [1, 2]}},
           {{"name": "d", "type": {{"type": "map", "values": "string"}}, "default": {{"k": "v"}}}},
           {{"name": "e", "type": ["string", "null"], "default": "none"}},
           {{"name": "f", "type": {{"type": "record", "name": "F", "fields": [
               {{"name": "x", "type": "double", "default": 1.5}},
               {{"name": "y", "type": "boolean"}}]}}, "default": {{"y": true}}}}"#
    );
    assert_eq!(
        seen(OLD, &old(), &read),
        json!({"z": null, "a": -7, "b": "old", "c": [1, 2], "d": {"k": "v"}, "e": "none",
               "f": {"x": 1.5, "y": true}})
    );
}

#[test]
fn a_dropped_field_is_passed_over() {
    assert_eq!(seen(OLD, &old(), r#"{"name": "b", "type": "string"}"#), json!({"b": "old"}));
    assert_eq!(seen(OLD, &old(), r#"{"name": "a", "type": "int"}"#), json!({"a": -7}));
}

#[test]
fn fields_in_another_order_find_their_place() {
    let read = r#"{"name": "b", "type": "string"}, {"name": "new", "type": "int", "default": 1},
                  {"name": "a", "type": "long"}"#;
    assert_eq!(seen(OLD, &old(), read), json!({"b": "old", "new": 1, "a": -7}));
}

#[test]
fn a_renamed_field_is_found_by_its_alias_and_not_replaced_by_its_default() {
    let read = r#"{"name": "delay", "aliases": ["a"], "type": "int", "default": 0},
                  {"name": "b", "type": "string"}"#;
    assert_eq!(seen(OLD, &old(), read), json!({"delay": -7, "b": "old"}));
}

#[test]
fn numbers_widen_and_text_is_bytes() {
    let read = r#"{"name": "a", "type": "double"}, {"name": "b", "type": ["null", "string"]}"#;
    assert_eq!(seen(OLD, &old(), read), json!({"a": -7.0, "b": "old"}));
    assert_eq!(
        reasons(OLD, r#"{"name": "a", "type": "string"}, {"name": "b", "type": "int"}"#),
        ["`a`: int was written, string is read", "`b`: string was written, int is read"]
    );
    let wide = r#"{"name": "a", "type": "long"}"#;
    assert_eq!(
        reasons(wide, r#"{"name": "a", "type": "int"}"#),
        ["`a`: long was written, int is read"]
    );
}

#[test]
fn every_reason_is_told() {
    let read = r#"{"name": "a", "type": "boolean"}, {"name": "c", "type": "int"},
                  {"name": "d", "type": "string"}"#;
    assert_eq!(
        reasons(OLD, read),
        [
            "`a`: int was written, boolean is read",
            "`c`: int is read, nothing was written, and there is no default",
            "`d`: string is read, nothing was written, and there is no default",
        ]
    );
}

#[test]
fn units_of_time_are_not_mistaken_for_one_another() {
    let time = |unit: &str| {
        format!(r#"{{"name": "a", "type": {{"type": "long", "logicalType": "timestamp-{unit}"}}}}"#)
    };
    assert_eq!(
        reasons(&time("millis"), &time("micros")),
        ["`a`: timestamp-millis was written, timestamp-micros is read"]
    );
    let plain = record(r#"{"name": "a", "type": "long"}"#);
    assert_eq!(can_read(&record(&time("millis")), &plain), Ok(()));
}

#[derive(Serialize)]
enum Reason {
    Carrier,
    Weather,
}

fn reason_enum(symbols: &str, more: &str) -> String {
    format!(
        r#"{{"name": "a", "type":
            {{"type": "enum", "name": "Reason", "symbols": [{symbols}]{more}}}}}"#
    )
}

#[test]
fn a_symbol_that_the_reader_lacks_stops_only_the_events_that_have_it() {
    #[derive(Serialize)]
    struct R {
        a: Reason,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename = "R")]
    struct Read {
        a: Known,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    enum Known {
        Carrier,
    }
    let written = reason_enum(r#""Weather", "Carrier""#, "");
    let read = reason_enum(r#""Carrier""#, "");
    assert_eq!(
        reasons(&written, &read),
        ["`a`: symbol Weather may have been written, and is not known"]
    );
    let (writer, reader) = (record(&written), record(&read));
    let payload = writer.encode(&R { a: Reason::Carrier }).expect("it fits");
    assert_eq!(
        writer.decode::<Read>(&payload, &reader).expect("known"),
        Read { a: Known::Carrier }
    );
    let payload = writer.encode(&R { a: Reason::Weather }).expect("it fits");
    let error = writer.decode::<Read>(&payload, &reader).expect_err("unknown");
    assert!(matches!(error, DecodeError::Incompatible(_)), "{error}");
    let lenient = record(&reason_enum(r#""Carrier""#, r#", "default": "Carrier""#));
    assert_eq!(can_read(&lenient, &writer), Ok(()));
    assert_eq!(
        writer.decode::<Read>(&payload, &lenient).expect("default"),
        Read { a: Known::Carrier }
    );
}

#[test]
fn a_field_that_becomes_optional_can_be_read_and_not_the_other_way() {
    let plain = r#"{"name": "a", "type": "int"}"#;
    let optional = r#"{"name": "a", "type": ["null", "int"]}"#;
    assert_eq!(can_read(&record(optional), &record(plain)), Ok(()));
    assert_eq!(reasons(optional, plain), ["`a`: null was written, int is read"]);
}

#[test]
fn records_of_a_union_are_told_apart_by_name_though_they_look_alike() {
    let variant = |name: &str| {
        format!(
            r#"{{"type": "record", "name": "{name}", "fields": [{{"name": "x", "type": "int"}}]}}"#
        )
    };
    let (a, b) = (variant("A"), variant("B"));
    let writer = record(&format!(r#"{{"name": "u", "type": [{a}, {b}]}}"#));
    let reader = record(&format!(r#"{{"name": "u", "type": ["null", {b}, {a}]}}"#));
    assert_eq!(can_read(&reader, &writer), Ok(()));

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename = "R")]
    struct Read {
        u: Either,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    enum Either {
        Nothing,
        B(B),
        A(A),
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct A {
        x: i32,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct B {
        x: i32,
    }
    let read = |payload: &[u8]| writer.decode::<Read>(payload, &reader).expect("compatible");
    assert_eq!(read(b"\x00\x0a"), Read { u: Either::A(A { x: 5 }) });
    assert_eq!(read(b"\x02\x0c"), Read { u: Either::B(B { x: 6 }) });
}

#[test]
fn the_full_name_of_a_branch_decides_before_the_short_one_and_the_short_one_before_an_alias() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename = "R")]
    struct Read {
        to: Place,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    enum Place {
        Home(Address),
        Work(Address),
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Address {
        street: String,
    }
    let branch = |name: &str, more: &str| {
        format!(
            r#"{{"type": "record", "name": "{name}", {more} "fields": [
                {{"name": "street", "type": "string"}}]}}"#
        )
    };
    let to = |home: &str, work: &str, doc: &str| {
        record(&format!(r#"{{"name": "to", "doc": "{doc}", "type": [{home}, {work}]}}"#))
    };
    let read = |writer: &Schema, payload: &[u8], reader: &Schema| {
        assert_eq!(can_read(reader, writer), Ok(()));
        writer.decode::<Read>(payload, reader).expect("compatible").to
    };
    let (home, work) = (branch("home.Address", ""), branch("work.Address", ""));
    let (old, new) = (to(&home, &work, "old"), to(&home, &work, "new"));
    // Equal in meaning: no resolution. With a field more there is one.
    let more = record(&format!(
        r#"{{"name": "to", "type": [{home}, {work}]}}, {{"name": "n", "type": "int", "default": 0}}"#
    ));
    let at = |place: fn(Address) -> Place| place(Address { street: "a".into() });
    for reader in [&new, &more] {
        assert_eq!(read(&old, b"\x00\x02a", reader), at(Place::Home));
        assert_eq!(read(&old, b"\x02\x02a", reader), at(Place::Work));
    }
    // The short name, before an alias of an earlier branch.
    let home = branch("Home", r#""aliases": ["Address"],"#);
    let reader = to(&home, &work, "");
    let writer = to(&branch("Other", r#""aliases": ["Home"],"#), &branch("office.Address", ""), "");
    assert_eq!(writer.decode::<Read>(b"\x02\x02a", &reader).expect("by name").to, at(Place::Work));
    // The full name decides, although only another branch has the structure.
    let far = r#"{"type": "record", "name": "work.Address", "fields": [
        {"name": "street", "type": "int"}]}"#;
    let reader = to(&branch("home.Address", ""), far, "");
    assert!(old.decode::<Read>(b"\x02\x02a", &reader).is_err(), "work was read as home");
    assert!(can_read(&reader, &old).is_err());
}

#[test]
fn full_compatibility_also_protects_consumers_that_are_not_upgraded() {
    let parse = |fields: &str| record(fields);
    let id = r#"{"name": "id", "type": "long"}"#;
    let first = parse(&format!(r#"{id}, {{"name": "a", "type": "int"}}"#));
    let dropped = parse(id);
    let added = parse(&format!(
        r#"{id}, {{"name": "a", "type": "int"}}, {{"name": "b", "type": "int", "default": 0}}"#
    ));
    let demanded =
        parse(&format!(r#"{id}, {{"name": "a", "type": "int"}}, {{"name": "b", "type": "int"}}"#));
    let broken = |mode: Compatibility, new| {
        let broken = mode.broken_by(new, &first).into_iter();
        broken.map(|(breaks, _)| breaks).collect::<Vec<_>>()
    };
    let (backward, full) = (Compatibility::Backward, Compatibility::Full);
    assert_eq!(broken(backward, &dropped), []);
    assert_eq!(broken(full, &dropped), [Broken::ConsumersNotUpgraded]);
    assert_eq!(broken(full, &added), []);
    assert_eq!(broken(backward, &demanded), [Broken::ReadersOfOldEvents]);
    assert_eq!(broken(full, &demanded), [Broken::ReadersOfOldEvents]);
    // A symbol that old consumers do not know, without a default to fall back on.
    let (few, more) = (reason_enum(r#""A""#, ""), reason_enum(r#""A", "B""#, ""));
    let (few, more) = (record(&few), record(&more));
    assert_eq!(Compatibility::Full.broken_by(&more, &few).len(), 1);
    assert_eq!(Compatibility::Backward.broken_by(&more, &few).len(), 0);
}

#[test]
fn a_type_that_moves_within_the_definition_stays_the_same_type() {
    let leg = r#"{"type": "record", "name": "Leg", "fields": [{"name": "to", "type": "string"}]}"#;
    let written = format!(r#"{{"name": "a", "type": {leg}}}, {{"name": "b", "type": "Leg"}}"#);
    let read = format!(
        r#"{{"name": "z", "type": ["null", {leg}], "default": null}},
           {{"name": "a", "type": "Leg"}}, {{"name": "b", "type": "Leg"}}"#
    );
    assert_eq!(can_read(&record(&read), &record(&written)), Ok(()));
}

#[test]
fn another_event_cannot_be_read() {
    let parse = |name: &str, aliases: &str| {
        let fields = r#""fields": [{"name": "a", "type": "int"}]"#;
        Schema::parse(&format!(r#"{{"type": "record", "name": "{name}", {aliases} {fields}}}"#))
            .expect("legal")
    };
    let (old, new) = (parse("Old", ""), parse("New", ""));
    let error = can_read(&new, &old).expect_err("another name").to_string();
    assert!(error.contains("record Old was written, New is read"), "{error}");
    assert_eq!(can_read(&parse("New", r#""aliases": ["Old"],"#), &old), Ok(()));
}

#[test]
fn a_payload_cut_off_anywhere_is_refused_by_the_conversion_too() {
    let writer = record(
        r#"{"name": "a", "type": ["null", "string"]}, {"name": "b", "type": "boolean"},
        {"name": "c", "type": {"type": "map", "values": {"type": "array", "items": "double"}}}"#,
    );
    let reader =
        record(r#"{"name": "a", "type": ["null", "string"]}, {"name": "b", "type": "boolean"}"#);
    let payload = b"\x02\x06abc\x01\x02\x02k\x02\x00\x00\x00\x00\x00\x00\xf8\x3f\x00\x00";
    let Any(value) = writer.decode(payload, &reader).expect("whole");
    assert_eq!(value, json!({"a": "abc", "b": true}));
    for length in 0..payload.len() {
        let error = writer.decode::<Any>(&payload[..length], &reader).err().expect("cut off");
        assert!(matches!(error, DecodeError::Malformed { .. }), "{length}: {error}");
    }
}
