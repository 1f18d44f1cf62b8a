//! Reading: streams of events, a page at a time, each page one query by key.

use std::collections::{BTreeMap, VecDeque};

use annals_schemas::{EventSet, Fingerprint};
use futures_util::stream::{Stream, TryStreamExt, try_unfold};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Row, SqlStr};

use crate::error::Error;
use crate::event::{Metadata, RecordedEvent};
use crate::pgtime::PgTimestamp;
use crate::store::Store;
use crate::stream::{Category, Position, StreamName, Version};

/// Events of a page: what a reader holds in memory at most.
const PAGE_EVENTS: i64 = 500;

impl Store {
    /// Reads a stream forwards from a version, to where it ends when it is reached.
    ///
    /// No event if the stream does not exist. Memory is bounded by one page of 500 events.
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    pub fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<> {
        let query = PageQuery::new(self, self.statements().read_stream.clone(), stream.as_str());
        pages(query, from.get() - 1, |event| event.version.get())
    }

    /// Reads a category forwards by position, after a position or from its first event, to where it
    /// ends when it is reached.
    ///
    /// It is a view of what is committed, page by page: an event whose transaction commits while the
    /// reading goes on can have a lower position than one already read, and is then left out. Memory
    /// is bounded by one page of 500 events.
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    pub fn read_category(
        &self,
        category: &Category,
        after: Option<Position>,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<> {
        let query =
            PageQuery::new(self, self.statements().read_category.clone(), category.as_str());
        pages(query, after.map_or(0, Position::get), |event| event.position.get())
    }

    /// Reads a stream as values of the application's type, with their versions.
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read or an event not be decoded; the stream ends there.
    pub fn read_events<E: EventSet>(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<(Version, E), Error>> + Send + use<E> {
        self.read_stream(stream, from).and_then(|event| std::future::ready(decode(&event)))
    }

    /// The version of a stream's last event; `None` when there is no such stream.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn stream_version(&self, stream: &StreamName) -> Result<Option<Version>, Error> {
        let version: Option<i64> = sqlx::query_scalar(self.statements().stream_version.clone())
            .bind(stream.as_str())
            .fetch_optional(self.pool())
            .await
            .map_err(Error::database("read a stream's version"))?;
        Ok(version.map(Version::from_store))
    }
}

fn decode<E: EventSet>(event: &RecordedEvent) -> Result<(Version, E), Error> {
    let decoded = event.decode().map_err(|source| Error::Decode {
        stream: event.stream.clone(),
        version: event.version,
        source,
    })?;
    Ok((event.version, decoded))
}

struct PageQuery {
    store: Store,
    statement: SqlStr,
    of: String,
}

impl PageQuery {
    fn new(store: &Store, statement: SqlStr, of: &str) -> Self {
        Self { store: store.clone(), statement, of: of.to_owned() }
    }

    async fn page(&self, after: i64) -> Result<VecDeque<RecordedEvent>, Error> {
        let rows = sqlx::query(self.statement.clone())
            .bind(&self.of)
            .bind(after)
            .bind(PAGE_EVENTS)
            .fetch_all(self.store.pool())
            .await
            .map_err(Error::database("read events"))?;
        recorded(&self.store, &rows).await
    }
}

struct Reading {
    query: PageQuery,
    page: VecDeque<RecordedEvent>,
    after: i64,
    is_last: bool,
}

fn pages(
    query: PageQuery,
    after: i64,
    key: fn(&RecordedEvent) -> i64,
) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send {
    let begin = Reading { query, page: VecDeque::new(), after, is_last: false };
    try_unfold(begin, move |mut reading| async move {
        if reading.page.is_empty() && !reading.is_last {
            reading.page = reading.query.page(reading.after).await?;
            reading.after = reading.page.back().map_or(reading.after, key);
            reading.is_last = i64::try_from(reading.page.len()) != Ok(PAGE_EVENTS);
        }
        Ok(reading.page.pop_front().map(|event| (event, reading)))
    })
}

async fn recorded(store: &Store, rows: &[PgRow]) -> Result<VecDeque<RecordedEvent>, Error> {
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
        })
    }
}
