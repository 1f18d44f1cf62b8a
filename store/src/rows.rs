//! Rows of the events table, as events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use annals_schemas::{Fingerprint, Schema};
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use crate::error::Error;
use crate::event::{Metadata, RecordedEvent};
use crate::pgtime::PgTimestamp;
use crate::store::Store;
use crate::stream::{Position, StreamName, Version};

/// What rows are.
pub(crate) struct Recorded {
    /// Events, in the order of the rows.
    pub(crate) events: VecDeque<RecordedEvent>,
    /// Why the row after them is none; nothing behind it is read.
    pub(crate) unreadable: Option<Error>,
}

/// The events of rows, in their order, but for those that are passed; loads the schemas that are not known yet.
pub(crate) async fn recorded(
    store: &Store,
    rows: &[PgRow],
    passed: &BTreeSet<Position>,
) -> Result<Recorded, Error> {
    let mut recorded = Recorded { events: VecDeque::with_capacity(rows.len()), unreadable: None };
    let places = rows.iter().map(Place::read).collect::<Result<Vec<_>, _>>();
    let places = places.map_err(Error::database("read events"))?;
    let schemas = schemas(store, &places).await?;
    for (row, place) in rows.iter().zip(places) {
        if passed.contains(&place.position) {
            continue;
        }
        match event(store, row, &place, &schemas).await {
            Ok(event) => recorded.events.push_back(event),
            Err(error @ Error::UnreadableEvent { .. }) => {
                recorded.unreadable = Some(error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(recorded)
}

type Schemas = BTreeMap<Fingerprint, Schema>;

/// The schemas of all rows at once; none where one of them is not readable, and then each is asked for by itself.
async fn schemas(store: &Store, places: &[Place]) -> Result<Schemas, Error> {
    match store.schemas(places.iter().map(|place| place.fingerprint).collect()).await {
        Err(Error::Unreadable { .. }) => Ok(Schemas::new()),
        found => found,
    }
}

async fn event(
    store: &Store,
    row: &PgRow,
    place: &Place,
    schemas: &Schemas,
) -> Result<RecordedEvent, Error> {
    let schema = match schemas.get(&place.fingerprint) {
        Some(schema) => *schema,
        None => place.schema(store).await?,
    };
    let stream = StreamName::new(place.stream.clone());
    let stream = stream.map_err(|error| place.unreadable(error.to_string()))?;
    let fields = Fields::read(row).map_err(|error| place.unreadable(error.to_string()))?;
    Ok(RecordedEvent {
        position: place.position,
        stream,
        version: Version::from_store(place.version),
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

/// Which event a row is of, and what is needed to read it.
struct Place {
    position: Position,
    stream: String,
    version: i64,
    fingerprint: Fingerprint,
}

impl Place {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            position: Position::from_store(row.try_get("position")?),
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

struct Fields {
    event_id: uuid::Uuid,
    event_type: String,
    recorded_at: PgTimestamp,
    payload: Vec<u8>,
    metadata: Json<Metadata>,
    headers: Json<BTreeMap<String, String>>,
}

impl Fields {
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
