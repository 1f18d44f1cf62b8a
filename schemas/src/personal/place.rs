//! The place of a personal value: it is authenticated with the value.

use std::borrow::Cow;

use crate::Schema;
use crate::personal::key::KeyId;
use crate::personal::walk;

/// The first byte of a personal field: an erased value.
pub(super) const ERASED: u8 = 0;
/// A sealed value, as recorded.
pub(super) const SEALED: u8 = 1;
/// A sealed value behind its place, within the process and in snapshots.
pub(super) const PLACED: u8 = 2;
/// An open value that is about to be sealed: an index into the values of its event.
pub(super) const OPEN: u8 = 0xf0;

/// A field of an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldPlace<'a> {
    pub(super) event_id: [u8; 16],
    pub(super) event_type: &'a str,
    pub(super) path: &'a str,
}

impl<'a> FieldPlace<'a> {
    /// The bytes that are authenticated.
    pub(super) fn authenticated(&self, key: KeyId) -> Vec<u8> {
        let mut bytes = b"annals personal 1".to_vec();
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(&self.event_id);
        bytes.extend_from_slice(&length(self.event_type));
        bytes.extend_from_slice(self.event_type.as_bytes());
        bytes.extend_from_slice(self.path.as_bytes());
        bytes
    }

    /// A sealed value with its place in front.
    fn put_before(&self, sealed: &[u8]) -> Vec<u8> {
        let mut bytes = vec![PLACED];
        bytes.extend_from_slice(&self.event_id);
        for text in [self.event_type, self.path] {
            bytes.extend_from_slice(&length(text));
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(sealed);
        bytes
    }

    /// The place in front of a sealed value, and the value.
    pub(super) fn take_from(placed: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let rest = placed.strip_prefix(&[PLACED])?;
        let (event_id, rest) = rest.split_first_chunk::<16>()?;
        let (event_type, rest) = take_text(rest)?;
        let (path, sealed) = take_text(rest)?;
        Some((Self { event_id: *event_id, event_type, path }, sealed))
    }
}

fn length(text: &str) -> [u8; 4] {
    // No field of an event is longer.
    u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes()
}

fn take_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// A recorded payload whose sealed values have their places in front, so that a decoded
/// [`Personal`](crate::personal::Personal) can be opened. The payload itself, if its schema marks
/// no field.
///
/// Readers call it before [`EventSet::decode`](crate::EventSet::decode). Bytes that are no datum of
/// the schema are returned as they are: decoding them finds the fault.
#[must_use]
pub fn placed<'a>(
    schema: &Schema,
    event_id: [u8; 16],
    event_type: &str,
    payload: &'a [u8],
) -> Cow<'a, [u8]> {
    if !schema.has_personal_fields() {
        return Cow::Borrowed(payload);
    }
    let put_place = |path: &str, value: &[u8]| match value {
        [SEALED, ..] => Ok(FieldPlace { event_id, event_type, path }.put_before(value)),
        other => Ok::<_, std::convert::Infallible>(other.to_vec()),
    };
    walk::rewrite(schema.root(), payload, put_place).map_or(Cow::Borrowed(payload), Cow::Owned)
}
