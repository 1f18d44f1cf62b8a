//! The fields of all event types of a category, as the columns of one table.

use std::collections::BTreeMap;

use annals_schemas::Schema;
use serde_json::{Map, Value};

/// A column, of the fields of one name.
pub(super) struct Column {
    pub(super) name: String,
    /// The type, or why there is none that fits all fields of the name.
    pub(super) of: Result<ColumnType, String>,
}

/// The types of columns for Avro's types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ColumnType {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Symbol,
    Date,
    Time,
    /// Digits behind the second.
    Timestamp(u8),
    LocalTimestamp(u8),
    Decimal {
        precision: u64,
        scale: u64,
    },
    Array(Box<Self>),
    Map(Box<Self>),
    Row(Vec<(String, Self)>),
}

/// The columns of the newest version of each event type.
pub(super) fn columns(schemas: &[Schema]) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for schema in schemas {
        // A parsed definition is JSON.
        let definition: Value = serde_json::from_str(schema.definition()).unwrap_or_default();
        let mut types = Types { named: BTreeMap::new() };
        for field in definition["fields"].as_array().into_iter().flatten() {
            let name = field["name"].as_str().unwrap_or_default();
            let of = types.of(&field["type"]);
            match columns.iter_mut().find(|column| column.name == name) {
                Some(known) if known.of != of => {
                    known.of = Err("event types have it with different types".to_owned());
                }
                Some(_) => {}
                None => columns.push(Column { name: name.to_owned(), of }),
            }
        }
    }
    columns
}

/// The named types of a definition, so far.
struct Types {
    named: BTreeMap<String, Result<ColumnType, String>>,
}

impl Types {
    fn of(&mut self, avro: &Value) -> Result<ColumnType, String> {
        match avro {
            Value::String(name) => self.named(name),
            Value::Array(branches) => {
                let mut others = branches.iter().filter(|branch| *branch != "null");
                match (others.next(), others.next()) {
                    (Some(only), None) => self.of(only),
                    (_, _) => Err("a union of several types is no column".to_owned()),
                }
            }
            Value::Object(avro) => self.object(avro),
            Value::Null | Value::Bool(_) | Value::Number(_) => Err("no type".to_owned()),
        }
    }

    fn named(&self, name: &str) -> Result<ColumnType, String> {
        Ok(match name {
            "boolean" => ColumnType::Boolean,
            "int" => ColumnType::Int,
            "long" => ColumnType::Long,
            "float" => ColumnType::Float,
            "double" => ColumnType::Double,
            "bytes" => ColumnType::Bytes,
            "string" => ColumnType::Text,
            name => {
                let short = name.rsplit('.').next().unwrap_or(name);
                return self
                    .named
                    .get(short)
                    .cloned()
                    .unwrap_or_else(|| Err(format!("type {name}")));
            }
        })
    }

    fn object(&mut self, avro: &Map<String, Value>) -> Result<ColumnType, String> {
        if let Some(logical) = avro.get("logicalType").and_then(Value::as_str)
            && let Some(of) = logical_type(logical, avro)
        {
            return Ok(of);
        }
        let of = &avro["type"];
        let found = match of.as_str() {
            Some("array") => Ok(ColumnType::Array(Box::new(self.of(&avro["items"])?))),
            Some("map") => Ok(ColumnType::Map(Box::new(self.of(&avro["values"])?))),
            Some("enum") => Ok(ColumnType::Symbol),
            Some("fixed") => Ok(ColumnType::Bytes),
            Some("record") => self.row(avro),
            Some(_) | None => return self.of(of),
        };
        if let Some(name) = avro.get("name").and_then(Value::as_str) {
            let short = name.rsplit('.').next().unwrap_or(name);
            self.named.insert(short.to_owned(), found.clone());
        }
        found
    }

    fn row(&mut self, avro: &Map<String, Value>) -> Result<ColumnType, String> {
        let fields = avro.get("fields").and_then(Value::as_array).into_iter().flatten();
        let fields = fields.map(|field| {
            let name = field["name"].as_str().unwrap_or_default().to_owned();
            Ok((name, self.of(&field["type"])?))
        });
        fields.collect::<Result<Vec<_>, String>>().map(ColumnType::Row)
    }
}

fn logical_type(logical: &str, avro: &Map<String, Value>) -> Option<ColumnType> {
    let number = |name: &str| avro.get(name).and_then(Value::as_u64);
    Some(match logical {
        "date" => ColumnType::Date,
        "time-millis" | "time-micros" => ColumnType::Time,
        "timestamp-millis" => ColumnType::Timestamp(3),
        "timestamp-micros" => ColumnType::Timestamp(6),
        "local-timestamp-millis" => ColumnType::LocalTimestamp(3),
        "local-timestamp-micros" => ColumnType::LocalTimestamp(6),
        "decimal" => ColumnType::Decimal {
            precision: number("precision")?,
            scale: number("scale").unwrap_or_default(),
        },
        _ => return None,
    })
}
