//! The outbox, for whoever publishes it: windows of what became visible between two snapshots.
//!
//! Positions are drawn before commit, so they say nothing about what is still to come; transaction ids
//! are given out before an append, so they do not order a stream. What became visible between two
//! snapshots, in position order, is each event once, and each stream in version order: version n + 1
//! can only be written after the transaction of n has ended, and draws its position after that.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use annals_schemas::Fingerprint;
use futures_util::stream::{Stream, TryStreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres, Row, SqlStr};
use uuid::Uuid;

use crate::append::Appended;
use crate::error::Error;
use crate::event::Metadata;
use crate::pgtime::PgTimestamp;
use crate::store::Store;

/// Positions of one partition of the outbox, as in the migration.
const PARTITION_POSITIONS: i64 = 4_194_304;
/// Partitions are made while so many positions have one.
const POSITIONS_AHEAD: i64 = 4 * PARTITION_POSITIONS;
/// More are made when fewer positions than this are left.
pub(crate) const OUTBOX_LEFT_MIN: i64 = 2 * PARTITION_POSITIONS;
/// With fewer than this left, more are made even inside a caller's transaction.
const OUTBOX_LEFT_URGENT: i64 = PARTITION_POSITIONS;

/// Up to so many events below the begin of a window are found by transaction id; more, by position.
const LATE_EVENTS_MAX: i64 = 10_000;

/// Which history of which store. Two histories of one store can have parted: what was passed of one need not be in the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The store.
    pub store_id: Uuid,
    /// How often the store was adopted by another database cluster; 1 at first.
    pub number: i32,
    /// The database cluster's identifier; equal on its standbys.
    pub system_identifier: String,
    /// The timeline, in hexadecimal; it changes when a standby is promoted.
    pub timeline: String,
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { store_id, number, system_identifier, timeline } = self;
        write!(
            f,
            "store {store_id}, history {number}, cluster {system_identifier}, timeline {timeline}"
        )
    }
}

/// Where the log stood at a moment: an end of a window.
///
/// An event was visible then if its position is not above [`position`](Self::position), and it is not above
/// [`settled`](Self::settled) or its transaction is visible in the snapshot. The snapshot alone does not say it: after a crash, the
/// server gives out again the ids of transactions whose log was not flushed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bound {
    /// The transactions that had ended: a `pg_snapshot` as text.
    pub snapshot: String,
    /// The transaction id that was to be given out next.
    pub next_xid: i64,
    /// The highest visible position.
    pub position: i64,
    /// The event there; none before the first. What is above it in a history that lost it may have its position again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// Up to this position everything counts as visible, whatever its transaction id.
    pub settled: i64,
}

impl Bound {
    /// Before everything.
    #[must_use]
    pub fn origin() -> Self {
        Self { snapshot: "3:3:".to_owned(), next_xid: 3, position: 0, event_id: None, settled: 0 }
    }

    /// The event at the highest visible position, with that; none before the first.
    #[must_use]
    pub fn last(&self) -> Option<(i64, Uuid)> {
        Some((self.position, self.event_id?))
    }

    /// Whether the same events were visible at both.
    #[must_use]
    pub fn shows_the_same(&self, other: &Self) -> bool {
        let shown = |bound: &Self| (bound.position, bound.settled);
        shown(self) == shown(other) && self.snapshot == other.snapshot
    }

    /// Whether the log ends earlier here than at a bound that was taken before: it lost a part.
    #[must_use]
    pub const fn is_behind(&self, earlier: &Self) -> bool {
        self.position < earlier.position || self.next_xid < earlier.next_xid
    }

    /// Whether no transaction ran that may have written below the bound's position.
    fn is_quiet(&self) -> bool {
        let mut parts = self.snapshot.split(':').skip(1);
        let xmax = parts.next().and_then(|xmax| xmax.parse().ok());
        xmax == Some(self.next_xid) && parts.next().is_none_or(str::is_empty)
    }
}

/// The end of the log, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// Which history this is.
    pub history: History,
    /// Which run of it: changes with each restart of the server, promotion, restore and adoption.
    pub incarnation: Arc<str>,
    /// Where it ends.
    pub bound: Bound,
}

/// What became visible between two bounds.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Its begin: what was visible then is not in it.
    pub since: &'a Bound,
    /// Its end: what was visible then is in it.
    pub until: &'a Bound,
}

/// Events of a window that lie below the position where it begins: their transactions ran then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    first: i64,
    last: i64,
    is_sparse: bool,
}

impl Late {
    /// The lowest position of these events.
    pub(crate) const fn first_position(self) -> i64 {
        self.first
    }
}

/// What is to be read next of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// The few late events after a position, by their transaction ids.
    Late {
        /// The position.
        after: i64,
    },
    /// The positions after one, up to another.
    Positions(PositionPage),
    /// Nothing.
    Done,
}

impl Window<'_> {
    /// What is to be read after a position; 0: of all the window.
    #[must_use]
    pub fn stretch(self, late: Option<Late>, after: i64) -> Stretch {
        let begin = self.since.position;
        if let Some(Late { first, last, is_sparse }) = late.filter(|late| after < late.last) {
            let after = after.max(first - 1);
            if is_sparse {
                return Stretch::Late { after };
            }
            return Stretch::Positions(PositionPage { after, last });
        }
        let (after, last) = (after.max(begin), self.until.position);
        if after < last { Stretch::Positions(PositionPage { after, last }) } else { Stretch::Done }
    }
}

/// A row of the outbox, as it came from the server.
#[derive(Debug)]
pub struct OutboxRow(PgRow);

impl OutboxRow {
    /// The event in it; its texts and its payload stay where they are.
    ///
    /// # Errors
    /// [`Error::Database`] where the row is not what the statement asks for.
    pub fn event(&self) -> Result<OutboxEvent<'_>, Error> {
        outbox_event(&self.0).map_err(Error::database("read an event of the outbox"))
    }
}

/// An event as the outbox hands it to its publisher.
#[derive(Debug, Clone)]
pub struct OutboxEvent<'a> {
    /// Its number in the store.
    pub position: i64,
    /// The shard of its stream.
    pub shard: i16,
    /// Its stream.
    pub stream: &'a str,
    /// Its number in the stream.
    pub version: i64,
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
    /// What else there is about it. Where that is not what an append writes the event cannot be published, and
    /// which one it is is known all the same.
    pub details: Result<Details, UnreadableDetail>,
}

/// What stands beside an event.
#[derive(Debug, Clone)]
pub struct Details {
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// How it came to be.
    pub metadata: Metadata,
    /// Free headers.
    pub headers: BTreeMap<String, String>,
}

/// A column of an event is not what an append writes: somebody else has written it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("its {column} cannot be read: {reason}")]
pub struct UnreadableDetail {
    /// The column of `events`.
    pub column: &'static str,
    /// Why not.
    pub reason: String,
}

impl Store {
    /// Where the log ends now, and in which history.
    ///
    /// # Errors
    /// [`Error::OtherCluster`] where the store came here and is not adopted; [`Error::Database`].
    pub async fn outbox_bound(&self, connection: &mut PgConnection) -> Result<LogEnd, Error> {
        let row = sqlx::query(self.statements().outbox_bound.clone())
            .fetch_one(connection)
            .await
            .map_err(Error::database("take a snapshot"))?;
        let (cluster, end) = log_end(&row).map_err(Error::database("take a snapshot"))?;
        if cluster == end.history.system_identifier {
            return Ok(end);
        }
        Err(Error::OtherCluster { recorded: end.history.system_identifier, found: cluster })
    }

    /// Of events that were at these positions, the ids of those that are not there any more: the database has lost a part of its
    /// history. Removed events count as there.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn outbox_missing(
        &self,
        connection: &mut PgConnection,
        events: impl IntoIterator<Item = (i64, Uuid)>,
    ) -> Result<Vec<Uuid>, Error> {
        let (positions, ids): (Vec<i64>, Vec<Uuid>) = events.into_iter().unzip();
        sqlx::query_scalar(self.statements().outbox_missing.clone())
            .bind(positions)
            .bind(ids)
            .fetch_all(connection)
            .await
            .map_err(Error::database("look up the events at the ends of checkpoints"))
    }

    /// The events that windows from this bound on can have below its position.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn outbox_late(
        &self,
        connection: &mut PgConnection,
        since: &Bound,
    ) -> Result<Option<Late>, Error> {
        if since.is_quiet() {
            return Ok(None);
        }
        let row = sqlx::query(self.statements().outbox_late.clone())
            .bind(&since.snapshot)
            .bind(since.next_xid)
            .bind(since.position)
            .bind(since.settled)
            .fetch_one(connection)
            .await;
        row.and_then(|row| late(&row)).map_err(Error::database("find the late events of a window"))
    }

    /// A page of the few late events of some shards in a window, in position order. A page with fewer events than asked
    /// for is the last. Read as they arrive: what is not yet taken stays with the server.
    ///
    /// # Errors
    /// Items are [`Error::Database`]; the stream ends there.
    pub fn outbox_late_page<'c>(
        &self,
        connection: &'c mut PgConnection,
        window: Window<'_>,
        shards: &[i16],
        page: LivePage,
    ) -> impl Stream<Item = Result<OutboxRow, Error>> + Send + 'c + use<'c> {
        let Window { since, until } = window;
        sqlx::query(self.statements().outbox_late_page.clone())
            .bind(since.snapshot.clone())
            .bind(since.next_xid)
            .bind(since.position)
            .bind(since.settled)
            .bind(until.snapshot.clone())
            .bind(until.position)
            .bind(until.settled)
            .bind(page.after)
            .bind(shards.to_vec())
            .bind(i64::try_from(page.events_max.get()).unwrap_or(i64::MAX))
            .fetch(connection)
            .map_ok(OutboxRow)
            .map_err(Error::database_each("read the late events of a window"))
    }

    /// The events of some shards in a window between two positions, in position order. Read as
    /// they arrive: what is not yet taken stays with the server.
    ///
    /// # Errors
    /// Items are [`Error::Database`]; the stream ends there.
    pub fn outbox_page<'c>(
        &self,
        connection: &'c mut PgConnection,
        window: Window<'_>,
        shards: &[i16],
        page: PositionPage,
    ) -> impl Stream<Item = Result<OutboxRow, Error>> + Send + 'c + use<'c> {
        let PositionPage { after, last } = page;
        window
            .bound_to(self.statements().outbox_page.clone(), after)
            .bind(last)
            .bind(shards.to_vec())
            .fetch(connection)
            .map_ok(OutboxRow)
            .map_err(Error::database_each("read a page of the outbox"))
    }

    /// The events of one stream in a window, in version order; a page with fewer events than asked for is the
    /// window's last. Read as they arrive.
    ///
    /// # Errors
    /// Items are [`Error::Database`]; the stream ends there.
    pub fn outbox_stream<'c>(
        &self,
        connection: &'c mut PgConnection,
        window: Window<'_>,
        stream: &str,
        page: LivePage,
    ) -> impl Stream<Item = Result<OutboxRow, Error>> + Send + 'c + use<'c> {
        window
            .bound_to(self.statements().outbox_stream.clone(), page.after)
            .bind(stream.to_owned())
            .bind(i64::try_from(page.events_max.get()).unwrap_or(i64::MAX))
            .fetch(connection)
            .map_ok(OutboxRow)
            .map_err(Error::database_each("read a stream of the outbox"))
    }

    /// The events of one category and one shard in a window, in position order; a page with fewer events than
    /// asked for is the window's last. Read as they arrive.
    ///
    /// # Errors
    /// Items are [`Error::Database`]; the stream ends there.
    pub fn outbox_category<'c>(
        &self,
        connection: &'c mut PgConnection,
        window: Window<'_>,
        (category, shard): (&str, i16),
        page: LivePage,
    ) -> impl Stream<Item = Result<OutboxRow, Error>> + Send + 'c + use<'c> {
        window
            .bound_to(self.statements().outbox_category.clone(), page.after)
            .bind(category.to_owned())
            .bind(shard)
            .bind(i64::try_from(page.events_max.get()).unwrap_or(i64::MAX))
            .fetch(connection)
            .map_ok(OutboxRow)
            .map_err(Error::database_each("read a category of the outbox"))
    }

    /// Makes sure that the outbox has partitions for the next appends. The store does it by itself;
    /// a relay calls it, too, so that they are there before an append needs them.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn extend_outbox(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let upper: i64 = sqlx::query_scalar(self.statements().outbox_extend.clone())
            .bind(POSITIONS_AHEAD)
            .fetch_one(connection)
            .await
            .map_err(Error::database("create partitions of the outbox"))?;
        self.outbox_upper().store(upper, Ordering::Relaxed);
        Ok(())
    }

    /// Drops a partition of the outbox that every deployment has published; returns how many were dropped,
    /// 0 or 1. Nothing is lost with it: windows that reach back to it are read from the events.
    ///
    /// It waits for nobody for long, and nobody for it: while a backup or a long transaction uses the
    /// outbox, nothing is dropped. To be called again later, not more than once in a second. A
    /// deployment that is gone for good holds everything back until it is forgotten
    /// (`select annals.relay_forget('its name')`, with `@` and its topics' prefix behind it where there is one).
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn drop_published_outbox(&self, connection: &mut PgConnection) -> Result<i64, Error> {
        sqlx::query_scalar(self.statements().outbox_drop_published.clone())
            .fetch_one(connection)
            .await
            .map_err(Error::database("drop what is published from the outbox"))
    }

    /// How many positions after an append have a partition, as far as this process knows.
    pub(crate) fn outbox_left(&self, appended: &Appended) -> i64 {
        let last = appended.events.last().map_or(0, |(_, position)| position.get());
        self.outbox_upper().load(Ordering::Relaxed) - last
    }

    /// Extends the outbox. A failure is logged and tried again by the next append: there is room for
    /// millions of events by then.
    pub(crate) async fn extend_outbox_on(&self, connection: &mut PgConnection) {
        if let Err(error) = self.extend_outbox(connection).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not create partitions of the outbox ahead, trying again with the next append"
            );
        }
    }

    /// Extends the outbox beside a caller's transaction, on another connection if one is free: inside the
    /// transaction, others who extend would wait for its end.
    pub(crate) async fn extend_outbox_beside(&self, transaction: &mut PgConnection, left: i64) {
        if left >= OUTBOX_LEFT_MIN {
            return;
        }
        if let Some(mut connection) = self.pool().try_acquire() {
            self.extend_outbox_on(&mut connection).await;
        } else if left < OUTBOX_LEFT_URGENT && self.outbox_upper().load(Ordering::Relaxed) > 0 {
            self.extend_outbox_on(transaction).await;
        }
    }
}

/// A page of a window with at most so many events.
#[derive(Debug, Clone, Copy)]
pub struct LivePage {
    /// The position after which it begins; 0: with the window.
    pub after: i64,
    /// Most events in it.
    pub events_max: NonZeroUsize,
}

/// A page of a window between two positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionPage {
    /// The position after which it begins.
    pub after: i64,
    /// Its last position.
    pub last: i64,
}

impl Window<'_> {
    /// A statement about this window after a position: its first seven arguments.
    pub(crate) fn bound_to<'q>(
        self,
        statement: SqlStr,
        after: i64,
    ) -> Query<'q, Postgres, PgArguments> {
        let Self { since, until } = self;
        sqlx::query(statement)
            .bind(since.snapshot.clone())
            .bind(since.position)
            .bind(since.settled)
            .bind(until.snapshot.clone())
            .bind(until.position)
            .bind(until.settled)
            .bind(after)
    }
}

/// The cluster of the session, and the end of the log.
fn log_end(row: &PgRow) -> Result<(String, LogEnd), sqlx::Error> {
    let history = History {
        store_id: row.try_get("store_id")?,
        number: row.try_get("history")?,
        system_identifier: row.try_get("system_identifier")?,
        timeline: row.try_get("timeline")?,
    };
    let bound = Bound {
        snapshot: row.try_get("snapshot")?,
        next_xid: row.try_get("next_xid")?,
        position: row.try_get("position")?,
        event_id: row.try_get("event_id")?,
        settled: row.try_get("settled")?,
    };
    let incarnation: &str = row.try_get("incarnation")?;
    Ok((row.try_get("cluster")?, LogEnd { history, incarnation: incarnation.into(), bound }))
}

fn late(row: &PgRow) -> Result<Option<Late>, sqlx::Error> {
    let Some(first) = row.try_get::<Option<i64>, _>("first")? else { return Ok(None) };
    let is_few = row.try_get::<i64, _>("events")? <= LATE_EVENTS_MAX;
    let is_sparse = is_few && row.try_get("is_counted")?;
    Ok(Some(Late { first, last: row.try_get("last")?, is_sparse }))
}

/// Columns are taken by their place, and their types are those of the statement: by name, or with a look at its type,
/// each would cost as much as the rest of it, in every row.
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
    // Empty ones come as null.
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
    pub(crate) fn of(column: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |error| Self { column, reason: cause(error) }
    }
}

/// The cause, without the number of the column.
fn cause(error: sqlx::Error) -> String {
    match error {
        sqlx::Error::ColumnDecode { source, .. } | sqlx::Error::Decode(source) => {
            source.to_string()
        }
        other => other.to_string(),
    }
}
