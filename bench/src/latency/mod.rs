//! From append to consumer, at a steady rate, with the relay in between.

mod broker;
pub(crate) mod figures;
mod hops;
mod pace;
pub(crate) mod receiver;
mod sides;
pub(crate) mod writers;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use annals_testkit::Testbed;
use anyhow::Context;
use serde::Serialize;
use uuid::Uuid;

use self::broker::BrokerTimes;
use self::figures::{Figures, PERCENTILES, Span};
use self::hops::Hops;
use self::sides::{Ended, Round, Side};
use self::writers::{Sent, Writers};
use crate::debezium::{Debezium, Peer};
use crate::goals::Goal;
use crate::process::Used;
use crate::report::{Report, Table, print, progress};
use crate::spread::{Spread, as_f64};

/// Time limit for the last events to arrive.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(60);

/// From append to consumer, at a steady rate.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds, each with fresh tables, topics and relay.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Appends per second, of one event each.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Duration of the same load before it, unmeasured.
    #[arg(long, default_value_t = 10)]
    warm_up_seconds: u32,
    /// Concurrent writers, each with a connection.
    #[arg(long, default_value_t = 16)]
    writers: u32,
    /// Number of streams that receive the events.
    #[arg(long, default_value_t = 50_000)]
    streams: usize,
    /// The peer that transports the same events beside the relay, from a table of its own.
    #[arg(long)]
    peer: Option<Peer>,
    /// The directory into which bench/peers/install has installed the peers.
    #[arg(long, default_value = "target/peers")]
    peers: PathBuf,
    /// Reads the broker's own times of each measurement, over JMX. The broker has to be the only
    /// one of this machine.
    #[arg(long)]
    broker: bool,
}

/// One round of one side.
#[derive(Debug, Serialize)]
struct Measured {
    side: Side,
    round: usize,
    events: usize,
    figures: Vec<Figures>,
    recorded_mean_ms: f64,
    hops: Option<Hops>,
    used: Used,
    broker: Option<BrokerTimes>,
}

/// Measures every round, and prints the table of medians.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let bed = Testbed::new("bench_latency_peer").await;
    let mut sides = vec![Side::Relay, Side::RelayBesideOpen, Side::RelayAtLeastOnce];
    let mut debezium = None;
    if let Some(Peer::Debezium) = arguments.peer {
        let url = bed.database_url();
        debezium = Some(Debezium::start(&arguments.peers, report.directory(), &url).await?);
        sides.push(Side::Debezium);
    }
    let mut measured = Vec::new();
    // The first does not count: a broker that has just started is busy compiling itself, and so is
    // Debezium.
    for round in 0..=arguments.rounds {
        for &side in &sides {
            let one = measure(arguments, (side, round), debezium.as_ref(), &report).await?;
            progress(&format!("round {round} of {}: {side}: {}", arguments.rounds, summary(&one)));
            if round > 0 {
                report.line("latency", &one)?;
                measured.push(one);
            }
        }
        sides.rotate_left(1);
    }
    print(&format!(
        "{} appends/s of one event for {} s, {} writers; ms, median of {} rounds (min..max)\n",
        arguments.rate, arguments.seconds, arguments.writers, arguments.rounds
    ));
    print(&table(&measured));
    tell_used(arguments, &measured);
    tell_broker_times(arguments, &measured);
    goals(&measured, &mut report)?;
    report.finish();
    if let Some(debezium) = debezium {
        debezium.stop().await?;
    }
    Ok(())
}

/// The resource use of each side, and the parts of the relay's time.
fn tell_used(arguments: &Arguments, measured: &[Measured]) {
    let seconds = f64::from(arguments.warm_up_seconds + arguments.seconds);
    for side in Side::ALL {
        let of = || measured.iter().filter(move |one| one.side == side);
        let cores = Spread::of(of().map(|one| one.used.cpu_seconds / seconds));
        let memory = Spread::of(of().map(|one| one.used.memory_peak_mib));
        let (Some(cores), Some(memory)) = (cores, memory) else { continue };
        print(&format!("{side}: {:.2} of a core, memory peak {:.0} MiB", cores.median, memory.max));
        for one in of() {
            if let Some(hops) = one.hops {
                print(&format!(
                    "{side}, round {}: {}",
                    one.round,
                    hops.describe(one.recorded_mean_ms)
                ));
            }
        }
    }
}

/// The broker's own times of each side, if they were read.
fn tell_broker_times(arguments: &Arguments, measured: &[Measured]) {
    let seconds = f64::from(arguments.warm_up_seconds + arguments.seconds);
    for side in Side::ALL {
        let of_side = measured.iter().filter(|one| one.side == side);
        let times: Vec<&BrokerTimes> = of_side.filter_map(|one| one.broker.as_ref()).collect();
        if !times.is_empty() {
            print(&format!("\nthe broker's own times, {side}\n"));
            print(&broker::table(seconds, &times));
        }
    }
}

fn goals(measured: &[Measured], report: &mut Report) -> anyhow::Result<()> {
    let ratio = |side, beside, of: fn(&Figures) -> f64| {
        let figure = |side, round| {
            let one = measured.iter().find(|one| one.side == side && one.round == round)?;
            one.figures.iter().find(|one| one.span == Span::Called).map(of)
        };
        let ratios = (1..).map_while(|round| Some(figure(side, round)? / figure(beside, round)?));
        Some(Spread::of(ratios)?.median)
    };
    let (relay, open, debezium) = (Side::Relay, Side::RelayBesideOpen, Side::Debezium);
    let figures = [
        ("latency p50, relay/Debezium", ratio(relay, debezium, Figures::p50_ms), 0.7),
        ("latency p99, relay/Debezium", ratio(relay, debezium, Figures::p99_ms), 1.0),
        (
            "latency p50, beside an open transaction/without",
            ratio(open, relay, Figures::p50_ms),
            1.1,
        ),
    ];
    for (name, figure, goal) in figures {
        if let Some(figure) = figure {
            report.figure(name, figure, Goal::AtMost(goal))?;
        }
    }
    Ok(())
}

fn summary(one: &Measured) -> String {
    one.figures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn table(measured: &[Measured]) -> Table {
    let names: Vec<&str> = PERCENTILES.iter().map(|(name, _)| *name).collect();
    let mut table = Table::new(&[&["", "from"], names.as_slice()].concat());
    for side in Side::ALL {
        for span in Span::ALL {
            let of = measured.iter().filter(|one| one.side == side);
            let figures: Vec<_> =
                of.flat_map(|one| &one.figures).filter(|one| one.span == span).collect();
            let cell = |place: usize| {
                let spread = Spread::of(figures.iter().map(|one| one.percentiles_ms[place]))?;
                Some(format!("{:.1} ({:.1}..{:.1})", spread.median, spread.min, spread.max))
            };
            let cells: Option<Vec<_>> = (0..PERCENTILES.len()).map(cell).collect();
            if let Some(cells) = cells {
                table.row([side.to_string(), span.to_string()].into_iter().chain(cells).collect());
            }
        }
    }
    table
}

async fn measure(
    arguments: &Arguments,
    (side, number): (Side, usize),
    debezium: Option<&Debezium>,
    report: &Report,
) -> anyhow::Result<Measured> {
    let mut round = match (side, debezium) {
        (Side::Debezium, Some(debezium)) => {
            let name = format!("bench_latency_{}", Uuid::new_v4().simple());
            Round::debezium(arguments, name, debezium).await?
        }
        _ => Round::relay(arguments, side, report).await?,
    };
    let (target, streams) = (round.target.clone(), arguments.streams);
    let writers = Writers { target, count: arguments.writers, streams };
    let counted = round.receiver.counted();
    // The very first event creates the topic, and shows that both sides are ready.
    writers.append_one().await?;
    let before = broker_times(arguments, report).await?;
    let warm_up = arguments.rate * arguments.warm_up_seconds;
    let working = async {
        counted.wait_for(1).await?;
        writers.run(arguments.rate, warm_up).await?;
        let sent = writers.run(arguments.rate, arguments.rate * arguments.seconds).await?;
        counted.wait_for(1 + usize::try_from(warm_up)? + sent.len()).await?;
        anyhow::Ok(sent)
    };
    let sent = tokio::select! {
        sent = working => sent?,
        ended = round.ended() => return Err(ended),
    };
    let after = broker_times(arguments, report).await?;
    let Ended { used, hops, received } = round.end().await?;
    let broker = after.zip(before).map(|(after, before)| after.since(&before));
    let figures = figures(&sent, &received)?;
    let since: Vec<f64> =
        received.iter().filter_map(|one| Some(one.since_recorded?.as_secs_f64() * 1e3)).collect();
    let recorded_mean_ms = since.iter().sum::<f64>() / as_f64(since.len().max(1));
    let events = sent.len();
    Ok(Measured { side, round: number, events, figures, recorded_mean_ms, hops, used, broker })
}

/// The broker's own times until now, if they are wanted.
async fn broker_times(
    arguments: &Arguments,
    report: &Report,
) -> anyhow::Result<Option<BrokerTimes>> {
    if !arguments.broker {
        return Ok(None);
    }
    BrokerTimes::read(report.directory()).await.map(Some)
}

/// Joins the times of the writers and of the consumer.
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
            durations.extend(match span {
                Span::Intended => Some(until(one.intended)),
                Span::Called => Some(until(one.called)),
                Span::Returned => Some(until(one.returned)),
                Span::Recorded => arrived.since_recorded,
                Span::Append => Some(one.returned - one.called),
            });
        }
    }
    let spans = spans.into_iter().filter(|(_, durations)| !durations.is_empty());
    spans.map(|(span, durations)| Figures::of(span, durations)).collect()
}
