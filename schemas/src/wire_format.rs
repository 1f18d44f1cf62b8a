//! How a message says which schema wrote its Avro datum: Confluent's wire formats, or a URI.
//!
//! In Confluent's prefix, five bytes precede the datum: a zero, then the registry's schema id, big
//! endian. In its header framing, the same bytes are a header
//! (<https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>).

use std::fmt;

use thiserror::Error;

const PREFIX_BYTES: usize = 5;

/// The id under which a schema registry knows a schema.
///
/// It is valid in one registry only; an event stores its [`Fingerprint`](crate::Fingerprint).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId(pub u32);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The header of the schema's id in [`Framing::Header`].
pub const SCHEMA_ID_HEADER: &str = "__value_schema_id";

/// Where a message names the schema of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Framing {
    /// Before the datum: Confluent's prefix, which all its clients and most others read.
    #[default]
    Prefix,
    /// In the header [`SCHEMA_ID_HEADER`], as Confluent's newer clients do. The value is an Avro
    /// datum.
    Header,
    /// In the CloudEvents attribute `dataschema` only. The value is an Avro datum.
    None,
}

impl Framing {
    /// The type of the content, which says what the bytes of the value are.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prefix => "application/vnd.confluent.avro",
            Self::Header | Self::None => "application/avro",
        }
    }

    /// Its name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Header => "header",
            Self::None => "none",
        }
    }

    /// The framing of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Prefix, Self::Header, Self::None].into_iter().find(|framing| framing.name() == name)
    }

    /// The value of a message.
    #[must_use]
    pub fn value(self, id: SchemaId, datum: &[u8]) -> Vec<u8> {
        match self {
            Self::Prefix => to_wire_format(id, datum),
            Self::Header | Self::None => datum.to_owned(),
        }
    }
}

/// A message value that does not start with the Confluent prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireFormatError {
    /// Fewer than the 5 bytes of the prefix; some clients write a tombstone as an empty value.
    #[error("message value has {length_bytes} bytes, its schema prefix needs 5")]
    TooShort {
        /// The length of the value.
        length_bytes: usize,
    },
    /// The first byte is not 0; plain JSON, for example, starts with 0x7b.
    #[error("message value starts with byte {found:#04x}, not with the 0x00 of the schema prefix")]
    NoMagicByte {
        /// The first byte.
        found: u8,
    },
}

/// Puts the Confluent prefix before an Avro datum.
///
/// ```
/// use annals_schemas::{SchemaId, from_wire_format, to_wire_format};
///
/// let value = to_wire_format(SchemaId(7), b"datum");
/// assert_eq!(value, b"\0\0\0\0\x07datum");
/// assert_eq!(from_wire_format(&value)?, (SchemaId(7), &b"datum"[..]));
/// # Ok::<(), annals_schemas::WireFormatError>(())
/// ```
#[must_use]
pub fn to_wire_format(id: SchemaId, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(PREFIX_BYTES + payload.len());
    value.push(0);
    value.extend_from_slice(&id.0.to_be_bytes());
    value.extend_from_slice(payload);
    value
}

/// Splits a message value into the schema's id and the Avro datum.
///
/// # Errors
/// [`WireFormatError`] if the value does not start with the prefix.
pub fn from_wire_format(value: &[u8]) -> Result<(SchemaId, &[u8]), WireFormatError> {
    match value {
        [0, a, b, c, d, payload @ ..] => {
            Ok((SchemaId(u32::from_be_bytes([*a, *b, *c, *d])), payload))
        }
        [found, ..] if *found != 0 => Err(WireFormatError::NoMagicByte { found: *found }),
        short => Err(WireFormatError::TooShort { length_bytes: short.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_framing_has_its_name_and_its_value() {
        for framing in [Framing::Prefix, Framing::Header, Framing::None] {
            assert_eq!(Framing::of(framing.name()), Some(framing));
            let prefix: &[u8] =
                if framing == Framing::Prefix { b"\x00\x00\x00\x00\x07" } else { b"" };
            assert_eq!(framing.value(SchemaId(7), b"datum"), [prefix, b"datum"].concat());
        }
        assert_eq!(Framing::of("confluent"), None);
    }

    #[test]
    fn a_prefixed_value_is_split_again() {
        let value = to_wire_format(SchemaId(0x0102_0304), b"datum");
        assert_eq!(value, b"\x00\x01\x02\x03\x04datum");
        assert_eq!(from_wire_format(&value), Ok((SchemaId(0x0102_0304), b"datum".as_slice())));
        assert_eq!(
            from_wire_format(&to_wire_format(SchemaId(u32::MAX), b"")),
            Ok((SchemaId(u32::MAX), &b""[..]))
        );
    }

    #[test]
    fn a_value_without_the_prefix_is_refused() {
        assert_eq!(from_wire_format(b""), Err(WireFormatError::TooShort { length_bytes: 0 }));
        assert_eq!(
            from_wire_format(b"\x00\x00\x00\x01"),
            Err(WireFormatError::TooShort { length_bytes: 4 })
        );
        assert_eq!(
            from_wire_format(b"{\"a\": 1}"),
            Err(WireFormatError::NoMagicByte { found: b'{' })
        );
    }
}
