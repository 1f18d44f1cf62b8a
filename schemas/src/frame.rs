//! The Confluent prefix: how a message says which registered schema wrote it.
//!
//! Five bytes before the Avro datum: a zero, then the registry's schema id, big endian
//! (<https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>).

use std::fmt;

use thiserror::Error;

const PREFIX_BYTES: usize = 5;

/// The id under which a schema registry knows a schema.
///
/// It means something to one registry only; what is stored with an event is its
/// [`Fingerprint`](crate::Fingerprint).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId(pub u32);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A message value that does not start with the Confluent prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Fewer than the 5 bytes of the prefix; an empty value is what a tombstone looks like.
    #[error("message value has {length_bytes} bytes, its schema prefix needs 5")]
    TooShort {
        /// What there was.
        length_bytes: usize,
    },
    /// Framed by something else: plain JSON starts with 0x7b, for instance.
    #[error("message value starts with byte {found:#04x}, not with the 0x00 of the schema prefix")]
    NotFramed {
        /// The first byte.
        found: u8,
    },
}

/// Puts the Confluent prefix before an Avro datum.
#[must_use]
pub fn frame(id: SchemaId, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(PREFIX_BYTES + payload.len());
    value.push(0);
    value.extend_from_slice(&id.0.to_be_bytes());
    value.extend_from_slice(payload);
    value
}

/// Takes a message value apart into the schema's id and the Avro datum.
///
/// # Errors
/// [`FrameError`] if the value does not start with the prefix.
pub fn unframe(value: &[u8]) -> Result<(SchemaId, &[u8]), FrameError> {
    match value {
        [0, a, b, c, d, payload @ ..] => {
            Ok((SchemaId(u32::from_be_bytes([*a, *b, *c, *d])), payload))
        }
        [found, ..] if *found != 0 => Err(FrameError::NotFramed { found: *found }),
        short => Err(FrameError::TooShort { length_bytes: short.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_framed_comes_apart_again() {
        let value = frame(SchemaId(0x0102_0304), b"datum");
        assert_eq!(value, b"\x00\x01\x02\x03\x04datum");
        assert_eq!(unframe(&value), Ok((SchemaId(0x0102_0304), b"datum".as_slice())));
        assert_eq!(unframe(&frame(SchemaId(u32::MAX), b"")), Ok((SchemaId(u32::MAX), &b""[..])));
    }

    #[test]
    fn what_was_never_framed_is_refused() {
        assert_eq!(unframe(b""), Err(FrameError::TooShort { length_bytes: 0 }));
        assert_eq!(unframe(b"\x00\x00\x00\x01"), Err(FrameError::TooShort { length_bytes: 4 }));
        assert_eq!(unframe(b"{\"a\": 1}"), Err(FrameError::NotFramed { found: b'{' }));
    }
}
