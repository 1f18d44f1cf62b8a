//! Decodes a payload into JSON, without a Rust type.

use serde_json::{Map, Value};

use crate::avro_types::{Fields, Logical, Node, Shape};
use crate::datum::{DatumError, DatumReader};
use crate::duration::AvroDuration;
use crate::personal::is_marked;
use crate::{decimal, times};

pub(crate) fn decode(root: Node, payload: &[u8]) -> Result<Value, DatumError> {
    let mut datum = DatumReader::new(payload);
    let value = read(root, &mut datum)?;
    datum.finish()?;
    Ok(value)
}

fn read(node: Node, datum: &mut DatumReader<'_>) -> Result<Value, DatumError> {
    Ok(match node.shape() {
        Shape::Null => Value::Null,
        Shape::Boolean => datum.boolean()?.into(),
        Shape::Int => number(node.logical(), datum.int()?.into()),
        Shape::Long => number(node.logical(), datum.long()?),
        Shape::Float => match f32::from_le_bytes(datum.array()?) {
            finite if finite.is_finite() => finite.into(),
            other => real(other.into()),
        },
        Shape::Double => real(f64::from_le_bytes(datum.array()?)),
        Shape::Bytes => bytes(node.logical(), datum.bytes()?),
        Shape::Fixed(fixed) => bytes(node.logical(), datum.take(fixed.size)?),
        Shape::String => datum.text()?.into(),
        Shape::Enum(of) => {
            let index = datum.index(of.symbols.len())?;
            of.symbols.get(index).map(String::as_str).into()
        }
        Shape::Union(branches) => {
            let index = datum.index(branches.len())?;
            match branches.get(index) {
                Some(branch) => read(branch, datum)?,
                None => Value::Null,
            }
        }
        Shape::Array(items) => read_array(items, datum)?,
        Shape::Map(values) => read_map(values, datum)?,
        Shape::Record(fields) => read_record(fields, datum)?,
    })
}

fn read_array(items: Node, datum: &mut DatumReader<'_>) -> Result<Value, DatumError> {
    let mut values = Vec::new();
    loop {
        let count = datum.block()?;
        if count == 0 {
            return Ok(Value::Array(values));
        }
        for _ in 0..count {
            values.push(read(items, datum)?);
        }
    }
}

fn read_map(of: Node, datum: &mut DatumReader<'_>) -> Result<Value, DatumError> {
    let mut values = Map::new();
    loop {
        let count = datum.block()?;
        if count == 0 {
            return Ok(Value::Object(values));
        }
        for _ in 0..count {
            let key = datum.text()?.to_owned();
            values.insert(key, read(of, datum)?);
        }
    }
}

fn read_record(fields: Fields, datum: &mut DatumReader<'_>) -> Result<Value, DatumError> {
    let read_field = |(field, node): (&apache_avro::schema::RecordField, Node)| {
        let value = read(node, datum)?;
        let value = if is_marked(field) { without_bytes(value) } else { value };
        Ok((field.name.clone(), value))
    };
    let values: Result<Map<_, _>, DatumError> = fields.iter().map(read_field).collect();
    values.map(Value::Object)
}

/// A personal value, for people: `sealed` or `erased` instead of its bytes.
fn without_bytes(value: Value) -> Value {
    match value {
        Value::Array(bytes) if !bytes.is_empty() && bytes.iter().all(Value::is_number) => {
            let is_erased = bytes.len() == 1;
            Value::from(if is_erased { "erased" } else { "sealed" })
        }
        Value::Array(values) => values.into_iter().map(without_bytes).collect(),
        Value::Object(values) => {
            values.into_iter().map(|(name, value)| (name, without_bytes(value))).collect()
        }
        other => other,
    }
}

/// A number beyond the range of its logical type stays a number.
fn number(logical: Option<Logical>, number: i64) -> Value {
    let text = logical.and_then(|logical| times::text(logical, number));
    text.map_or_else(|| number.into(), Value::String)
}

/// JSON has no number for these; the names are those of Java's JSON encoder.
fn real(real: f64) -> Value {
    if real.is_nan() {
        "NaN".into()
    } else if real.is_infinite() {
        if real > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        real.into()
    }
}

fn bytes(logical: Option<Logical>, bytes: &[u8]) -> Value {
    let text = match logical {
        Some(Logical::Decimal { scale, .. }) => decimal::text(bytes, scale),
        Some(Logical::Duration) => AvroDuration::from_bytes(bytes).map(|span| span.to_string()),
        Some(Logical::Uuid) => uuid(bytes),
        Some(
            Logical::Date
            | Logical::TimeMillis
            | Logical::TimeMicros
            | Logical::TimestampMillis
            | Logical::TimestampMicros
            | Logical::TimestampNanos
            | Logical::LocalTimestampMillis
            | Logical::LocalTimestampMicros
            | Logical::LocalTimestampNanos
            | Logical::BigDecimal,
        )
        | None => None,
    };
    text.map_or_else(|| bytes.into(), Value::String)
}

fn uuid(bytes: &[u8]) -> Option<String> {
    let number = u128::from_be_bytes(bytes.try_into().ok()?);
    let mut text = format!("{number:032x}");
    for place in [20, 16, 12, 8] {
        text.insert(place, '-');
    }
    Some(text)
}
