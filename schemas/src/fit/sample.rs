//! Values to try at a place, in the hope that the type takes some of them.

use serde::de::Visitor;
use serde_json::Value;

use super::ask::Ask;
use super::error::FitError;
use crate::datum::{put_bytes, put_long};
use crate::node::{Logical, Node, Shape};

/// One value, of what fits into one Avro type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sample {
    Bool(bool),
    Integer(i64),
    Wide(u8),
    Real(f32),
    Text(String),
    Bytes(Vec<u8>),
}

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
    "0192f0c1-2b3c-7d4e-8f50-617283940a5b",
    "2013-01-01",
    "2013-01-01T05:00:00Z",
    "05:00:00",
    "PT1H30M",
    "UTC",
    "name@example.com",
    "https://example.com/",
];

/// What to try for a request, the examples of the schema first.
pub(super) fn samples(ask: Ask, node: Option<Node>, examples: &[Value]) -> Vec<Sample> {
    let mut samples: Vec<_> = examples.iter().filter_map(example).collect();
    match ask {
        Ask::Bool => samples.extend([false, true].map(Sample::Bool)),
        Ask::I8 => samples.extend(range(node, i8::MIN.into(), i8::MAX.into())),
        Ask::I16 => samples.extend(range(node, i16::MIN.into(), i16::MAX.into())),
        Ask::I32 => samples.extend(range(node, i32::MIN.into(), i32::MAX.into())),
        Ask::U8 => samples.extend(range(node, 0, u8::MAX.into())),
        Ask::U16 => samples.extend(range(node, 0, u16::MAX.into())),
        Ask::U32 => samples.extend(range(node, 0, u32::MAX.into())),
        Ask::I64 => samples.extend(range(node, i64::MIN, i64::MAX)),
        Ask::U64 | Ask::U128 | Ask::I128 => samples.extend([0, 1].map(Sample::Wide)),
        Ask::F32 | Ask::F64 => samples.extend([0.0, 1.5, -2.25].map(Sample::Real)),
        Ask::Char => samples.extend(["a", "Z", "1"].map(|one| Sample::Text(one.into()))),
        Ask::Text => samples.extend(texts(node)),
        Ask::Bytes => samples.extend(bytes(node).into_iter().map(Sample::Bytes)),
        // These are no single values.
        Ask::Option
        | Ask::Unit
        | Ask::UnitStruct(_)
        | Ask::Newtype(_)
        | Ask::Seq
        | Ask::Tuple(_)
        | Ask::TupleStruct(..)
        | Ask::Map
        | Ask::Struct(_)
        | Ask::Enum(_) => {}
    }
    samples
}

fn example(value: &Value) -> Option<Sample> {
    match value {
        Value::Bool(yes) => Some(Sample::Bool(*yes)),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Some(Sample::Integer(integer)),
            None => number.to_string().parse().ok().map(Sample::Real),
        },
        Value::String(text) => Some(Sample::Text(text.clone())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn range(node: Option<Node>, least: i64, most: i64) -> impl Iterator<Item = Sample> {
    let integers: Vec<i64> = match node.and_then(Node::logical) {
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
    let in_range = |integer: &i64| (least..=most).contains(integer);
    let mut fitting: Vec<_> = integers.into_iter().filter(in_range).collect();
    if fitting.is_empty() {
        fitting.extend([least, most]);
    }
    fitting.into_iter().map(Sample::Integer)
}

fn texts(node: Option<Node>) -> impl Iterator<Item = Sample> {
    let only_uuid = node.and_then(Node::logical) == Some(Logical::Uuid);
    let legal = move |text: &&str| !only_uuid || (text.len() == 36 && text.contains('-'));
    TEXTS.into_iter().filter(legal).map(|text| Sample::Text(text.into()))
}

fn bytes(node: Option<Node>) -> Vec<Vec<u8>> {
    let counted = |size: usize| (1..=u8::MAX).cycle().take(size).collect::<Vec<_>>();
    match node.map(|node| (node.shape(), node.logical())) {
        Some((Shape::Fixed(fixed), _)) => vec![counted(fixed.size), vec![0; fixed.size]],
        Some((_, Some(Logical::Uuid))) => vec![counted(16), vec![0; 16]],
        Some((_, Some(Logical::BigDecimal))) => {
            let mut number = Vec::new();
            put_bytes(&mut number, &[0x30, 0x39]);
            put_long(&mut number, 2);
            vec![number]
        }
        Some((_, Some(Logical::Decimal { .. }))) => vec![vec![0x30, 0x39], vec![0xff]],
        Some(_) | None => vec![vec![], vec![0], counted(3), counted(16)],
    }
}

impl Sample {
    /// Appends the value as the datum of a place that [suits](Ask::suits) it; `None` if it does not.
    pub(super) fn put(&self, node: Node, out: &mut Vec<u8>) -> Option<()> {
        match (self, node.shape()) {
            (Self::Bool(yes), Shape::Boolean) => out.push((*yes).into()),
            (Self::Integer(integer), Shape::Int | Shape::Long) => put_long(out, *integer),
            (Self::Wide(number), Shape::Fixed(fixed)) => {
                let wide = u128::from(*number).to_le_bytes();
                out.extend_from_slice(wide.get(..fixed.size)?);
            }
            (Self::Real(real), Shape::Float) => out.extend(real.to_le_bytes()),
            (Self::Real(real), Shape::Double) => out.extend(f64::from(*real).to_le_bytes()),
            (Self::Text(text), Shape::String) => put_bytes(out, text.as_bytes()),
            (Self::Bytes(bytes), Shape::Bytes) => put_bytes(out, bytes),
            (Self::Bytes(bytes), Shape::Fixed(_)) => out.extend_from_slice(bytes),
            (_, _) => return None,
        }
        Some(())
    }

    /// Hands the value to a type as the library would.
    pub(super) fn feed<'de, V: Visitor<'de>>(
        self,
        ask: Ask,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        match self {
            Self::Bool(yes) => visitor.visit_bool(yes),
            Self::Integer(integer) => feed_integer(integer, ask, visitor),
            Self::Wide(number) if ask == Ask::I128 => visitor.visit_i128(number.into()),
            Self::Wide(number) if ask == Ask::U128 => visitor.visit_u128(number.into()),
            Self::Wide(number) => visitor.visit_u64(number.into()),
            Self::Real(real) if ask == Ask::F32 => visitor.visit_f32(real),
            Self::Real(real) => visitor.visit_f64(real.into()),
            Self::Text(text) => match text.parse::<char>().ok().filter(|_| ask == Ask::Char) {
                Some(character) => visitor.visit_char(character),
                None => visitor.visit_string(text),
            },
            Self::Bytes(bytes) => visitor.visit_byte_buf(bytes),
        }
    }
}

fn feed_integer<'de, V: Visitor<'de>>(
    integer: i64,
    ask: Ask,
    visitor: V,
) -> Result<V::Value, FitError> {
    let refused = |error: std::num::TryFromIntError| {
        FitError::Refusal(format!("example {integer} for {ask}: {error}"))
    };
    match ask {
        Ask::I8 => visitor.visit_i8(i8::try_from(integer).map_err(refused)?),
        Ask::I16 => visitor.visit_i16(i16::try_from(integer).map_err(refused)?),
        Ask::I32 => visitor.visit_i32(i32::try_from(integer).map_err(refused)?),
        Ask::U8 => visitor.visit_u8(u8::try_from(integer).map_err(refused)?),
        Ask::U16 => visitor.visit_u16(u16::try_from(integer).map_err(refused)?),
        Ask::U32 => visitor.visit_u32(u32::try_from(integer).map_err(refused)?),
        _wider => visitor.visit_i64(integer),
    }
}
