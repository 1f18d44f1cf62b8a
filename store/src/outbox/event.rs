//! Events as the outbox passes them to its publisher.

use std::collections::BTreeMap;

use annals_schemas::Fingerprint;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use uuid::Uuid;

use crate::error::Error;
use crate::metadata::Metadata;
use crate::stream::{Position, Version};
use crate::timestamptz::PgTimestamp;

/// A row of the outbox, as the server sent it.
#[derive(Debug)]
pub struct OutboxRow(pub(crate) PgRow);

impl From<PgRow> for OutboxRow {
    /// A row of a statement with the columns of the outbox's statements, in their order.
    fn from(row: PgRow) -> Self {
        Self(row)
    }
}

impl OutboxRow {
    /// Decodes the event; its texts and payload are borrowed from the row.
    ///
    /// # Errors
    /// [`Error::Database`] if the row does not have the columns of the statement.
    pub fn event(&self) -> Result<OutboxEvent<'_>, Error> {
        outbox_event(&self.0).map_err(Error::database("read an event of the outbox"))
    }
}

/// An event as the outbox passes it to its publisher.
#[derive(Debug, Clone)]
pub struct OutboxEvent<'a> {
    /// Its number in the store.
    pub position: Position,
    /// The shard of its stream.
    pub shard: i16,
    /// Its stream.
    pub stream: &'a str,
    /// Its number in the stream.
    pub version: Version,
    /// Its id.
    pub event_id: Uuid,
    /// The category of its stream.
    pub category: &'a str,
    /// Its type.
    pub event_type: &'a str,
    /// The schema that it was encoded with.
    pub fingerprint: Fingerprint,
    /// The event in Avro, without prefix.
    pub payload: &'a [u8],
    /// Time, metadata and headers. An event with unreadable details cannot be published, but it is
    /// identified by the other fields.
    pub details: Result<Details, UnreadableDetail>,
}

/// Time, metadata and headers of an event.
#[derive(Debug, Clone)]
pub struct Details {
    /// When the event was recorded.
    pub recorded_at: Timestamp,
    /// The metadata.
    pub metadata: Metadata,
    /// The free headers.
    pub headers: BTreeMap<String, String>,
}

/// A column of an event has content that no append writes: another program wrote it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("its {column} cannot be read: {reason}")]
pub struct UnreadableDetail {
    /// The column of `events`.
    pub column: &'static str,
    /// The cause.
    pub reason: String,
}

/// Reads columns by index and without a type check: a lookup by name or a type check would cost as
/// much as the rest of the function, for each row.
fn outbox_event(row: &PgRow) -> Result<OutboxEvent<'_>, sqlx::Error> {
    let fingerprint: i64 = row.try_get_unchecked(7)?;
    Ok(OutboxEvent {
        position: row.try_get_unchecked(0)?,
        shard: row.try_get_unchecked(1)?,
        stream: row.try_get_unchecked(2)?,
        version: row.try_get_unchecked(3)?,
        event_id: row.try_get_unchecked(4)?,
        category: row.try_get_unchecked(5)?,
        event_type: row.try_get_unchecked(6)?,
        fingerprint: fingerprint.into(),
        payload: row.try_get_unchecked(9)?,
        details: details(row),
    })
}

fn details(row: &PgRow) -> Result<Details, UnreadableDetail> {
    let PgTimestamp(recorded_at) =
        row.try_get_unchecked(8).map_err(UnreadableDetail::of("recorded_at"))?;
    // The statement returns null for empty metadata and headers.
    let metadata: Option<Json<Metadata>> =
        row.try_get_unchecked(10).map_err(UnreadableDetail::of("metadata"))?;
    let headers: Option<Json<BTreeMap<String, String>>> =
        row.try_get_unchecked(11).map_err(UnreadableDetail::of("headers"))?;
    Ok(Details {
        recorded_at,
        metadata: metadata.map_or_else(Metadata::default, |Json(metadata)| metadata),
        headers: headers.map_or_else(BTreeMap::new, |Json(headers)| headers),
    })
}

impl UnreadableDetail {
    fn of(column: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |error| Self { column, reason: cause(error) }
    }
}

/// The cause, without the index of the column.
fn cause(error: sqlx::Error) -> String {
    match error {
        sqlx::Error::ColumnDecode { source, .. } | sqlx::Error::Decode(source) => {
            source.to_string()
        }
        other => other.to_string(),
    }
}
