//! Rows of the events table, as events.

use std::collections::{BTreeMap, VecDeque};

use annals_schemas::Fingerprint;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use crate::error::Error;
use crate::event::{Metadata, RecordedEvent};
use crate::pgtime::PgTimestamp;
use crate::store::Store;
use crate::stream::{Position, StreamName, Version};

/// The events of rows, in their order; loads the schemas that are not known yet.
pub(crate) async fn recorded(
    store: &Store,
    rows: &[PgRow],
) -> Result<VecDeque<RecordedEvent>, Error> {
    let fields = rows.iter().map(Fields::read).collect::<Result<Vec<_>, _>>();
    let fields = fields.map_err(Error::database("read events"))?;
    let schemas = store.schemas(fields.iter().map(|fields| fields.fingerprint).collect()).await?;
    fields.into_iter().map(|fields| fields.event(&schemas)).collect()
}

struct Fields {
    position: i64,
    stream: String,
    version: i64,
    event_id: uuid::Uuid,
    event_type: String,
    fingerprint: Fingerprint,
    recorded_at: PgTimestamp,
    payload: Vec<u8>,
    metadata: Json<Metadata>,
    headers: Json<BTreeMap<String, String>>,
}

impl Fields {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            position: row.try_get("position")?,
            stream: row.try_get("stream")?,
            version: row.try_get("version")?,
            event_id: row.try_get("event_id")?,
            event_type: row.try_get("event_type")?,
            fingerprint: row.try_get::<i64, _>("fingerprint")?.into(),
            recorded_at: row.try_get("recorded_at")?,
            payload: row.try_get("payload")?,
            metadata: row.try_get("metadata")?,
            headers: row.try_get("headers")?,
        })
    }

    fn event(
        self,
        schemas: &BTreeMap<Fingerprint, annals_schemas::Schema>,
    ) -> Result<RecordedEvent, Error> {
        let what = || format!("event {} of stream {:?}", self.version, self.stream);
        let unreadable = |reason: String| Error::Unreadable { what: what(), reason };
        let stream =
            StreamName::new(self.stream.clone()).map_err(|error| unreadable(error.to_string()))?;
        let schema = schemas.get(&self.fingerprint).copied();
        let schema = schema.ok_or_else(|| {
            unreadable(format!("its schema {} is not registered", self.fingerprint))
        })?;
        Ok(RecordedEvent {
            position: Position::from_store(self.position),
            stream,
            version: Version::from_store(self.version),
            id: self.event_id.into(),
            event_type: self.event_type,
            recorded_at: self.recorded_at.0,
            schema,
            payload: self.payload,
            metadata: self.metadata.0,
            headers: self.headers.0,
            removed_before: 0,
        })
    }
}
