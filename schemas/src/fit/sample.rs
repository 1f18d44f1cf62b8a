//! Sample datums of a schema, each round with the next alternative at every place.

use serde_json::Value;

use super::findings::{Findings, Place};
use crate::avro_types::{Fields, Logical, Node, Shape};
use crate::datum::{put_bytes, put_index, put_long};
use crate::default;

/// Types behind a text are many: names, codes, numbers, dates, addresses.
const TEXTS: [&str; 18] = [
    "",
    "a",
    "A",
    "text",
    "TEXT",
    "AB",
    "ABC",
    "1",
    "1.5",
    "true",
    UUID,
    "2013-01-01",
    "2013-01-01T05:00:00Z",
    "05:00:00",
    "PT1H30M",
    "UTC",
    "name@example.com",
    "https://example.com/",
];
const UUID: &str = "0192f0c1-2b3c-7d4e-8f50-617283940a5b";

/// Writes the sample of this round.
pub(super) fn datum(root: Node, findings: &mut Findings) -> Vec<u8> {
    let mut sampler = Sampler { datum: Vec::new(), findings };
    sampler.put(root, &Place::default(), &[]);
    sampler.datum
}

struct Sampler<'f> {
    datum: Vec<u8>,
    findings: &'f mut Findings,
}

impl Sampler<'_> {
    /// `examples` are those that the schema gives for the field that this place belongs to.
    fn put(&mut self, node: Node, place: &Place, examples: &'static [Value]) {
        match node.shape() {
            Shape::Null => {}
            Shape::Record(fields) => self.record(fields, place),
            Shape::Union(branches) => {
                let labels = branches.iter().map(|branch| branch.to_string()).collect();
                let chosen = self.findings.choose(place, branches.len(), labels);
                put_index(&mut self.datum, chosen);
                self.findings.take_branch(place, chosen);
                if let Some(branch) = branches.get(chosen) {
                    self.put(branch, &place.inside("", &format!("|{chosen}")), examples);
                }
            }
            Shape::Enum(of) => {
                let chosen = self.findings.choose_symbol(place, &of.symbols);
                put_index(&mut self.datum, chosen);
            }
            Shape::Array(items) => {
                self.block(place, |sampler| {
                    sampler.put(items, &place.inside("[]", "[]"), examples);
                });
            }
            Shape::Map(values) => self.block(place, |sampler| {
                sampler.put(Node::map_key(node), &place.inside("{key}", "{key}"), &[]);
                sampler.put(values, &place.inside("{}", "{}"), examples);
            }),
            Shape::Boolean
            | Shape::Int
            | Shape::Long
            | Shape::Float
            | Shape::Double
            | Shape::Bytes
            | Shape::String
            | Shape::Fixed(_) => {
                let mut samples = values(node, examples);
                let chosen = self.findings.choose(place, samples.len(), Vec::new());
                self.datum.append(&mut samples.swap_remove(chosen));
            }
        }
    }

    fn record(&mut self, fields: Fields, place: &Place) {
        for (field, node) in fields.iter() {
            let examples = field.custom_attributes.get("examples").and_then(Value::as_array);
            let examples = examples.map_or(&[][..], Vec::as_slice);
            self.put(node, &place.field(&field.name), examples);
        }
    }

    /// An array or map with one item, or with none.
    fn block(&mut self, place: &Place, put_item: impl FnOnce(&mut Self)) {
        if self.findings.choose(place, 2, Vec::new()) == 0 {
            put_index(&mut self.datum, 1);
            put_item(self);
        }
        put_index(&mut self.datum, 0);
    }
}

/// The datums to try at a place without parts: the schema's examples, then those of its type. Not
/// empty.
fn values(node: Node, examples: &[Value]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for example in examples {
        let mut datum = Vec::new();
        if default::encode(node, example, &mut datum).is_ok() {
            values.push(datum);
        }
    }
    values.extend(match node.shape() {
        Shape::Boolean => vec![vec![0], vec![1]],
        Shape::Int => integers(node.logical(), i32::MIN.into(), i32::MAX.into()),
        Shape::Long => integers(node.logical(), i64::MIN, i64::MAX),
        Shape::Float => [0.0_f32, 1.5, -2.25].map(|real| real.to_le_bytes().into()).into(),
        Shape::Double => [0.0_f64, 1.5, -2.25].map(|real| real.to_le_bytes().into()).into(),
        Shape::String if node.logical() == Some(Logical::Uuid) => vec![prefixed(UUID.as_bytes())],
        Shape::String => TEXTS.map(|text| prefixed(text.as_bytes())).into(),
        Shape::Fixed(fixed) => vec![counted(fixed.size), vec![0; fixed.size]],
        _bytes => bytes(node.logical()).iter().map(|bytes| prefixed(bytes)).collect(),
    });
    values
}

fn integers(logical: Option<Logical>, least: i64, most: i64) -> Vec<Vec<u8>> {
    let integers = match logical {
        // Days and instants of our time, so fine that a wrong unit is out of every calendar.
        Some(Logical::Date) => vec![15_706, 0, -1],
        Some(Logical::TimestampMillis | Logical::LocalTimestampMillis) => {
            vec![1_357_034_400_123, 1_372_673_106_001]
        }
        Some(Logical::TimestampMicros | Logical::LocalTimestampMicros) => {
            vec![1_357_034_400_123_456, 1_372_673_106_000_001]
        }
        Some(Logical::TimestampNanos | Logical::LocalTimestampNanos) => {
            vec![1_357_034_400_123_456_789, 1_372_673_106_000_000_001]
        }
        Some(Logical::TimeMillis) => vec![18_000_123, 0],
        Some(Logical::TimeMicros) => vec![18_000_123_456, 0],
        Some(Logical::Decimal { .. } | Logical::BigDecimal | Logical::Uuid | Logical::Duration)
        | None => vec![0, 1, -1, 12, 1_000, 2_013, least, most],
    };
    integers.into_iter().map(long).collect()
}

fn bytes(logical: Option<Logical>) -> Vec<Vec<u8>> {
    match logical {
        Some(Logical::Uuid) => vec![counted(16), vec![0; 16]],
        // The unscaled number, then the scale.
        Some(Logical::BigDecimal) => vec![[prefixed(&[0x30, 0x39]), long(2)].concat()],
        Some(Logical::Decimal { .. }) => vec![vec![0x30, 0x39], vec![0xff]],
        _other => vec![vec![], vec![0], counted(3), counted(16)],
    }
}

fn counted(size: usize) -> Vec<u8> {
    (1..=u8::MAX).cycle().take(size).collect()
}

fn long(number: i64) -> Vec<u8> {
    let mut datum = Vec::new();
    put_long(&mut datum, number);
    datum
}

fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let mut datum = Vec::new();
    put_bytes(&mut datum, bytes);
    datum
}
