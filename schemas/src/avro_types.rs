//! A type within a schema: a shape and an optional logical type, instead of the library's 29 cases.

use std::fmt;

use apache_avro::Schema as Avro;
use apache_avro::schema::{
    EnumSchema, FixedSchema, InnerDecimalSchema, Name, NamesRef, RecordField, RecordSchema,
    UnionSchema, UuidSchema,
};

/// The named types of one schema, by full name.
pub(crate) type Names = NamesRef<'static>;

/// One type within a parsed schema.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    avro: &'static Avro,
    names: &'static Names,
}

/// The encoding of a type.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(&'static FixedSchema),
    Enum(&'static EnumSchema),
    Array(Node),
    Map(Node),
    Union(Branches),
    Record(Fields),
}

/// The logical type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logical {
    Date,
    TimeMillis,
    TimeMicros,
    TimestampMillis,
    TimestampMicros,
    TimestampNanos,
    LocalTimestampMillis,
    LocalTimestampMicros,
    LocalTimestampNanos,
    Decimal { precision: usize, scale: usize },
    BigDecimal,
    Uuid,
    Duration,
}

/// The branches of a union.
#[derive(Clone, Copy)]
pub(crate) struct Branches {
    union: &'static UnionSchema,
    names: &'static Names,
}

/// A record and its fields.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) record: &'static RecordSchema,
    names: &'static Names,
}

impl Node {
    /// Follows a reference to a named type: no caller sees references.
    pub(crate) fn new(avro: &'static Avro, names: &'static Names) -> Self {
        let followed = if let Avro::Ref { name } = avro { names.get(name) } else { None };
        Self { avro: followed.unwrap_or(&avro), names }
    }

    /// The type of the keys of a map.
    pub(crate) fn map_key(self) -> Self {
        static TEXT: Avro = Avro::String;
        self.with(&TEXT)
    }

    fn with(self, avro: &'static Avro) -> Self {
        Self::new(avro, self.names)
    }

    pub(crate) fn shape(self) -> Shape {
        match self.avro {
            // `Schema::parse` refuses a reference without a definition.
            Avro::Null | Avro::Ref { .. } => Shape::Null,
            Avro::Boolean => Shape::Boolean,
            Avro::Int | Avro::Date | Avro::TimeMillis => Shape::Int,
            Avro::Long
            | Avro::TimeMicros
            | Avro::TimestampMillis
            | Avro::TimestampMicros
            | Avro::TimestampNanos
            | Avro::LocalTimestampMillis
            | Avro::LocalTimestampMicros
            | Avro::LocalTimestampNanos => Shape::Long,
            Avro::Float => Shape::Float,
            Avro::Double => Shape::Double,
            Avro::Bytes | Avro::BigDecimal | Avro::Uuid(UuidSchema::Bytes) => Shape::Bytes,
            Avro::String | Avro::Uuid(UuidSchema::String) => Shape::String,
            Avro::Fixed(fixed) | Avro::Duration(fixed) | Avro::Uuid(UuidSchema::Fixed(fixed)) => {
                Shape::Fixed(fixed)
            }
            Avro::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Shape::Bytes,
                InnerDecimalSchema::Fixed(fixed) => Shape::Fixed(fixed),
            },
            Avro::Enum(symbols) => Shape::Enum(symbols),
            Avro::Array(array) => Shape::Array(self.with(&array.items)),
            Avro::Map(map) => Shape::Map(self.with(&map.types)),
            Avro::Union(union) => Shape::Union(Branches { union, names: self.names }),
            Avro::Record(record) => Shape::Record(Fields { record, names: self.names }),
        }
    }

    pub(crate) fn logical(self) -> Option<Logical> {
        match self.avro {
            Avro::Date => Some(Logical::Date),
            Avro::TimeMillis => Some(Logical::TimeMillis),
            Avro::TimeMicros => Some(Logical::TimeMicros),
            Avro::TimestampMillis => Some(Logical::TimestampMillis),
            Avro::TimestampMicros => Some(Logical::TimestampMicros),
            Avro::TimestampNanos => Some(Logical::TimestampNanos),
            Avro::LocalTimestampMillis => Some(Logical::LocalTimestampMillis),
            Avro::LocalTimestampMicros => Some(Logical::LocalTimestampMicros),
            Avro::LocalTimestampNanos => Some(Logical::LocalTimestampNanos),
            Avro::Decimal(decimal) => {
                Some(Logical::Decimal { precision: decimal.precision, scale: decimal.scale })
            }
            Avro::BigDecimal => Some(Logical::BigDecimal),
            Avro::Uuid(_) => Some(Logical::Uuid),
            Avro::Duration(_) => Some(Logical::Duration),
            Avro::Null
            | Avro::Boolean
            | Avro::Int
            | Avro::Long
            | Avro::Float
            | Avro::Double
            | Avro::Bytes
            | Avro::String
            | Avro::Array(_)
            | Avro::Map(_)
            | Avro::Union(_)
            | Avro::Record(_)
            | Avro::Enum(_)
            | Avro::Fixed(_)
            | Avro::Ref { .. } => None,
        }
    }
}

/// The compound types, each by its kind.
impl Node {
    pub(crate) fn record(self) -> Option<Fields> {
        if let Shape::Record(fields) = self.shape() { Some(fields) } else { None }
    }

    pub(crate) fn union(self) -> Option<Branches> {
        if let Shape::Union(branches) = self.shape() { Some(branches) } else { None }
    }

    pub(crate) fn items(self) -> Option<Self> {
        if let Shape::Array(items) = self.shape() { Some(items) } else { None }
    }

    pub(crate) fn values(self) -> Option<Self> {
        if let Shape::Map(values) = self.shape() { Some(values) } else { None }
    }

    pub(crate) fn full_name(self) -> Option<&'static Name> {
        match self.shape() {
            Shape::Record(fields) => Some(&fields.record.name),
            Shape::Enum(symbols) => Some(&symbols.name),
            Shape::Fixed(fixed) => Some(&fixed.name),
            Shape::Null
            | Shape::Boolean
            | Shape::Int
            | Shape::Long
            | Shape::Float
            | Shape::Double
            | Shape::Bytes
            | Shape::String
            | Shape::Array(_)
            | Shape::Map(_)
            | Shape::Union(_) => None,
        }
    }

    pub(crate) fn is_null(self) -> bool {
        matches!(self.shape(), Shape::Null)
    }
}

impl Shape {
    /// Whether both are of the same kind.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Branches {
    pub(crate) fn len(self) -> usize {
        self.union.variants().len()
    }

    pub(crate) fn get(self, index: usize) -> Option<Node> {
        self.union.variants().get(index).map(|branch| Node::new(branch, self.names))
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Node> {
        self.union.variants().iter().map(move |branch| Node::new(branch, self.names))
    }

    /// The other branch of a union of `null` and one branch, which is written as an `Option`.
    pub(crate) fn as_option(self) -> Option<Node> {
        let mut others = self.iter().filter(|branch| !branch.is_null());
        let only = others.next()?;
        (self.len() == 2 && others.next().is_none()).then_some(only)
    }
}

impl Fields {
    pub(crate) fn name(self) -> &'static str {
        self.record.name.name()
    }

    pub(crate) fn get(self, index: usize) -> Option<(&'static RecordField, Node)> {
        self.record.fields.get(index).map(|field| (field, Node::new(&field.schema, self.names)))
    }

    /// The index of a field in the record. (The record's own lookup finds aliases too.)
    pub(crate) fn position(self, name: &str) -> Option<usize> {
        self.record.fields.iter().position(|field| field.name == name)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = (&'static RecordField, Node)> {
        self.record.fields.iter().map(move |field| (field, Node::new(&field.schema, self.names)))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shape())?;
        match self.logical() {
            Some(logical) => write!(f, " ({logical})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean => f.write_str("boolean"),
            Self::Int => f.write_str("int"),
            Self::Long => f.write_str("long"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Bytes => f.write_str("bytes"),
            Self::String => f.write_str("string"),
            Self::Fixed(fixed) => write!(f, "fixed {} of {}", fixed.name.name(), fixed.size),
            Self::Enum(symbols) => write!(f, "enum {}", symbols.name.name()),
            Self::Array(items) => write!(f, "array of {items}"),
            Self::Map(values) => write!(f, "map of {values}"),
            Self::Union(branches) => {
                let branches: Vec<_> = branches.iter().map(|branch| branch.to_string()).collect();
                write!(f, "[{}]", branches.join(", "))
            }
            Self::Record(fields) => write!(f, "record {}", fields.name()),
        }
    }
}

impl fmt::Display for Logical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Date => f.write_str("date"),
            Self::TimeMillis => f.write_str("time-millis"),
            Self::TimeMicros => f.write_str("time-micros"),
            Self::TimestampMillis => f.write_str("timestamp-millis"),
            Self::TimestampMicros => f.write_str("timestamp-micros"),
            Self::TimestampNanos => f.write_str("timestamp-nanos"),
            Self::LocalTimestampMillis => f.write_str("local-timestamp-millis"),
            Self::LocalTimestampMicros => f.write_str("local-timestamp-micros"),
            Self::LocalTimestampNanos => f.write_str("local-timestamp-nanos"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Self::BigDecimal => f.write_str("big-decimal"),
            Self::Uuid => f.write_str("uuid"),
            Self::Duration => f.write_str("duration"),
        }
    }
}
