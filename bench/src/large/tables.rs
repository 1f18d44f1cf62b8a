//! Databases with many events, which SQL writes.

use std::time::Instant;

use annals_store::{EventSet, ExpectedVersion, Store, StoreOptions, Version};
use annals_testkit::Testbed;
use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::event::{self, CATEGORY, ParcelEvent, new_event, small_parcel_event};
use crate::report::{number, progress};
use crate::settle::settle;
use crate::size::check_space_for;
use crate::spread::as_f64;

/// The length of each stream.
pub(super) const EVENTS_PER_STREAM: usize = 100;
/// Categories beside that of the measured appends.
const OTHER_CATEGORIES: [&str; 2] = ["pallet", "crate"];
/// Events of one transaction.
const PART: usize = 250_000;
const PARTS_PER_VACUUM: usize = 4;
const PARTS_PER_LINE: usize = 20;
/// Different payloads.
const PAYLOADS: i64 = 32;
/// Upper bound for an event with its indexes and its share of the log and of the files of sorting.
const BYTES_PER_EVENT: u64 = 500;
const INDEXES_AT_ONCE: usize = 2;

/// A database with so many events, and more after measurements.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) url: String,
    pub(super) store: Store,
    pub(super) events: usize,
    /// Removed at its end, if this run has made it.
    _bed: Option<Testbed>,
}

impl Tables {
    /// Makes a database and fills it.
    pub(super) async fn fill(events: usize) -> anyhow::Result<Self> {
        let bed = Testbed::new("bench_large").await;
        check_space_for(bed.store(), events, BYTES_PER_EVENT).await?;
        let (url, store) = (bed.database_url(), bed.store().clone());
        let tables = Self { url, store, events, _bed: Some(bed) };
        let mut connection = PgConnection::connect(&tables.url).await?;
        fill(&mut connection, &tables).await?;
        tables.check().await?;
        Ok(tables)
    }

    /// A database that an earlier run has filled.
    pub(super) async fn found(url: &str, events: usize) -> anyhow::Result<Self> {
        let store = StoreOptions::default().connect(url).await?;
        let tables = Self { url: url.to_owned(), store, events, _bed: None };
        tables.check().await?;
        Ok(tables)
    }

    /// The streams of the category of measured appends: number 0 and so on.
    pub(super) const fn streams(&self) -> usize {
        self.events / EVENTS_PER_STREAM * 16 / 20
    }

    /// For people.
    pub(super) async fn size(&self) -> anyhow::Result<String> {
        let query = sqlx::query_as(include_str!("../../sql/large_size.sql"));
        let (events, indexes): (i64, i64) = query.fetch_one(self.store.pool()).await?;
        let gigabytes = |bytes: i64| anyhow::Ok(as_f64(usize::try_from(bytes)?) / 1e9);
        Ok(format!(
            "{} events: {:.1} GB, and {:.1} GB of indexes",
            number(as_f64(self.events)),
            gigabytes(events)?,
            gigabytes(indexes)?
        ))
    }

    /// Reads a stream and appends to it, as an application does.
    async fn check(&self) -> anyhow::Result<()> {
        let last: i64 = sqlx::query_scalar(include_str!("../../sql/large_last_position.sql"))
            .fetch_one(self.store.pool())
            .await?;
        anyhow::ensure!(
            usize::try_from(last)? >= self.events,
            "{} has {last} events, not {}",
            self.url,
            self.events
        );
        let stream = event::stream(self.streams() - 1)?;
        let found: Vec<_> = self.store.read_stream(&stream, Version::FIRST).try_collect().await?;
        for event in &found {
            event.decode::<ParcelEvent>().context("decode a written event")?;
        }
        let length = found.len();
        anyhow::ensure!(length >= EVENTS_PER_STREAM, "{stream} has {length} events");
        let version = found.last().context("read an empty stream")?.version;
        let append =
            annals_store::Append::to(&stream, ExpectedVersion::Exactly(version), [new_event(0)?]);
        self.store.append(&append).await.context("append behind written events")?;
        Ok(())
    }
}

/// Writes the events without the indexes that have every event, and builds these afterwards.
async fn fill(connection: &mut PgConnection, tables: &Tables) -> anyhow::Result<()> {
    let began = Instant::now();
    let indexes = indexes(connection).await?;
    write_streams(connection, tables.events / EVENTS_PER_STREAM).await?;
    for index in &indexes {
        sqlx::raw_sql(AssertSqlSafe(index.removal.clone())).execute(&mut *connection).await?;
    }
    write_events(connection, tables.events).await?;
    let written = began.elapsed();
    build(&tables.url, &indexes).await?;
    for constraint in indexes.iter().filter_map(|index| index.constraint.clone()) {
        sqlx::raw_sql(AssertSqlSafe(constraint)).execute(&mut *connection).await?;
    }
    anyhow::ensure!(self::indexes(connection).await? == indexes, "the indexes are not the same");
    sqlx::raw_sql(include_str!("../../sql/large_outbox.sql")).execute(&mut *connection).await?;
    settle(&tables.url).await?;
    progress(&format!(
        "{} events written in {written:.0?}, {:.0?} with indexes",
        number(as_f64(tables.events)),
        began.elapsed()
    ));
    Ok(())
}

/// An index that has every event.
#[derive(Debug, PartialEq, Eq)]
struct Index {
    definition: String,
    removal: String,
    constraint: Option<String>,
}

async fn indexes(connection: &mut PgConnection) -> anyhow::Result<Vec<Index>> {
    let rows =
        sqlx::query(include_str!("../../sql/large_indexes.sql")).fetch_all(connection).await?;
    let index = |row: &sqlx::postgres::PgRow| {
        Ok(Index {
            definition: row.try_get("definition")?,
            removal: row.try_get("removal")?,
            constraint: row.try_get("constraint")?,
        })
    };
    rows.iter().map(index).collect()
}

async fn build(url: &str, indexes: &[Index]) -> anyhow::Result<()> {
    let build = |definition: String| async move {
        let mut connection = PgConnection::connect(url).await?;
        let began = Instant::now();
        sqlx::raw_sql(AssertSqlSafe(definition.clone())).execute(&mut connection).await?;
        progress(&format!("in {:.0?}: {definition}", began.elapsed()));
        Ok(connection.close().await?)
    };
    let definitions = indexes.iter().map(|index| index.definition.clone());
    stream::iter(definitions.map(build)).buffer_unordered(INDEXES_AT_ONCE).try_collect().await
}

async fn write_streams(connection: &mut PgConnection, streams: usize) -> anyhow::Result<()> {
    let encoded = small_parcel_event(0).encode()?;
    for category in OTHER_CATEGORIES.into_iter().chain([CATEGORY]) {
        sqlx::query(include_str!("../../sql/large_schema.sql"))
            .bind(category)
            .bind(encoded.fingerprint.get())
            .bind(encoded.schema.full_name())
            .bind(encoded.schema.definition())
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(include_str!("../../sql/large_streams.sql"))
        .bind(i64::try_from(streams)?)
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_events(connection: &mut PgConnection, events: usize) -> anyhow::Result<()> {
    let payloads = (0..PAYLOADS).map(|sequence| Ok(small_parcel_event(sequence).encode()?.payload));
    let payloads = payloads.collect::<anyhow::Result<Vec<_>>>()?;
    let fingerprint = small_parcel_event(0).encode()?.fingerprint.get();
    // A millisecond between two events: the last one is of now.
    let begin = Timestamp::now().as_millisecond() - i64::try_from(events)?;
    for (part, first) in (0..events).step_by(PART).enumerate() {
        sqlx::query(include_str!("../../sql/large_events.sql"))
            .bind(i64::try_from(first + 1)?)
            .bind(i64::try_from(PART.min(events - first))?)
            .bind(i64::try_from(events / EVENTS_PER_STREAM)?)
            .bind(&payloads)
            .bind(fingerprint)
            .bind(begin)
            .execute(&mut *connection)
            .await?;
        if part % PARTS_PER_VACUUM == PARTS_PER_VACUUM - 1 {
            let vacuum = sqlx::raw_sql(include_str!("../../sql/large_vacuum.sql"));
            vacuum.execute(&mut *connection).await?;
        }
        if part % PARTS_PER_LINE == 0 {
            progress(&format!("{first} of {events} events written"));
        }
    }
    Ok(())
}
