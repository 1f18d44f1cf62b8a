//! What a type wants from, or gives to, one place of its schema.

use std::fmt;

use crate::node::{Logical, Node, Shape};

/// A request of serde's data model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Bool,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Text,
    Bytes,
    Option,
    Unit,
    UnitStruct(&'static str),
    Newtype(&'static str),
    Seq,
    Tuple(usize),
    TupleStruct(&'static str, usize),
    Map,
    Struct(&'static str),
    Enum(&'static str),
}

impl Ask {
    /// Whether the library writes and reads this request at a place that is no union; the mapping
    /// is that of its `documentation::serde_data_model_to_avro`.
    fn suits_plain(self, node: Node) -> bool {
        let shape = node.shape();
        match self {
            Self::Bool => matches!(shape, Shape::Boolean),
            Self::I8 | Self::I16 | Self::I32 | Self::U8 | Self::U16 => matches!(shape, Shape::Int),
            Self::I64 | Self::U32 => matches!(shape, Shape::Long),
            Self::U64 => is_wide(shape, "org.apache.avro.rust.u64", 8),
            Self::I128 => is_wide(shape, "org.apache.avro.rust.i128", 16),
            Self::U128 => is_wide(shape, "org.apache.avro.rust.u128", 16),
            Self::F32 => matches!(shape, Shape::Float),
            Self::F64 => matches!(shape, Shape::Double),
            Self::Char => matches!(shape, Shape::String) && node.logical().is_none(),
            Self::Text => matches!(shape, Shape::String),
            Self::Bytes => matches!(shape, Shape::Bytes | Shape::Fixed(_)),
            Self::Option => false,
            Self::Unit | Self::Tuple(0) => matches!(shape, Shape::Null),
            Self::Tuple(1) => true,
            Self::Tuple(count) => is_record(shape, None, Some(count)),
            Self::UnitStruct(name) => is_record(shape, Some(name), Some(0)),
            Self::Newtype(name) => is_record(shape, Some(name), Some(1)),
            Self::TupleStruct(name, count) => is_record(shape, Some(name), Some(count)),
            Self::Struct(name) => is_record(shape, Some(name), None),
            Self::Seq => matches!(shape, Shape::Array(_)),
            Self::Map => matches!(shape, Shape::Map(_) | Shape::Record(_)),
            Self::Enum(_) => matches!(shape, Shape::Enum(_)),
        }
    }

    /// Whether the request fits a place, whichever branch of a union is taken there.
    pub(super) fn suits(self, node: Node) -> bool {
        match (node.shape(), self) {
            (Shape::Union(branches), Self::Option) => branches.as_option().is_some(),
            (Shape::Union(_), Self::Enum(_) | Self::Tuple(1)) => true,
            (Shape::Union(branches), _) => branches.iter().all(|branch| self.suits_plain(branch)),
            (_, _) => self.suits_plain(node),
        }
    }

    /// What would make it fit.
    pub(super) fn advice(self, node: Node) -> String {
        let shape = node.shape();
        match (self, shape) {
            (Self::Option, Shape::Union(_)) => "an Option is null and one other branch".into(),
            (Self::Option, _) => format!("drop the Option, or say [\"null\", {shape}]"),
            (Self::Newtype(name), _) => format!("put #[serde(transparent)] on {name}"),
            (_, Shape::Union(branches)) if branches.as_option().is_some() => {
                "use an Option, or take null out of the schema".into()
            }
            (Self::U64 | Self::U128 | Self::I128, _) => "Avro's widest integer is i64".into(),
            (Self::I64 | Self::U32, Shape::Int) => "use i32, or say long".into(),
            (Self::I8 | Self::I16 | Self::I32 | Self::U8 | Self::U16, Shape::Long) => {
                "use i64, or say int".into()
            }
            (Self::F32, Shape::Double) => "use f64, or say float".into(),
            (Self::F64, Shape::Float) => "use f32, or say double".into(),
            (Self::Bytes, Shape::String) if node.logical() == Some(Logical::Uuid) => {
                "a uuid::Uuid is 16 bytes here: say fixed of 16, or write it as text with \
                 #[serde(with = \"uuid::serde::hyphenated\")]"
                    .into()
            }
            (Self::Text, Shape::Int | Shape::Long) if node.logical().is_some() => {
                "write the number, as #[serde(with = \"timestamp_millis\")] does".into()
            }
            (Self::Seq | Self::Tuple(_), Shape::Bytes | Shape::Fixed(_)) => {
                "use #[serde(with = \"serde_bytes\")]".into()
            }
            (Self::Tuple(_), Shape::Array(_)) => "use a Vec".into(),
            (Self::Struct(name), Shape::Record(fields)) if fields.name() != name => {
                let record = fields.name();
                format!("name both the same, or put #[serde(rename = \"{record}\")] on {name}")
            }
            (_, _) => String::new(),
        }
    }
}

fn is_record(shape: Shape, name: Option<&str>, count: Option<usize>) -> bool {
    matches!(shape, Shape::Record(fields)
        if name.is_none_or(|name| fields.name() == name)
            && count.is_none_or(|count| fields.record.fields.len() == count))
}

/// The library's own form of integers wider than 64 bits with a sign.
fn is_wide(shape: Shape, name: &str, size: usize) -> bool {
    matches!(shape, Shape::Fixed(fixed)
        if fixed.size == size && fixed.name.fullname(None) == name)
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::I8 => f.write_str("i8"),
            Self::I16 => f.write_str("i16"),
            Self::I32 => f.write_str("i32"),
            Self::I64 => f.write_str("i64"),
            Self::I128 => f.write_str("i128"),
            Self::U8 => f.write_str("u8"),
            Self::U16 => f.write_str("u16"),
            Self::U32 => f.write_str("u32"),
            Self::U64 => f.write_str("u64"),
            Self::U128 => f.write_str("u128"),
            Self::F32 => f.write_str("f32"),
            Self::F64 => f.write_str("f64"),
            Self::Char => f.write_str("char"),
            Self::Text => f.write_str("text"),
            Self::Bytes => f.write_str("bytes"),
            Self::Option => f.write_str("an Option"),
            Self::Unit => f.write_str("()"),
            Self::UnitStruct(name) => write!(f, "unit struct {name}"),
            Self::Newtype(name) => write!(f, "newtype {name}"),
            Self::Seq => f.write_str("a sequence"),
            Self::Tuple(count) => write!(f, "a tuple of {count}"),
            Self::TupleStruct(name, count) => write!(f, "tuple struct {name} of {count}"),
            Self::Map => f.write_str("a map"),
            Self::Struct(name) => write!(f, "struct {name}"),
            Self::Enum(name) => write!(f, "enum {name}"),
        }
    }
}
