//! Payloads for people.

use crate::planted::record;

#[test]
fn logical_types_become_what_people_write() {
    let schema = record(
        r#"{"name": "ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
           {"name": "us", "type": {"type": "long", "logicalType": "timestamp-micros"}},
           {"name": "day", "type": {"type": "int", "logicalType": "date"}},
           {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
           {"name": "cents", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
           {"name": "id", "type": {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}},
           {"name": "raw", "type": "bytes"},
           {"name": "why", "type": {"type": "enum", "name": "Why", "symbols": ["A", "B"]}},
           {"name": "maybe", "type": ["null", "double"]}"#,
    );
    let mut payload = b"\xf6\xa5\xed\xd8\xfe\x4e".to_vec();
    payload.extend(b"\x80\xd0\xcf\x87\xe0\x8c\xe9\x04\xb4\xf5\x01");
    payload.extend(b"\x04\x30\x39\x02\xff");
    payload.extend(0x0192_f0c1_2b3c_7d4e_8f50_6172_8394_0a5b_u128.to_be_bytes());
    payload.extend(b"\x04\x01\x02\x02\x02");
    payload.extend(f64::NAN.to_le_bytes());
    assert_eq!(
        schema.decode_json(&payload).expect("a datum of this schema"),
        serde_json::json!({
            "ms": "2013-01-01T10:00:00.123Z",
            "us": "2013-01-01T05:00:00Z",
            "day": "2013-01-01",
            "price": "123.45",
            "cents": "-0.01",
            "id": "0192f0c1-2b3c-7d4e-8f50-617283940a5b",
            "raw": [1, 2],
            "why": "B",
            "maybe": "NaN",
        })
    );
}

#[test]
fn an_instant_out_of_every_calendar_stays_a_number() {
    let schema = record(
        r#"{"name": "ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
           {"name": "day", "type": {"type": "int", "logicalType": "date"}}"#,
    );
    let payload = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xff\xff\xff\xff\x0f";
    let value = schema.decode_json(payload).expect("a datum of this schema");
    assert_eq!(value, serde_json::json!({"ms": i64::MIN, "day": i32::MIN}));
}

#[test]
fn what_is_left_over_or_missing_is_refused() {
    let schema = record(r#"{"name": "a", "type": "string"}"#);
    assert!(schema.decode_json(b"\x02ab").is_err());
    assert!(schema.decode_json(b"\x04a").is_err());
    assert!(schema.decode_json(b"").is_err());
    assert!(schema.decode_json(b"\x02\xff").is_err());
}
