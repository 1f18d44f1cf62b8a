//! Kafka records before they are known to be events.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::position::{Offset, RecordLocation};

/// A Kafka record, borrowed from the client.
#[derive(Debug, Clone)]
pub(crate) struct RawRecord<'a> {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: Offset,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// The bytes of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordBytes {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none of a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl RawRecord<'_> {
    pub(crate) fn location(&self) -> RecordLocation {
        RecordLocation {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            offset: self.offset,
        }
    }

    pub(crate) fn to_bytes(&self) -> RecordBytes {
        let headers = self.headers.iter();
        RecordBytes {
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

impl RecordBytes {
    /// Identifies a record that has no event id, by a hash of its key and value.
    pub(crate) fn identity(&self) -> Uuid {
        let mut hash = Sha256::new();
        for part in [&self.key, &self.value] {
            let bytes = part.as_deref();
            hash.update([u8::from(bytes.is_some())]);
            hash.update(bytes.map_or(0, <[u8]>::len).to_be_bytes());
            hash.update(bytes.unwrap_or_default());
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut head = [0; 16];
        head.copy_from_slice(&digest[..16]);
        Builder::from_custom_bytes(head).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_are_no_events_are_told_apart_by_key_and_value() {
        let record = |key: Option<&[u8]>, value: Option<&[u8]>| {
            let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
            RecordBytes { key, value, headers: Vec::new() }.identity()
        };
        let ids = [
            record(None, None),
            record(Some(b""), None),
            record(None, Some(b"")),
            record(Some(b"a"), Some(b"bc")),
            record(Some(b"ab"), Some(b"c")),
        ];
        for (place, id) in ids.iter().enumerate() {
            assert!(!ids[..place].contains(id), "{place}");
        }
        assert_eq!(ids[3], record(Some(b"a"), Some(b"bc")));
    }
}
