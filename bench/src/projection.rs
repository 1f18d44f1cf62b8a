//! Events per second of a projection that is built from history, beside a follower that applies
//! nothing.

use std::collections::HashMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::{Duration, Instant};

use annals_store::{Append, ExpectedVersion, Follow, Projection, RecordedEvent, Store};
use annals_testkit::Testbed;
use anyhow::Context;
use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::PgConnection;

use crate::event::{self, ParcelEvent, new_event};
use crate::report::{Report, Table, number, print, progress};
use crate::settle::settle;
use crate::spread::{Spread, as_f64};

const EVENTS_PER_APPEND: usize = 1_000;
const NAME: &str = "parcels";
const POLL: Duration = Duration::from_millis(5);

/// Events per second of a projection that is built from history.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Events of the history.
    #[arg(long, default_value_t = 500_000)]
    events: usize,
    /// Streams of the history, which are the rows of the read model.
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
    /// Events in one transaction.
    #[arg(long, default_value = "2000")]
    batch_events_max: NonZeroUsize,
    /// Measurements of each case.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// Scans and weight of each parcel, written with one statement for a batch.
struct Parcels {
    version: u32,
}

impl Projection for Parcels {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn events(&self) -> Follow {
        Follow::events_of::<ParcelEvent>()
    }

    fn tables(&self) -> &'static str {
        "create table parcels (stream text primary key, scans bigint not null, weight_g bigint not null)"
    }

    async fn apply(
        &self,
        events: &[RecordedEvent],
        connection: &mut PgConnection,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut parcels: HashMap<&str, (i64, i64)> = HashMap::new();
        for event in events {
            let ParcelEvent::ParcelScanned(scanned) = event.decode()?;
            let parcel = parcels.entry(event.stream.as_str()).or_default();
            *parcel = (parcel.0 + 1, i64::from(scanned.weight_g));
        }
        let (mut streams, mut scans, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (stream, (count, weight_g)) in parcels {
            streams.push(stream);
            scans.push(count);
            weights.push(weight_g);
        }
        sqlx::query(include_str!("../sql/parcels_apply.sql"))
            .bind(streams)
            .bind(scans)
            .bind(weights)
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    case: &'static str,
    events: usize,
    per_second: Spread,
}

/// Measures each case, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let testbed = Testbed::new("bench_projection").await;
    let store = testbed.store();
    fill(store, arguments).await?;
    settle(&testbed.database_url()).await?;
    let (mut followed, mut projected) = (Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        followed.push(follow(store, arguments.events).await?);
        projected.push(project(store, round, arguments).await?);
        progress(&format!(
            "round {round}: {:.0}/s projected",
            projected.last().copied().unwrap_or(0.0)
        ));
    }
    let mut table = Table::new(&["case", "events", "events/s", "min..max"]);
    for (case, rates) in [("follower", followed), ("projection", projected)] {
        let per_second = Spread::of(rates).context("no round was measured")?;
        let Spread { median, min, max, .. } = per_second;
        let events = number(as_f64(arguments.events));
        let range = format!("{}..{}", number(min), number(max));
        table.row(vec![case.to_owned(), events, number(median), range]);
        report.line("projection", &Measured { case, events: arguments.events, per_second })?;
    }
    print(&table);
    report.finish();
    Ok(())
}

/// Events per second of a follower.
async fn follow(store: &Store, events: usize) -> anyhow::Result<f64> {
    let started_at = Instant::now();
    let mut log = pin!(store.follow(Follow::events_of::<ParcelEvent>()));
    for _ in 0..events {
        log.try_next().await?.context("follow for ever")?;
    }
    Ok(as_f64(events) / started_at.elapsed().as_secs_f64())
}

/// Events per second of a new version of the projection.
async fn project(store: &Store, version: u32, arguments: &Arguments) -> anyhow::Result<f64> {
    let started_at = Instant::now();
    let runner = store.project(Parcels { version }).batch_events_max(arguments.batch_events_max);
    let runner = tokio::spawn(runner.run(std::future::pending()));
    let applied = async {
        loop {
            let status = store.projection_status(NAME).await?;
            let applied = status.iter().find(|of| of.version == version).map_or(0, |of| of.events);
            if usize::try_from(applied)? >= arguments.events {
                return anyhow::Ok(started_at.elapsed());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let took = applied.await?;
    runner.abort();
    Ok(as_f64(arguments.events) / took.as_secs_f64())
}

async fn fill(store: &Store, arguments: &Arguments) -> anyhow::Result<()> {
    progress(&format!("appending {} events", arguments.events));
    let mut sequence = 0;
    for number in 0..arguments.events.div_ceil(EVENTS_PER_APPEND) {
        let stream = event::stream(number % arguments.streams)?;
        let left = (arguments.events - number * EVENTS_PER_APPEND).min(EVENTS_PER_APPEND);
        let mut events = Vec::with_capacity(left);
        for _ in 0..left {
            events.push(new_event(sequence)?);
            sequence += 1;
        }
        store.append(&Append::to(&stream, ExpectedVersion::Any, events)).await?;
    }
    Ok(())
}
