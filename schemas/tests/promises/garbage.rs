//! Bytes from anywhere: an error or a value, never a panic, and soon.

use annals_schemas::{Schema, from_wire_format};
use serde::Deserialize;
use serde_json::Value;

use crate::planted::record;

const EVERYTHING: &str = r#"
    {"name": "a", "type": "boolean"}, {"name": "b", "type": "int"}, {"name": "c", "type": "long"},
    {"name": "d", "type": "float"}, {"name": "e", "type": "double"}, {"name": "f", "type": "string"},
    {"name": "g", "type": ["null", "string", "long"]},
    {"name": "h", "type": {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}},
    {"name": "i", "type": {"type": "array", "items": {"type": "map", "values": "int"}}},
    {"name": "j", "type": {"type": "map", "values": {"type": "array", "items": "string"}}},
    {"name": "k", "type": {"type": "record", "name": "K", "fields": [
        {"name": "x", "type": "string"}, {"name": "y", "type": ["null", "double"]}]}},
    {"name": "l", "type": {"type": "array", "items": "K"}},
    {"name": "m", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "n", "type": {"type": "int", "logicalType": "date"}},
    {"name": "o", "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 20}},
    {"name": "p", "type": {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}}"#;

#[derive(Deserialize)]
#[serde(rename = "R")]
#[expect(dead_code, reason = "only read into")]
struct R {
    a: bool,
    b: i32,
    c: i64,
    d: f32,
    e: f64,
    f: String,
    g: Loose,
    h: E,
    i: Vec<std::collections::HashMap<String, i32>>,
    j: std::collections::HashMap<String, Vec<String>>,
    k: K,
    l: Vec<K>,
    #[serde(with = "annals_schemas::timestamp_micros")]
    m: jiff::Timestamp,
    n: i32,
    #[serde(with = "apache_avro::serde::bytes")]
    o: Vec<u8>,
    p: uuid::Uuid,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only read into")]
enum Loose {
    Null,
    Text(String),
    Number(i64),
}

#[derive(Deserialize)]
enum E {
    A,
    B,
    C,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only read into")]
struct K {
    x: String,
    y: Option<f64>,
}

/// xorshift64*: the same bytes on every machine.
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below the bound")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[5]
    }

    /// Small numbers, mostly: they lead deeper into a schema than noise does.
    fn payload(&mut self) -> Vec<u8> {
        let length = self.below(80);
        let mask = [0x03, 0x0f, 0x7f, 0xff][self.below(4)];
        (0..length).map(|_| self.byte() & mask).collect()
    }
}

fn try_all(schema: &Schema, older: &Schema, payload: &[u8]) -> usize {
    let typed = schema.decode::<R>(payload, schema).is_ok();
    let converted = older.decode::<R>(payload, schema).is_ok();
    let json = schema.decode_json(payload);
    let framed = from_wire_format(payload).is_ok();
    usize::from(typed) + usize::from(converted) + usize::from(json.is_ok()) + usize::from(framed)
}

#[test]
fn random_bytes_never_panic() {
    let schema = record(EVERYTHING);
    let older = record(&EVERYTHING.replace(r#""type": "long"}"#, r#""type": "int"}"#));
    let mut outcomes = [0_usize; 5];
    for seed in 1..=20_000 {
        let payload = Bytes(seed).payload();
        outcomes[try_all(&schema, &older, &payload)] += 1;
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "both kinds of outcome were seen: {outcomes:?}");
}

#[test]
fn a_good_payload_with_a_few_wrong_bytes_never_panics() {
    let schema = record(EVERYTHING);
    let older = record(&EVERYTHING.replace(r#""type": "long"}"#, r#""type": "int"}"#));
    let good = good_payload();
    assert!(schema.decode::<R>(&good, &schema).is_ok());
    let whole: Value = schema.decode_json(&good).expect("a good payload");
    assert_eq!(whole["m"], "2013-01-01T05:00:00Z");
    let mut refused = 0;
    for seed in 1..=20_000 {
        let mut bytes = Bytes(seed);
        let mut payload = good.clone();
        for _ in 0..=bytes.below(3) {
            let place = bytes.below(payload.len());
            payload[place] = bytes.byte();
        }
        payload.truncate(bytes.below(payload.len() * 4).max(1));
        refused += usize::from(try_all(&schema, &older, &payload) == 0);
    }
    assert!(refused > 1_000 && refused < 20_000, "both kinds of outcome were seen: {refused}");
}

fn good_payload() -> Vec<u8> {
    let mut good = vec![1, 2, 4];
    good.extend(1.5_f32.to_le_bytes());
    good.extend(2.5_f64.to_le_bytes());
    good.extend(b"\x04UA\x02\x02x\x04");
    good.extend(b"\x02\x02\x02k\x0a\x00\x00");
    good.extend(b"\x02\x02k\x02\x02v\x00\x00");
    good.extend(b"\x02x\x00");
    good.extend(b"\x02\x02x\x00\x00");
    good.extend(b"\x80\xd0\xcf\x87\xe0\x8c\xe9\x04");
    good.extend(b"\xb4\xf5\x01\x04\x30\x39");
    good.extend([7; 16]);
    good
}

#[test]
fn a_length_that_claims_more_than_there_is_costs_nothing() {
    let schema = record(r#"{"name": "a", "type": {"type": "array", "items": "string"}}"#);
    #[derive(Debug, Deserialize)]
    #[serde(rename = "R")]
    struct R {
        #[expect(dead_code, reason = "only read into")]
        a: Vec<String>,
    }
    // 2^62 items; one item of 2^28 bytes.
    let items = b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x02a";
    let bytes = b"\x02\x80\x80\x80\x80\x02a";
    for claim in [&items[..], &bytes[..]] {
        assert!(schema.decode::<R>(claim, &schema).is_err());
        assert!(schema.decode_json(claim).is_err());
    }
}
