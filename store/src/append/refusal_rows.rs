//! Refusals as the append function returns them, in JSON.

use std::collections::BTreeMap;

use annals_schemas::{Fingerprint, Schema};
use jiff::Timestamp;
use serde::Deserialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{AppendError, Conflict, Refusal, TagConflict};
use crate::event::{EventId, RecordedEvent};
use crate::metadata::Metadata;
use crate::store::Store;
use crate::stream::{ExpectedVersion, Position, StreamName, Version};
use crate::tag::Tag;

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum RefusalRow {
    Conflict { stream: StreamName, expected: i64, actual: Option<Version>, events: Vec<EventRow> },
    IdTaken { event_id: Uuid, stream: String, differs: Vec<String> },
    PartlyKnown { event_ids: Vec<Uuid> },
    IllegalStream { stream: String },
    UnknownSchema { category: String, fingerprint: i64 },
    Malformed { event_id: Uuid, field: String },
    OtherCluster { recorded: String, found: String },
    StreamClosed { stream: StreamName, closed_at: Timestamp },
    TagConflict { tag: Tag, after: Position, last: Position, events: Vec<EventRow> },
    Isolation { found: String },
}

#[derive(Debug, Deserialize)]
pub(crate) struct EventRow {
    position: Position,
    stream: StreamName,
    version: Version,
    event_id: Uuid,
    event_type: String,
    fingerprint: i64,
    recorded_at: Timestamp,
    payload: String,
    metadata: Metadata,
    headers: BTreeMap<String, String>,
}

/// Decodes refusals. Loads unknown schemas of the events in conflicts.
pub(crate) async fn refusals(
    store: &Store,
    connection: &mut PgConnection,
    rows: Vec<RefusalRow>,
) -> Result<Vec<Refusal>, AppendError> {
    let conflict_events = rows.iter().flat_map(|row| match row {
        RefusalRow::Conflict { events, .. } | RefusalRow::TagConflict { events, .. } => {
            events.as_slice()
        }
        RefusalRow::IdTaken { .. }
        | RefusalRow::PartlyKnown { .. }
        | RefusalRow::IllegalStream { .. }
        | RefusalRow::UnknownSchema { .. }
        | RefusalRow::Malformed { .. }
        | RefusalRow::OtherCluster { .. }
        | RefusalRow::StreamClosed { .. }
        | RefusalRow::Isolation { .. } => &[],
    });
    let fingerprints = conflict_events.map(|event| Fingerprint::from(event.fingerprint)).collect();
    let schemas =
        store.schemas_on(connection, fingerprints).await.map_err(|error| match error {
            crate::Error::Database { source, .. } => AppendError::Failed(source),
            other => AppendError::Failed(sqlx::Error::Decode(Box::new(other))),
        })?;
    Ok(rows.into_iter().map(|row| refusal(row, &schemas)).collect())
}

fn refusal(row: RefusalRow, schemas: &BTreeMap<Fingerprint, Schema>) -> Refusal {
    match row {
        RefusalRow::Conflict { stream, expected, actual, events } => Refusal::Conflict(Conflict {
            stream,
            // The server returns the number that this append sent.
            expected: ExpectedVersion::from_store(expected).unwrap_or(ExpectedVersion::Any),
            actual,
            events: recorded_events(events, schemas),
        }),
        RefusalRow::TagConflict { tag, after, last, events } => {
            let events = recorded_events(events, schemas);
            Refusal::TagConflict(TagConflict { tag, after, last, events })
        }
        RefusalRow::Isolation { found } => Refusal::Isolation { found },
        RefusalRow::IdTaken { event_id, stream, differs } => {
            Refusal::IdTaken { event_id: event_id.into(), stream, differs }
        }
        RefusalRow::PartlyKnown { event_ids } => {
            Refusal::PartlyKnown { event_ids: event_ids.into_iter().map(EventId::from).collect() }
        }
        RefusalRow::IllegalStream { stream } => Refusal::IllegalStream { stream },
        RefusalRow::UnknownSchema { category, fingerprint } => {
            Refusal::UnknownSchema { category, fingerprint: fingerprint.into() }
        }
        RefusalRow::Malformed { event_id, field } => {
            Refusal::Malformed { event_id: event_id.into(), field }
        }
        RefusalRow::OtherCluster { recorded, found } => Refusal::OtherCluster { recorded, found },
        RefusalRow::StreamClosed { stream, closed_at } => {
            Refusal::StreamClosed { stream, closed_at }
        }
    }
}

fn recorded_events(
    rows: Vec<EventRow>,
    schemas: &BTreeMap<Fingerprint, Schema>,
) -> Vec<RecordedEvent> {
    rows.into_iter().filter_map(|event| recorded_event(event, schemas)).collect()
}

fn recorded_event(row: EventRow, schemas: &BTreeMap<Fingerprint, Schema>) -> Option<RecordedEvent> {
    Some(RecordedEvent {
        position: row.position,
        stream: row.stream,
        version: row.version,
        id: row.event_id.into(),
        event_type: row.event_type,
        recorded_at: row.recorded_at,
        schema: *schemas.get(&row.fingerprint.into())?,
        payload: from_hex(&row.payload)?,
        metadata: row.metadata,
        headers: row.headers,
        removed_before: 0,
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes()
        .chunks(2)
        .map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?))
        .collect()
}
