//! Money, dates and times: the Rust type of each logical type, and numbers that JSON lacks.

use annals_schemas::{AvroDuration, Decimal, EncodeError, EventSet, events};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time, date, datetime, time};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::planted::{misfits, record};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct R {
    price: Decimal<9, 2>,
    fixed: Decimal<9, 2, 5>,
    maybe: Option<Decimal<38, 10>>,
    #[serde(with = "annals_schemas::date")]
    day: Date,
    #[serde(with = "annals_schemas::date::option")]
    maybe_day: Option<Date>,
    #[serde(with = "annals_schemas::time_millis")]
    at: Time,
    #[serde(with = "annals_schemas::time_micros")]
    at_micros: Time,
    #[serde(with = "annals_schemas::local_timestamp_millis")]
    local: DateTime,
    #[serde(with = "annals_schemas::local_timestamp_micros")]
    local_micros: DateTime,
    #[serde(with = "annals_schemas::local_timestamp_nanos")]
    local_nanos: DateTime,
    #[serde(with = "annals_schemas::timestamp_nanos")]
    nanos: Timestamp,
    notice: AvroDuration,
}

const ALL: &str = r#"
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "fixed", "type": {"type": "fixed", "name": "Five", "size": 5, "logicalType": "decimal",
        "precision": 9, "scale": 2}},
    {"name": "maybe", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10}]},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "maybe_day", "type": ["null", {"type": "int", "logicalType": "date"}]},
    {"name": "at", "type": {"type": "int", "logicalType": "time-millis"}},
    {"name": "at_micros", "type": {"type": "long", "logicalType": "time-micros"}},
    {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
    {"name": "local_micros", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
    {"name": "local_nanos", "type": {"type": "long", "logicalType": "local-timestamp-nanos"}},
    {"name": "nanos", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
    {"name": "notice", "type": {"type": "fixed", "name": "Notice", "size": 12, "logicalType": "duration"}}"#;

fn event() -> R {
    R {
        price: "-1234567.89".parse().expect("a price"),
        fixed: Decimal::from_unscaled(-128).expect("a price"),
        maybe: Some("1234567890123456789012345678.0000000001".parse().expect("38 digits")),
        day: date(1969, 12, 31),
        maybe_day: Some(date(2013, 1, 1)),
        at: time(23, 59, 59, 999_000_000),
        at_micros: time(5, 0, 0, 1_000),
        local: datetime(2013, 1, 1, 5, 0, 0, 123_000_000),
        local_micros: datetime(2013, 1, 1, 5, 0, 0, 123_456_000),
        local_nanos: datetime(2013, 1, 1, 5, 0, 0, 123_456_789),
        nanos: "2013-01-01T05:00:00.123456789Z".parse().expect("RFC 3339"),
        notice: AvroDuration { months: 1, days: 14, millis: 2_500 },
    }
}

#[test]
fn money_dates_and_times_have_a_type_that_fits_and_comes_back_from_both_forms() {
    assert_eq!(misfits::<R>(ALL), [""; 0]);
    let schema = record(ALL);
    let payload = schema.encode(&event()).expect("it fits");
    assert_eq!(schema.decode::<R>(&payload, &schema).expect("its own bytes"), event());
    let data = serde_json::to_value(event()).expect("it has a JSON form");
    assert_eq!(
        data,
        json!({
            "price": "-1234567.89", "fixed": "-1.28",
            "maybe": "1234567890123456789012345678.0000000001",
            "day": "1969-12-31", "maybe_day": "2013-01-01",
            "at": "23:59:59.999", "at_micros": "05:00:00.000001",
            "local": "2013-01-01T05:00:00.123", "local_micros": "2013-01-01T05:00:00.123456",
            "local_nanos": "2013-01-01T05:00:00.123456789",
            "nanos": "2013-01-01T05:00:00.123456789Z", "notice": "P1M14DT2.5S",
        })
    );
    assert_eq!(schema.decode_json(&payload).expect("its own bytes"), data);
    assert_eq!(serde_json::from_value::<R>(data).expect("its own JSON"), event());
}

#[test]
fn a_decimal_is_encoded_in_the_fewest_bytes_of_twos_complement() {
    #[derive(Serialize)]
    struct R {
        a: Decimal<9, 2>,
    }
    let schema = record(
        r#"{"name": "a", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}"#,
    );
    let cases: [(&str, &[u8]); 6] = [
        ("0", &[0]),
        ("1.27", &[0x7f]),
        ("1.28", &[0, 0x80]),
        ("-1.28", &[0x80]),
        ("-1.29", &[0xff, 0x7f]),
        ("123.45", &[0x30, 0x39]),
    ];
    for (text, bytes) in cases {
        let payload = schema.encode(&R { a: text.parse().expect(text) }).expect("it fits");
        assert_eq!(&payload[1..], bytes, "{text}");
    }
}

#[test]
fn a_number_that_a_decimal_cannot_express_exactly_is_refused() {
    for text in ["0.001", "12345678.00", "", ".", "-", "1e3", "1,0", "NaN", " 1"] {
        assert!(text.parse::<Decimal<9, 2>>().is_err(), "{text}");
    }
    for (text, shown) in [("0.100", "0.10"), ("-.5", "-0.50"), ("007", "7.00"), ("-0", "0.00")] {
        assert_eq!(text.parse::<Decimal<9, 2>>().expect(text).to_string(), shown);
    }
    let most: Decimal<3, 2> = "9.99".parse().expect("three digits");
    assert_eq!(most.checked_add(most), None);
    assert_eq!(most.checked_sub(most), Some(Decimal::default()));
}

planted! {
    another_scale_of_a_decimal:
    r#"{"name": "a", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
       {"name": "b", "type": "bytes"}"#
    { a: annals_schemas::Decimal<9, 4>, b: annals_schemas::Decimal<9, 2> }
    "`a`: the type wants decimal(9, 4), the schema says bytes (decimal(9, 2)); use the same precision and scale",
    "`b`: the type wants decimal(9, 2), the schema says bytes; use the same precision and scale",
}

planted! {
    a_time_of_another_unit:
    r#"{"name": "a", "type": {"type": "long", "logicalType": "local-timestamp-millis"}}"#
    { #[serde(with = "annals_schemas::local_timestamp_micros")] a: jiff::civil::DateTime }
    "`a`: the type wants a local timestamp in microseconds, the schema says long (local-timestamp-millis); use the same unit",
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Measured {
    values: Vec<f64>,
    last: Option<f32>,
}

events! {
    pub(crate) enum Measurement in "gauge" { Measured = "../avro/gauge/Measured.v1.avsc" }
}

#[test]
fn a_number_that_json_lacks_is_refused_with_its_field_instead_of_null() {
    let measured = |values: Vec<f64>, last| Measurement::from(Measured { values, last }).encode();
    let good = measured(vec![f64::MAX, -0.0], Some(f32::MIN)).expect("finite");
    assert!(!good.data.get().contains("null"), "{}", good.data);
    let cases = [
        (measured(vec![1.0, f64::NAN], None), "values"),
        (measured(vec![f64::NEG_INFINITY], Some(f32::NAN)), "values"),
        (measured(vec![], Some(f32::INFINITY)), "last"),
    ];
    for (refused, path) in cases {
        match refused.expect_err("not finite") {
            EncodeError::NotFinite { record, field } => {
                assert_eq!((record.as_str(), field.as_str()), ("plant.Measured", path));
            }
            other => panic!("another kind of error: {other}"),
        }
    }
}
