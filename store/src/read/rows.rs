//! Decoding of rows of the events table.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use annals_schemas::{DecodeError, EventSet, Fingerprint, Schema, UnknownEvents};
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use crate::error::Error;
use crate::event::RecordedEvent;
use crate::metadata::Metadata;
use crate::store::Store;
use crate::stream::{Position, StreamName, Version};
use crate::timestamptz::PgTimestamp;

/// The events of a page of rows.
pub(crate) struct DecodedRows {
    /// Events, in the order of the rows.
    pub(crate) events: VecDeque<RecordedEvent>,
    /// The error of the row after them; rows behind it are not decoded.
    pub(crate) unreadable: Option<Error>,
}

/// Maximum number of payload bytes of a page, which a reader keeps in memory. The last event can
/// exceed it.
pub(crate) const PAGE_BYTES: i64 = 4 * 1024 * 1024;

/// Whether a page has its maximum number of bytes, so that more rows can follow.
pub(crate) fn is_full(rows: &[PgRow]) -> Result<bool, Error> {
    let mut bytes = 0;
    for row in rows {
        let payload: &[u8] = row.try_get("payload").map_err(Error::database("read events"))?;
        bytes += payload.len();
    }
    Ok(i64::try_from(bytes).is_ok_and(|bytes| bytes >= PAGE_BYTES))
}

/// Decodes rows in their order, without the events at `skipped` positions. Loads unknown schemas.
pub(crate) async fn decode_rows(
    store: &Store,
    rows: &[PgRow],
    skipped: &BTreeSet<Position>,
) -> Result<DecodedRows, Error> {
    let mut decoded = DecodedRows { events: VecDeque::with_capacity(rows.len()), unreadable: None };
    let keys = rows.iter().map(RowKey::read).collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(Error::database("read events"))?;
    let schemas = schemas(store, &keys).await?;
    for (row, key) in rows.iter().zip(keys) {
        if skipped.contains(&key.position) {
            continue;
        }
        match event(store, row, &key, &schemas).await {
            Ok(event) => decoded.events.push_back(event),
            Err(error @ Error::UnreadableEvent { .. }) => {
                decoded.unreadable = Some(error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(decoded)
}

type Schemas = BTreeMap<Fingerprint, Schema>;

/// The schemas of all rows; empty if one of them is unreadable, and [`event`] loads each one then.
async fn schemas(store: &Store, keys: &[RowKey]) -> Result<Schemas, Error> {
    match store.schemas(keys.iter().map(|key| key.fingerprint).collect()).await {
        Err(Error::Unreadable { .. }) => Ok(Schemas::new()),
        found => found,
    }
}

async fn event(
    store: &Store,
    row: &PgRow,
    key: &RowKey,
    schemas: &Schemas,
) -> Result<RecordedEvent, Error> {
    let schema = match schemas.get(&key.fingerprint) {
        Some(schema) => *schema,
        None => key.schema(store).await?,
    };
    let stream = StreamName::new(key.stream.clone());
    let stream = stream.map_err(|error| key.unreadable(error.to_string()))?;
    let fields = EventFields::read(row).map_err(|error| key.unreadable(error.to_string()))?;
    Ok(RecordedEvent {
        position: key.position,
        stream,
        version: key.version,
        id: fields.event_id.into(),
        event_type: fields.event_type,
        recorded_at: fields.recorded_at.0,
        schema,
        payload: fields.payload,
        metadata: fields.metadata.0,
        headers: fields.headers.0,
        removed_before: 0,
    })
}

/// The columns that identify an event, and its schema.
struct RowKey {
    position: Position,
    stream: String,
    version: Version,
    fingerprint: Fingerprint,
}

impl RowKey {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            position: row.try_get("position")?,
            stream: row.try_get("stream")?,
            version: row.try_get("version")?,
            fingerprint: row.try_get::<i64, _>("fingerprint")?.into(),
        })
    }

    async fn schema(&self, store: &Store) -> Result<Schema, Error> {
        match store.schemas([self.fingerprint].into()).await {
            Ok(schemas) => schemas
                .get(&self.fingerprint)
                .copied()
                .ok_or_else(|| self.unreadable("its schema is not registered".to_owned())),
            Err(error @ Error::Unreadable { .. }) => Err(self.unreadable(error.to_string())),
            Err(error) => Err(error),
        }
    }

    fn unreadable(&self, reason: String) -> Error {
        let Self { position, stream, version, .. } = self;
        let (position, version) = (*position, *version);
        Error::UnreadableEvent { stream: stream.clone(), version, position, reason }
    }
}

struct EventFields {
    event_id: uuid::Uuid,
    event_type: String,
    recorded_at: PgTimestamp,
    payload: Vec<u8>,
    metadata: Json<Metadata>,
    headers: Json<BTreeMap<String, String>>,
}

impl EventFields {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            event_id: row.try_get("event_id")?,
            event_type: row.try_get("event_type")?,
            recorded_at: row.try_get("recorded_at")?,
            payload: row.try_get("payload")?,
            metadata: row.try_get("metadata")?,
            headers: row.try_get("headers")?,
        })
    }
}

/// Decodes an event as values of the application's type; none, if it is of an unknown type and
/// these are skipped.
pub(crate) fn decode<E: EventSet>(
    event: &RecordedEvent,
    unknown: UnknownEvents,
) -> Result<Vec<E>, Error> {
    match event.decode_all() {
        Ok(decoded) => Ok(decoded),
        Err(DecodeError::UnknownEventType { .. }) if unknown == UnknownEvents::Skip => {
            Ok(Vec::new())
        }
        Err(source) => {
            let (stream, version) = (event.stream.clone(), event.version);
            Err(Error::Decode { stream, version, source })
        }
    }
}
