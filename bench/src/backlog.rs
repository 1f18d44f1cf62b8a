//! Drains a backlog of ten million events beside one of a million: the rate must not fall with the
//! size.

use std::time::{Duration, Instant};

use annals_testkit::{Environment, Testbed};
use anyhow::Context;
use serde::Serialize;

use crate::drain::{records, watch::Watch};
use crate::event::CATEGORY;
use crate::goals::Goal;
use crate::kafka::{create_topic, delete_topic};
use crate::process::Used;
use crate::relay::{self, Log, Relay};
use crate::report::{Report, Table, number, print, progress};
use crate::settle::settle;
use crate::size::{check_space, preload};
use crate::spread::{Spread, as_f64};

const MIB: f64 = 1_048_576.0;
const POLL: Duration = Duration::from_millis(100);
/// Runs of the `status` command.
const STATUSES: usize = 7;
const DROP_DEADLINE: Duration = Duration::from_secs(60);

/// The rate of draining a large backlog beside that of a small one.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Events in the large backlog.
    #[arg(long, default_value_t = 10_000_000)]
    events: usize,
    /// Events in the small one.
    #[arg(long, default_value_t = 1_000_000)]
    beside: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 8)]
    partitions: i32,
}

#[derive(Debug, Serialize)]
struct Measured {
    events: usize,
    round: usize,
    events_per_second: f64,
    outbox_mib_before: f64,
    outbox_mib_after: f64,
    used: Used,
}

struct Backlog {
    bed: Testbed,
    events: usize,
}

/// Loads both, measures each in every round, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let (small, large) = (load(arguments.beside).await?, load(arguments.events).await?);
    let mut measured = Vec::new();
    for round in 0..=arguments.rounds {
        for backlog in [&small, &large] {
            // A broker that has just started is busy compiling itself.
            if round == 0 && backlog.events == arguments.events {
                continue;
            }
            let one = measure(arguments, round, backlog, &report).await?;
            progress(&format!("{one:?}"));
            if round > 0 {
                report.line("backlog", &one)?;
                measured.push(one);
            }
        }
    }
    print(&table(arguments, &measured));
    report_status(&large, &mut report).await?;
    let rate = |events| Some(rates(&measured, events)?.median);
    if let (Some(large), Some(small)) = (rate(arguments.events), rate(arguments.beside)) {
        let name = format!(
            "drain of {} events/of {}",
            number(as_f64(arguments.events)),
            number(as_f64(arguments.beside))
        );
        report.figure(&name, large / small, Goal::AtLeast(0.9))?;
    }
    report.finish();
    Ok(())
}

async fn load(events: usize) -> anyhow::Result<Backlog> {
    let bed = Testbed::new("bench_backlog").await;
    check_space(bed.store(), events).await?;
    preload(bed.store(), events).await?;
    settle(&bed.database_url()).await?;
    Ok(Backlog { bed, events })
}

/// The time of the `status` command of a deployment whose relay has just begun with the backlog.
async fn report_status(backlog: &Backlog, report: &mut Report) -> anyhow::Result<()> {
    let deployment = format!("{}_status", backlog.bed.name());
    let topic_prefix = format!("{deployment}-");
    let settings = relay::Settings {
        database_url: &backlog.bed.database_url(),
        deployment: &deployment,
        instance: "a",
        topic_prefix: &topic_prefix,
        directory: report.directory(),
        log: Log::Usual,
        http: relay::Http::Off,
        delivery: relay::Delivery::ExactlyOnce,
    };
    let relay = Relay::start(&settings)?;
    relay.has_begun().await?;
    let mut taken = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..STATUSES {
        let status = settings.status().await?;
        taken.push(status.took.as_secs_f64());
        waiting.push(status.waiting_events);
    }
    relay.stop().await?;
    delete_topic(&Environment::get().kafka, &format!("{topic_prefix}{CATEGORY}")).await?;
    let (Some(taken), Some(least)) = (Spread::of(taken), waiting.iter().min()) else {
        return Ok(());
    };
    print(&format!(
        "`status` beside the relay that publishes them, {} to {} events wait: median {:.2} s, {:.2}..{:.2}",
        number(as_f64(*least)),
        number(as_f64(waiting.iter().copied().max().unwrap_or_default())),
        taken.median,
        taken.min,
        taken.max
    ));
    report.figure("status, s", taken.median, Goal::AtMost(1.0))
}

/// Lets a new deployment publish all of it.
async fn measure(
    arguments: &Arguments,
    round: usize,
    backlog: &Backlog,
    report: &Report,
) -> anyhow::Result<Measured> {
    let Backlog { bed, events } = backlog;
    let (events, partitions) = (*events, arguments.partitions);
    let deployment = format!("{}_{round}", bed.name());
    let topic_prefix = format!("{deployment}-");
    let topic = format!("{topic_prefix}{CATEGORY}");
    let brokers = &Environment::get().kafka;
    create_topic(brokers, &topic, partitions).await?;
    let watch = Watch::start(brokers, &topic, partitions, events).await?;
    let outbox_mib_before = outbox_mib(bed).await?;
    let mut relay = Relay::start(&relay::Settings {
        database_url: &bed.database_url(),
        deployment: &deployment,
        instance: "a",
        topic_prefix: &topic_prefix,
        directory: report.directory(),
        log: Log::Usual,
        http: relay::Http::Served,
        delivery: relay::Delivery::ExactlyOnce,
    })?;
    let seen = tokio::select! {
        seen = watch.end() => seen.with_context(|| relay.where_log_is())?,
        ended = relay.ended() => return Err(ended),
    };
    let used = relay.used()?;
    until_dropped(bed).await?;
    let outbox_mib_after = outbox_mib(bed).await?;
    relay.stop().await?;
    records::check_count(brokers, &topic, partitions, events).await?;
    delete_topic(brokers, &topic).await?;
    let events_per_second = as_f64(events) / seen.took.as_secs_f64();
    Ok(Measured { events, round, events_per_second, outbox_mib_before, outbox_mib_after, used })
}

/// Waits until the relay has dropped the fully published partitions of the outbox.
async fn until_dropped(bed: &Testbed) -> anyhow::Result<()> {
    let deadline = Instant::now() + DROP_DEADLINE;
    loop {
        let left: i64 = sqlx::query_scalar(include_str!("../sql/outbox_left.sql"))
            .fetch_one(bed.store().pool())
            .await?;
        if left == 0 {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{left} published partitions are not dropped");
        tokio::time::sleep(POLL).await;
    }
}

async fn outbox_mib(bed: &Testbed) -> anyhow::Result<f64> {
    let bytes: i64 = sqlx::query_scalar(include_str!("../sql/outbox_bytes.sql"))
        .fetch_one(bed.store().pool())
        .await?;
    Ok(as_f64(usize::try_from(bytes)?) / MIB)
}

fn rates(measured: &[Measured], events: usize) -> Option<Spread> {
    let of = measured.iter().filter(|one| one.events == events);
    Spread::of(of.map(|one| one.events_per_second))
}

fn table(arguments: &Arguments, measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "backlog",
        "events/s",
        "min..max",
        "outbox, MiB: before",
        "published and dropped",
        "relay: memory peak",
    ]);
    for events in [arguments.beside, arguments.events] {
        let Some(rate) = rates(measured, events) else { continue };
        let of = || measured.iter().filter(move |one| one.events == events);
        // Only the first deployment finds the outbox complete.
        let outbox = of().next().map(|one| (one.outbox_mib_before, one.outbox_mib_after));
        let (before, after) = outbox.unwrap_or_default();
        let memory = Spread::of(of().map(|one| one.used.memory_peak_mib));
        table.row(vec![
            number(as_f64(events)),
            number(rate.median),
            rate.ends(),
            number(before),
            number(after),
            memory.map_or_else(String::new, |memory| format!("{:.0} MiB", memory.max)),
        ]);
    }
    table
}
