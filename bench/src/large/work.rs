//! What is measured in both databases, and the server's counters of it.

use std::future::Future;
use std::time::{Duration, Instant};

use annals_store::{
    Append, Category, ExpectedVersion, Position, Read, Store, StoreOptions, Version,
};
use annals_testkit::Dice;
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use serde::Serialize;
use sqlx::{Connection, PgConnection, Row};

use super::tables::Tables;
use crate::event::{self, CATEGORY, new_event};
use crate::settle::settle;
use crate::spread::as_f64;

const CLIENTS: u32 = 32;
const READERS: u32 = 4;
/// Streams that are read in both databases, again and again.
const STREAMS_READ: usize = 500;
/// One query.
const PAGE_EVENTS: usize = 1_000;
const POLL: Duration = Duration::from_millis(20);
const POLLS_MAX: usize = 100;

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Work {
    /// To as many streams as the small database has.
    AppendSame,
    /// To all streams.
    AppendAll,
    /// The same 500.
    StreamsSame,
    /// Of all.
    StreamsAll,
    /// At positions by chance.
    CategoryPages,
    /// At positions by chance.
    Pages,
    /// By one follower.
    Follow,
    /// By one relay.
    Drain,
}

impl Work {
    pub(super) const ALL: [Self; 8] = [
        Self::AppendSame,
        Self::AppendAll,
        Self::StreamsSame,
        Self::StreamsAll,
        Self::CategoryPages,
        Self::Pages,
        Self::Follow,
        Self::Drain,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AppendSame => "appends, the same streams",
            Self::AppendAll => "appends, all streams",
            Self::StreamsSame => "streams read, the same 500",
            Self::StreamsAll => "streams read, of all",
            Self::CategoryPages => "pages of a category",
            Self::Pages => "pages of all",
            Self::Follow => "events followed",
            Self::Drain => "events drained",
        }
    }

    /// Whether it reads the events behind everything else, once.
    pub(super) const fn is_of_tail(self) -> bool {
        matches!(self, Self::Follow | Self::Drain)
    }

    pub(super) const fn is_append(self) -> bool {
        matches!(self, Self::AppendSame | Self::AppendAll)
    }

    const fn clients(self) -> u32 {
        if self.is_append() { CLIENTS } else { READERS }
    }
}

/// A rate, and what the server did for one of it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Measured {
    pub(super) per_second: f64,
    pub(super) wal_bytes_each: f64,
    pub(super) whole_pages_each: f64,
    pub(super) blocks_read_each: f64,
}

/// Repeats work in a database for so long. `streams_beside` is the number of streams in the small
/// one.
pub(super) async fn repeat(
    work: Work,
    tables: &Tables,
    streams_beside: usize,
    (seconds, seed): (u64, u64),
) -> anyhow::Result<Measured> {
    settle(&tables.url).await?;
    let streams = match work {
        Work::AppendSame => streams_beside,
        Work::StreamsSame => STREAMS_READ.min(streams_beside),
        _ => tables.streams(),
    };
    let events = tables.events;
    let counters = Counters::begin(&tables.url).await?;
    let store =
        StoreOptions::default().connections_max(work.clients()).connect(&tables.url).await?;
    let duration = Duration::from_secs(seconds);
    let once = move |store: Store, number: usize| async move {
        match work {
            Work::AppendSame | Work::AppendAll => append(&store, number % streams).await,
            Work::StreamsSame | Work::StreamsAll => read_stream(&store, number % streams).await,
            Work::CategoryPages => read_page(&store, Page::Category, number % events).await,
            Work::Pages | Work::Follow | Work::Drain => {
                read_page(&store, Page::All, number % events).await
            }
        }
    };
    let (count, took) = by_clients(&store, (work.clients(), seed), duration, once).await?;
    store.pool().close().await;
    counters.end(count, took).await
}

/// Calls a function with numbers by chance until the time is over; the number of calls.
async fn by_clients<F, R>(
    store: &Store,
    (clients, seed): (u32, u64),
    duration: Duration,
    once: F,
) -> anyhow::Result<(u32, Duration)>
where
    F: Fn(Store, usize) -> R + Copy + Send + 'static,
    R: Future<Output = anyhow::Result<()>> + Send,
{
    let mut dice = Dice::with_seed(seed);
    let began = Instant::now();
    let tasks = (0..clients).map(|_| {
        let (store, mut dice) = (store.clone(), dice.split());
        tokio::spawn(async move {
            let mut count = 0_u32;
            while began.elapsed() < duration {
                once(store.clone(), dice.below(usize::MAX)).await?;
                count += 1;
            }
            anyhow::Ok(count)
        })
    });
    let counts = try_join_all(tasks.collect::<Vec<_>>()).await?;
    let count = counts.into_iter().sum::<anyhow::Result<u32>>()?;
    Ok((count, began.elapsed()))
}

async fn append(store: &Store, stream: usize) -> anyhow::Result<()> {
    let event = new_event(i64::try_from(stream)?)?;
    store.append(&Append::to(&event::stream(stream)?, ExpectedVersion::Any, [event])).await?;
    Ok(())
}

async fn read_stream(store: &Store, stream: usize) -> anyhow::Result<()> {
    let events = store.read_stream(&event::stream(stream)?, Version::FIRST);
    let events: Vec<_> = events.try_collect().await?;
    anyhow::ensure!(!events.is_empty(), "stream {stream} is empty");
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Category,
    All,
}

async fn read_page(store: &Store, page: Page, position: usize) -> anyhow::Result<()> {
    let read = match page {
        Page::Category => Read::category(&Category::new(CATEGORY)?),
        Page::All => Read::all(),
    };
    let from = Position::new(i64::try_from(position.max(1))?).unwrap_or(Position::ORIGIN);
    let events = store.read(read.from(from).events_max(u64::try_from(PAGE_EVENTS)?));
    let _: Vec<_> = events.try_collect().await?;
    Ok(())
}

/// The server's counters at the begin of a measurement.
pub(super) struct Counters {
    connection: PgConnection,
    at: String,
    counts: [i64; 3],
}

impl Counters {
    pub(super) async fn begin(url: &str) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(url).await?;
        let (at, counts) = counts(&mut connection).await?;
        Ok(Self { connection, at, counts })
    }

    /// The rate of so many since the begin, and the counters' growth.
    pub(super) async fn end(mut self, count: u32, took: Duration) -> anyhow::Result<Measured> {
        // Sessions report their last counts when they end.
        for _ in 0..POLLS_MAX {
            let sessions: i64 = sqlx::query_scalar(include_str!("../../sql/large_sessions.sql"))
                .bind(&self.at)
                .fetch_one(&mut self.connection)
                .await?;
            if sessions == 0 {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        let (_, now) = counts(&mut self.connection).await?;
        self.connection.close().await?;
        let count = f64::from(count.max(1));
        let mut each = [0.0; 3];
        for (each, (now, before)) in each.iter_mut().zip(now.into_iter().zip(self.counts)) {
            *each = as_f64(usize::try_from(now - before)?) / count;
        }
        let [wal_bytes_each, whole_pages_each, blocks_read_each] = each;
        let per_second = count / took.as_secs_f64();
        Ok(Measured { per_second, wal_bytes_each, whole_pages_each, blocks_read_each })
    }
}

async fn counts(connection: &mut PgConnection) -> anyhow::Result<(String, [i64; 3])> {
    let row =
        sqlx::query(include_str!("../../sql/large_counters.sql")).fetch_one(connection).await?;
    let counts = [row.try_get("wal_bytes")?, row.try_get("wal_fpi")?, row.try_get("blocks_read")?];
    Ok((row.try_get("at")?, counts))
}
