//! Valid schemas, and their identity.

use annals_schemas::Schema;

fn refusal(definition: &str) -> String {
    Schema::parse(definition).expect_err("the definition is wrong").to_string()
}

#[test]
fn a_definition_keeps_everything_but_white_space() {
    let schema = Schema::parse(
        r#"{
            "type" : "record", "name":"R",  "zeta": [1, 2.50, "a \" b  c\\"],
            "doc": "first  line\nsecond", "namespace": "n.s",
            "fields": [ {"name": "a", "type": "int", "default": 0, "doc": "é"} ]
        }"#,
    )
    .expect("a legal definition");
    assert_eq!(
        schema.definition(),
        r#"{"type":"record","name":"R","zeta":[1,2.50,"a \" b  c\\"],"doc":"first  line\nsecond","namespace":"n.s","fields":[{"name":"a","type":"int","default":0,"doc":"é"}]}"#
    );
    assert_eq!(schema.full_name(), "n.s.R");
    assert_eq!(schema.name(), "R");
    let again = Schema::parse(schema.definition()).expect("the same definition");
    assert_eq!(again, schema);
    assert_eq!(again.fingerprint(), schema.fingerprint());
}

#[test]
fn a_change_that_canonical_form_would_hide_changes_the_fingerprint() {
    let of = |field: &str| crate::planted::record(field).fingerprint();
    let plain = of(r#"{"name": "a", "type": "long"}"#);
    assert_ne!(plain, of(r#"{"name": "a", "type": "long", "default": 0}"#));
    assert_ne!(plain, of(r#"{"name": "a", "type": "long", "doc": "minutes"}"#));
    assert_ne!(
        plain,
        of(r#"{"name": "a", "type": {"type": "long", "logicalType": "timestamp-millis"}}"#)
    );
}

#[test]
fn a_fingerprint_stays_what_it_was() {
    let schema = crate::planted::record(r#"{"name": "a", "type": "int"}"#);
    // printf %s
    // '{"type":"record","name":"R","namespace":"test","fields":[{"name":"a","type":"int"}]}' |
    // sha256sum
    assert_eq!(schema.fingerprint().to_string(), "c86bf1da8e0ac743");
}

#[test]
fn only_records_are_events() {
    let reason = refusal(r#"["null", {"type": "record", "name": "R", "fields": []}]"#);
    assert!(reason.contains("an event is an Avro record"), "{reason}");
    let reason = refusal(r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#);
    assert!(reason.contains("an event is an Avro record"), "{reason}");
    let reason = refusal(r#""string""#);
    assert!(reason.contains("an event is an Avro record"), "{reason}");
}

#[test]
fn what_is_no_schema_is_refused_with_the_reason() {
    let reason = refusal("{");
    assert!(reason.contains("Failed to parse schema from JSON: EOF"), "{reason}");
    let reason =
        refusal(r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "strin"}]}"#);
    assert!(reason.contains("strin"), "{reason}");
    let reason = refusal(r#"{"type": "record", "name": "R-1", "fields": []}"#);
    assert!(reason.contains("R-1"), "{reason}");
    let long = "R".repeat(201);
    let reason = refusal(&format!(r#"{{"type": "record", "name": "{long}", "fields": []}}"#));
    assert!(reason.contains("longer than 200 bytes"), "{reason}");
}

#[test]
fn a_record_within_itself_is_refused() {
    let reason = refusal(
        r#"{"type": "record", "name": "Node", "fields": [
            {"name": "next", "type": ["null", "Node"]}]}"#,
    );
    assert_eq!(
        reason,
        "schema Node: field `next`: record Node contains itself; use an array of flat records"
    );
    let reason = refusal(
        r#"{"type": "record", "name": "A", "fields": [{"name": "b", "type":
            {"type": "record", "name": "B", "fields": [{"name": "a", "type":
                {"type": "array", "items": "A"}}]}}]}"#,
    );
    assert_eq!(
        reason,
        "schema A: field `b.a`: record A contains itself; use an array of flat records"
    );
}

#[test]
fn a_type_that_is_used_twice_is_no_recursion() {
    let leg = r#"{"type": "record", "name": "Leg", "fields": [{"name": "to", "type": "string"}]}"#;
    crate::planted::record(&format!(
        r#"{{"name": "a", "type": {leg}}}, {{"name": "b", "type": "Leg"}}"#
    ));
}

#[test]
fn arrays_of_nothing_and_unions_of_nothing_are_refused() {
    let of = |kind: &str| {
        refusal(&format!(
            r#"{{"type": "record", "name": "R", "fields": [{{"name": "a", "type": {kind}}}]}}"#
        ))
    };
    let reason = of(r#"{"type": "array", "items": "null"}"#);
    assert!(reason.contains("field `a`: an array of null, which takes no bytes"), "{reason}");
    let empty = r#"{"type": "record", "name": "E", "fields": [{"name": "n", "type": "null"}]}"#;
    let reason = of(&format!(r#"{{"type": "array", "items": {empty}}}"#));
    assert!(reason.contains("an array of record E, which takes no bytes"), "{reason}");
    let reason = of("[]");
    assert!(reason.contains("union without branches"), "{reason}");
}

#[test]
fn a_default_that_is_not_of_its_type_is_refused() {
    let reason = refusal(
        r#"{"type": "record", "name": "R", "fields": [
            {"name": "a", "type": {"type": "fixed", "name": "F", "size": 2}, "default": "abc"}]}"#,
    );
    assert!(reason.contains("the default \"abc\" is no fixed F of 2"), "{reason}");
}

#[test]
fn the_same_definition_is_parsed_once() {
    let text = r#"{"type": "record", "name": "Once", "fields": []}"#;
    let first = Schema::parse(text).expect("legal");
    let spaced = Schema::parse(&text.replace(": ", " :\n")).expect("legal");
    assert!(std::ptr::eq(first.definition(), spaced.definition()));
}

#[test]
fn an_alias_that_is_the_name_of_another_field_is_refused() {
    // The library would write the one field in the place of the other.
    let reason = refusal(
        r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"},
            {"name": "b", "aliases": ["a"], "type": "int"}]}"#,
    );
    assert_eq!(reason, "schema R: field `b`: its alias a is the name or alias of another field");
}
