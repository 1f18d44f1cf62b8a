//! The time to load an aggregate with many events, with a snapshot and without, and to decide on
//! it.

use std::time::{Duration, Instant};

use annals_store::{
    Aggregate, Append, DecideError, EventStore, ExpectedVersion, Snapshots, Store, StreamName,
};
use annals_testkit::Testbed;
use anyhow::Context;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::event::{self, ParcelEvent, new_event, parcel_event};
use crate::report::{Report, Table, number, print, progress};
use crate::settle::settle;
use crate::spread::{Spread, as_f64};

const EVENTS_PER_APPEND: usize = 1_000;
const SHORT_EVENTS: usize = 10;
/// Tasks that decide on one aggregate at the same time.
const TASKS: [usize; 4] = [1, 4, 16, 64];
const DECISIONS_PER_TASK: usize = 50;

/// The time to load an aggregate with many events, and to decide on it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Events of the long stream.
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// Events behind the snapshot.
    #[arg(long, default_value_t = 99)]
    behind: usize,
    /// Measurements of each case; a tenth of them without snapshots.
    #[arg(long, default_value_t = 200)]
    rounds: usize,
}

/// A parcel without snapshots.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Parcel {
    scans: i64,
    weight_g: i64,
    depot: String,
}

impl Aggregate for Parcel {
    type Event = ParcelEvent;

    fn apply(&mut self, event: ParcelEvent) {
        let ParcelEvent::ParcelScanned(scanned) = event;
        self.scans += 1;
        self.weight_g = scanned.weight_g.into();
        self.depot = scanned.depot;
    }
}

/// The same parcel with snapshots.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct SavedParcel(Parcel);

impl Aggregate for SavedParcel {
    type Event = ParcelEvent;

    fn apply(&mut self, event: ParcelEvent) {
        self.0.apply(event);
    }

    fn snapshots() -> Option<Snapshots<Self>> {
        Some(Snapshots::every(100, include_str!("../avro/Parcel.state.avsc")))
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    case: &'static str,
    events: usize,
    ms: Spread,
}

/// Measures each case, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let testbed = Testbed::new("bench_load").await;
    let (long, short) = (event::stream(0)?, event::stream(1)?);
    let store = testbed.store();
    fill(store, &long, arguments.events - arguments.behind).await?;
    store.save_snapshot::<SavedParcel>(&long).await?;
    fill(store, &long, arguments.behind).await?;
    fill(store, &short, SHORT_EVENTS).await?;
    settle(&testbed.database_url()).await?;

    let many = Case { name: "with a snapshot", events: arguments.events, rounds: arguments.rounds };
    let without = Case { name: "without", rounds: arguments.rounds.div_ceil(10), ..many };
    let few = Case { name: "without", events: SHORT_EVENTS, ..many };
    let decide = Case { name: "decide, with a snapshot", ..many };
    let measured = [
        few.loads::<Parcel>(store, &short).await?,
        without.loads::<Parcel>(store, &long).await?,
        many.loads::<SavedParcel>(store, &long).await?,
        decide.decisions(store, &long).await?,
    ];
    let mut table = Table::new(&["load", "events", "ms", "min..max"]);
    for one in &measured {
        report.line("load", one)?;
        let (events, ms) = (number(as_f64(one.events)), format!("{:.2}", one.ms.median));
        table.row(vec![
            one.case.to_owned(),
            events,
            ms,
            format!("{:.2}..{:.2}", one.ms.min, one.ms.max),
        ]);
    }
    print(&table);
    let mut table = Table::new(&["tasks", "decisions/s", "tries each", "contended"]);
    for tasks in TASKS {
        let one = contend(store, &event::stream(2 + tasks)?, tasks).await?;
        report.line("contention", &one)?;
        let contended = format!("{} of {}", one.contended, tasks * DECISIONS_PER_TASK);
        let tries = format!("{:.2}", one.tries);
        table.row(vec![tasks.to_string(), number(one.per_second), tries, contended]);
    }
    print(&table);
    report.finish();
    Ok(())
}

#[derive(Debug, Serialize)]
struct Contention {
    tasks: usize,
    per_second: f64,
    /// Appends of a recorded decision.
    tries: f64,
    contended: usize,
}

/// Tasks that decide on one aggregate as fast as they can.
async fn contend(store: &Store, stream: &StreamName, tasks: usize) -> anyhow::Result<Contention> {
    let started_at = Instant::now();
    let running = (0..tasks).map(|_| tokio::spawn(decide_often(store.clone(), stream.clone())));
    let ended = try_join_all(running).await?.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let seconds = started_at.elapsed().as_secs_f64();
    let tries: Vec<u32> = ended.into_iter().flatten().collect();
    let recorded = as_f64(tries.len());
    let loaded = store.load::<SavedParcel>(stream).await?;
    anyhow::ensure!(usize::try_from(loaded.state.0.scans)? == tries.len(), "decisions were lost");
    Ok(Contention {
        tasks,
        per_second: recorded / seconds,
        tries: tries.iter().map(|tries| f64::from(*tries)).sum::<f64>() / recorded,
        contended: tasks * DECISIONS_PER_TASK - tries.len(),
    })
}

/// The tries of each recorded decision.
async fn decide_often(store: Store, stream: StreamName) -> anyhow::Result<Vec<u32>> {
    let mut tries = Vec::new();
    for _ in 0..DECISIONS_PER_TASK {
        let scan = |parcel: &SavedParcel| Ok::<_, Never>(vec![parcel_event(parcel.0.scans)]);
        match store.decide(&stream, scan).await {
            Ok(decided) => tries.push(decided.tries),
            Err(DecideError::Contended { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(tries)
}

#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    events: usize,
    rounds: usize,
}

impl Case {
    async fn loads<A: Aggregate>(
        self,
        store: &Store,
        stream: &StreamName,
    ) -> anyhow::Result<Measured> {
        let mut times = Vec::new();
        for _ in 0..=self.rounds {
            let started_at = Instant::now();
            let loaded = store.load::<A>(stream).await?;
            times.push(started_at.elapsed());
            let events = loaded.version.map_or(0, |version| version.next().get());
            anyhow::ensure!(usize::try_from(events)? == self.events, "{events} events were loaded");
        }
        self.measured(&times)
    }

    /// Each one loads, decides and appends one event, durably.
    async fn decisions(self, store: &Store, stream: &StreamName) -> anyhow::Result<Measured> {
        let mut times = Vec::new();
        for _ in 0..=self.rounds {
            let scan = |parcel: &SavedParcel| Ok::<_, Never>(vec![parcel_event(parcel.0.scans)]);
            let started_at = Instant::now();
            store.decide(stream, scan).await?;
            times.push(started_at.elapsed());
        }
        self.measured(&times)
    }

    /// Without the first one, which opens connections.
    fn measured(self, times: &[Duration]) -> anyhow::Result<Measured> {
        let Self { name: case, events, .. } = self;
        let ms = times.iter().skip(1).map(|time| time.as_secs_f64() * 1_000.0);
        let ms = Spread::of(ms).context("no round was measured")?;
        progress(&format!("{case}, {events} events: {:.2} ms", ms.median));
        Ok(Measured { case, events, ms })
    }
}

/// These decisions are never refused.
type Never = std::convert::Infallible;

async fn fill(store: &Store, stream: &StreamName, events: usize) -> anyhow::Result<()> {
    for first in (0..events).step_by(EVENTS_PER_APPEND) {
        let numbers = first..events.min(first + EVENTS_PER_APPEND);
        let batch = numbers.map(|number| Ok(new_event(i64::try_from(number)?)?));
        let batch = batch.collect::<anyhow::Result<Vec<_>>>()?;
        store.append(&Append::to(stream, ExpectedVersion::Any, batch)).await?;
    }
    Ok(())
}
