//! From append to consumer, at a steady rate, with the relay in between.

pub(crate) mod figures;
mod pace;
pub(crate) mod receiver;
mod writers;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use annals_store::StoreOptions;
use annals_testkit::{Environment, Testbed};
use anyhow::Context;
use serde::Serialize;
use uuid::Uuid;

use self::figures::{Figures, PERCENTILES, Span};
use self::receiver::Receiver;
use self::writers::{Sent, Writers};
use crate::event::CATEGORY;
use crate::relay::{self, Relay, Used};
use crate::report::{Report, Table, print, progress};
use crate::spread::Spread;

/// How long the last events may take to arrive.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(60);

/// From append to consumer, at a steady rate.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often it is measured, each time with fresh tables, topics and relay.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Appends a second, of one event each.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// How long the same load runs before, unmeasured.
    #[arg(long, default_value_t = 5)]
    warm_up_seconds: u32,
    /// Concurrent writers, each with a connection.
    #[arg(long, default_value_t = 16)]
    writers: u32,
    /// Streams that the events are spread over.
    #[arg(long, default_value_t = 50_000)]
    streams: usize,
}

/// One round.
#[derive(Debug, Serialize)]
struct Measured {
    round: usize,
    events: usize,
    figures: Vec<Figures>,
    relay: Used,
}

/// Measures every round, and prints the table of medians.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let mut rounds = Vec::new();
    // A broker that has just started is busy compiling itself, which is no figure of the relay's.
    let warm_up = measure(arguments, 0, &report).await?;
    progress(&format!("a round before, which does not count: {}", summary(&warm_up)));
    for round in 1..=arguments.rounds {
        let one = measure(arguments, round, &report).await?;
        report.line("latency", &one)?;
        progress(&format!("round {round} of {}: {}", arguments.rounds, summary(&one)));
        rounds.push(one);
    }
    print(&format!(
        "{} appends/s of one event for {} s, {} writers; ms, median of {} rounds (min..max)\n",
        arguments.rate, arguments.seconds, arguments.writers, arguments.rounds
    ));
    print(&table(&rounds));
    print(&relay_line(arguments, &rounds).unwrap_or_default());
    report.finish();
    Ok(())
}

/// What the relay used meanwhile.
fn relay_line(arguments: &Arguments, rounds: &[Measured]) -> Option<String> {
    let seconds = f64::from(arguments.warm_up_seconds + arguments.seconds);
    let cores = Spread::of(rounds.iter().map(|one| one.relay.cpu_seconds / seconds))?.median;
    let memory = Spread::of(rounds.iter().map(|one| one.relay.memory_peak_mib))?.max;
    Some(format!("relay: {cores:.2} of a core, memory peak {memory:.0} MiB"))
}

fn summary(one: &Measured) -> String {
    one.figures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn table(rounds: &[Measured]) -> Table {
    let names: Vec<&str> = PERCENTILES.iter().map(|(name, _)| *name).collect();
    let mut table = Table::new(&[&["from"], names.as_slice()].concat());
    for span in Span::ALL {
        let figures =
            || rounds.iter().flat_map(|one| &one.figures).filter(move |one| one.span == span);
        let cell = |place: usize| {
            let spread = Spread::of(figures().map(|one| one.percentiles_ms[place]))?;
            Some(format!("{:.1} ({:.1}..{:.1})", spread.median, spread.min, spread.max))
        };
        let cells = (0..PERCENTILES.len()).map(|place| cell(place).unwrap_or_default());
        table.row(std::iter::once(span.to_string()).chain(cells).collect());
    }
    table
}

async fn measure(arguments: &Arguments, round: usize, report: &Report) -> anyhow::Result<Measured> {
    let bed = Testbed::new("bench_latency").await;
    let store = StoreOptions::default()
        .connections_max(arguments.writers)
        .connect(&bed.database_url())
        .await?;
    let mut relay = Relay::start(&relay::Settings {
        database_url: &bed.database_url(),
        deployment: bed.name(),
        instance: "a",
        topic_prefix: &bed.topic_prefix(),
        directory: report.directory(),
    })?;
    let receiver = Receiver::start(&Environment::get().kafka, &bed.topic(CATEGORY))?;
    let writers = Writers { store, count: arguments.writers, streams: arguments.streams };
    // The first event of all makes the topic, and tells when the relay and the consumer are ready.
    writers.append_one().await?;
    let warm_up = arguments.rate * arguments.warm_up_seconds;
    let working = async {
        receiver.wait_for(1).await?;
        writers.run(arguments.rate, warm_up).await?;
        let sent = writers.run(arguments.rate, arguments.rate * arguments.seconds).await?;
        receiver.wait_for(1 + usize::try_from(warm_up)? + sent.len()).await?;
        anyhow::Ok(sent)
    };
    let sent = tokio::select! {
        sent = working => sent.with_context(|| relay.where_log_is())?,
        ended = relay.ended() => return Err(ended),
    };
    let used = relay.used()?;
    relay.stop().await?;
    let received = receiver.stop().await?;
    Ok(Measured { round, events: sent.len(), figures: figures(&sent, &received)?, relay: used })
}

/// Puts together what the writers and the consumer noted.
fn figures(sent: &[Sent], received: &[receiver::Received]) -> anyhow::Result<Vec<Figures>> {
    let arrived: HashMap<Uuid, &receiver::Received> =
        received.iter().map(|one| (one.event_id, one)).collect();
    anyhow::ensure!(arrived.len() == received.len(), "an event was received twice");
    let mut spans: Vec<(Span, Vec<Duration>)> = Span::ALL.map(|span| (span, Vec::new())).into();
    for one in sent {
        let arrived = arrived
            .get(&one.event_id)
            .with_context(|| format!("event {} did not arrive", one.event_id))?;
        let until = |from: Instant| arrived.at.saturating_duration_since(from);
        for (span, durations) in &mut spans {
            durations.push(match span {
                Span::Intended => until(one.intended),
                Span::Called => until(one.called),
                Span::Returned => until(one.returned),
                Span::Recorded => arrived.since_recorded,
                Span::Append => one.returned - one.called,
            });
        }
    }
    spans.into_iter().map(|(span, durations)| Figures::of(span, durations)).collect()
}
