//! The Confluent wire format: an Avro datum with the id of the schema that wrote it.
//!
//! Five bytes precede the datum: a zero, then the registry's schema id, big endian
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
