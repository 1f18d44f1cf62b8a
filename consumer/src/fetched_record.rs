//! Records that were fetched: events, and records that are none.

use annals_schemas::to_wire_format;
use uuid::Uuid;

use crate::envelope::Delivered;
use crate::envelope_error::EnvelopeError;
use crate::position::RecordLocation;
use crate::raw_record::RecordBytes;

/// A record as an event, or the reason why it is none.
pub(crate) type FetchedRecord = Result<Delivered, EnvelopeError>;

impl RecordBytes {
    /// The key of an event's record, its value behind Confluent's prefix, and its own headers,
    /// without those of the topic contract.
    pub(crate) fn of(event: &Delivered) -> Self {
        let headers = event.headers.iter();
        Self {
            key: Some(event.stream.clone().into_bytes()),
            value: Some(to_wire_format(event.schema_id, &event.payload)),
            headers: headers.map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
        }
    }
}

/// The location of a record.
pub(crate) fn location(record: &FetchedRecord) -> RecordLocation {
    match record {
        Ok(delivered) => delivered.location(),
        Err(error) => error.location.clone(),
    }
}

/// Tells the record from another one at the same offset of a topic that was created again: the
/// event's id, or a hash.
pub(crate) fn identity(record: &FetchedRecord) -> Uuid {
    match record {
        Ok(delivered) => delivered.event_id,
        Err(error) => error.record.identity(),
    }
}

/// The size of a record's value.
pub(crate) fn value_bytes(record: &FetchedRecord) -> usize {
    match record {
        Ok(delivered) => delivered.payload.len(),
        Err(error) => error.record.value.as_ref().map_or(0, Vec::len),
    }
}
