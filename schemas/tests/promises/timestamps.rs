//! Instants, as numbers and as text.

use annals_schemas::{timestamp_micros, timestamp_millis};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::planted::record;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct R {
    #[serde(with = "timestamp_millis")]
    ms: Timestamp,
    #[serde(with = "timestamp_micros::option")]
    us: Option<Timestamp>,
}

const TIMES: &str = r#"{"name": "ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "us", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]}"#;

fn instant(text: &str) -> Timestamp {
    text.parse().expect("RFC 3339")
}

#[test]
fn text_and_number_are_the_same_instant_cut_to_the_unit() {
    let fine = instant("2013-01-01T05:00:00.123456789Z");
    let event = R { ms: fine, us: Some(fine) };
    let cut = R {
        ms: instant("2013-01-01T05:00:00.123Z"),
        us: Some(instant("2013-01-01T05:00:00.123456Z")),
    };
    let schema = record(TIMES);
    let payload = schema.encode(&event).expect("it fits");
    assert_eq!(schema.decode::<R>(&payload, &schema).expect("its own bytes"), cut);
    let json = serde_json::to_value(&event).expect("it has a JSON form");
    assert_eq!(
        json,
        json!({"ms": "2013-01-01T05:00:00.123Z", "us": "2013-01-01T05:00:00.123456Z"})
    );
    assert_eq!(serde_json::from_value::<R>(json).expect("its own JSON"), cut);
    assert_eq!(
        schema.decode_json(&payload).expect("its own bytes")["ms"],
        "2013-01-01T05:00:00.123Z"
    );
}

#[test]
fn instants_before_the_epoch_and_none_survive() {
    let event = R { ms: instant("1903-12-17T10:35:00-05:00"), us: None };
    let schema = record(TIMES);
    let payload = schema.encode(&event).expect("it fits");
    assert_eq!(schema.decode::<R>(&payload, &schema).expect("its own bytes"), event);
    let json = serde_json::to_string(&event).expect("it has a JSON form");
    assert_eq!(json, r#"{"ms":"1903-12-17T15:35:00Z","us":null}"#);
    assert_eq!(serde_json::from_str::<R>(&json).expect("its own JSON"), event);
}

#[test]
fn a_number_out_of_every_calendar_is_an_error() {
    let schema = record(TIMES);
    let error = schema
        .decode::<R>(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00", &schema)
        .expect_err("292 million years ago");
    assert!(error.to_string().starts_with("decode test.R: "), "{error}");
}
