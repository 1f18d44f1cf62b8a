//! Appends per second with many events in the tables, beside nearly empty tables.

use std::time::Duration;

use annals_store::{Append, ExpectedVersion, Store};
use annals_testkit::Dice;
use anyhow::Context;
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::process::Command;

use crate::append::bed::Bed;
use crate::append::{Load, clients};
use crate::event::{self, new_event};
use crate::report::{Report, Table, number, print, progress};
use crate::settle::settle;
use crate::spread::Spread;

const STREAMS: usize = 50_000;
const LOADERS: usize = 4;
const EVENTS_PER_APPEND: usize = 100;
const PROGRESS_EVENTS: usize = 500_000;
/// Upper bound for an event with its indexes, its outbox row and its share of the log.
const BYTES_PER_EVENT: u64 = 1_200;

/// Appends per second with many events in the tables, beside nearly empty tables.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Events in the large tables; some 1 GB of disk per million.
    #[arg(long, default_value_t = 10_000_000)]
    preload: usize,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Concurrent clients, each with a connection of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    clients: Vec<u32>,
}

#[derive(Debug, Serialize)]
struct Measured {
    round: usize,
    clients: u32,
    full: f64,
    empty: f64,
}

/// Fills one database, and measures it and an empty one in turns.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let clients_max = arguments.clients.iter().copied().max().unwrap_or(1);
    let beds = [
        Bed::make(arguments.load(clients_max)).await?,
        Bed::make(arguments.load(clients_max)).await?,
    ];
    let [full, empty] = &beds;
    check_space(full.store(), arguments.preload).await?;
    preload(full.store(), arguments.preload).await?;
    settle(full.database_url()).await?;
    let mut measured = Vec::new();
    for round in 0..arguments.rounds {
        for &clients in &arguments.clients {
            let load = arguments.load(clients);
            // Each goes first in every other round.
            let (first, second) = if round % 2 == 0 { (full, empty) } else { (empty, full) };
            let rates = [rate(first, load).await?, rate(second, load).await?];
            let [full, empty] = if round % 2 == 0 { rates } else { [rates[1], rates[0]] };
            let one = Measured { round, clients, full, empty };
            progress(&format!("{one:?}"));
            report.line("size", &one)?;
            measured.push(one);
        }
    }
    print(&table(arguments, &measured));
    report.finish();
    Ok(())
}

impl Arguments {
    const fn load(&self, clients: u32) -> Load {
        Load { events: 1, clients, streams: STREAMS, duration: Duration::from_secs(self.seconds) }
    }
}

async fn rate(bed: &Bed, load: Load) -> anyhow::Result<f64> {
    let before = bed.events().await?;
    settle(bed.database_url()).await?;
    let run = clients::run(bed.store(), load, clients::Tagging::None).await?;
    let recorded = bed.events().await? - before;
    let counted = run.appends;
    anyhow::ensure!(recorded == counted, "{counted} appends counted, {recorded} events recorded");
    Ok(run.appends_per_second)
}

/// Reports missing disk space before hours of loading end in a full disk.
pub(crate) async fn check_space(store: &Store, events: usize) -> anyhow::Result<()> {
    check_space_for(store, events, BYTES_PER_EVENT).await
}

/// The same for events of another size.
pub(crate) async fn check_space_for(
    store: &Store,
    events: usize,
    bytes_per_event: u64,
) -> anyhow::Result<()> {
    let query = sqlx::query_scalar(include_str!("../sql/data_directory.sql"));
    let directory: String = query.fetch_one(store.pool()).await?;
    let output = Command::new("df").args(["-k", "--output=avail", &directory]).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(kib) = text.lines().nth(1).and_then(|line| line.trim().parse::<u64>().ok()) else {
        progress(
            &"the server's disk cannot be seen from here: whether it has room is for you to know",
        );
        return Ok(());
    };
    let (free, needed) = (kib * 1_024, u64::try_from(events)? * bytes_per_event);
    let gib = |bytes: u64| bytes.div_ceil(1 << 30);
    anyhow::ensure!(
        free > needed + needed / 4,
        "{events} events take up to {} GiB, and {} GiB are free where the server keeps its files: \
         fewer events fit",
        gib(needed),
        gib(free)
    );
    Ok(())
}

/// Appends so many events, a hundred per call.
pub(crate) async fn preload(store: &Store, events: usize) -> anyhow::Result<()> {
    preload_over(store, events, STREAMS).await
}

/// The same to so many streams.
pub(crate) async fn preload_over(
    store: &Store,
    events: usize,
    streams: usize,
) -> anyhow::Result<()> {
    let loaders = (0..LOADERS).map(|loader| {
        let store = store.clone();
        tokio::spawn(async move { load_part(&store, loader, events / LOADERS, streams).await })
    });
    for loaded in try_join_all(loaders).await.context("load events")? {
        loaded?;
    }
    Ok(())
}

async fn load_part(
    store: &Store,
    loader: usize,
    events: usize,
    streams: usize,
) -> anyhow::Result<()> {
    let mut dice = Dice::with_seed(u64::try_from(loader)?);
    for loaded in (0..events).step_by(EVENTS_PER_APPEND) {
        let stream = event::stream(dice.below(streams))?;
        let sequence = i64::try_from(loaded)?;
        let batch = (0..EVENTS_PER_APPEND).map(|_| new_event(sequence));
        let batch = batch.collect::<Result<Vec<_>, _>>()?;
        store.append(&Append::to(&stream, ExpectedVersion::Any, batch)).await?;
        if loader == 0 && loaded % (PROGRESS_EVENTS / LOADERS) == 0 {
            progress(&format!("some {} of {} events loaded", loaded * LOADERS, events * LOADERS));
        }
    }
    Ok(())
}

fn table(arguments: &Arguments, measured: &[Measured]) -> Table {
    let full = format!("with {} events", arguments.preload);
    let mut table = Table::new(&["clients", &full, "empty", "full/empty", "min..max"]);
    for &clients in &arguments.clients {
        let of = || measured.iter().filter(|one| one.clients == clients);
        let spreads = (
            Spread::of(of().map(|one| one.full)),
            Spread::of(of().map(|one| one.empty)),
            Spread::of(of().map(|one| one.full / one.empty)),
        );
        let (Some(full), Some(empty), Some(ratio)) = spreads else { continue };
        table.row(vec![
            clients.to_string(),
            number(full.median),
            number(empty.median),
            number(ratio.median),
            ratio.ends(),
        ]);
    }
    table
}
