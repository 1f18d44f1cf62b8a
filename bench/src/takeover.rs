//! The time until the shards of an ended relay are published again.

use std::path::Path;
use std::time::{Duration, Instant};

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{Environment, Testbed};
use anyhow::Context;
use serde::Serialize;

use crate::event::{self, CATEGORY, new_event};
use crate::goals::Goal;
use crate::latency::figures::{Figures, PERCENTILES, Span};
use crate::latency::receiver::Receiver;
use crate::relay::{self, Relay};
use crate::report::{Report, Table, print, progress};

/// Events in these streams reach every shard.
const STREAMS: usize = 64;
const INSTANCES: [&str; 2] = ["a", "b"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Takeovers per way to end.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
}

/// The way a relay ends.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    /// SIGKILL.
    Killed,
    /// SIGTERM.
    Told,
}

impl Ending {
    const fn name(self) -> &'static str {
        match self {
            Self::Killed => "takeover after SIGKILL, p99, ms",
            Self::Told => "takeover after SIGTERM, p99, ms",
        }
    }

    const fn goal(self) -> Goal {
        match self {
            Self::Killed => Goal::AtMost(5_000.0),
            Self::Told => Goal::AtMost(500.0),
        }
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    ending: Ending,
    #[serde(flatten)]
    figures: Figures,
    /// Each takeover, in the order of the rounds.
    rounds_ms: Vec<f64>,
}

/// Measures both ways to end, one after the other, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let mut header = vec!["the relay was"];
    header.extend(PERCENTILES.iter().map(|(name, _)| *name));
    let mut table = Table::new(&header);
    for ending in [Ending::Told, Ending::Killed] {
        let gaps = measure(ending, arguments.rounds, report.directory()).await?;
        let rounds_ms = gaps.iter().copied().map(in_ms).collect();
        let figures = Figures::of(Span::Called, gaps)?;
        progress(&format!("{ending:?}: {figures}"));
        let mut row = vec![format!("{ending:?}").to_lowercase()];
        row.extend(figures.percentiles_ms.iter().map(|ms| format!("{ms:.0}")));
        table.row(row);
        report.figure(ending.name(), figures.p99_ms(), ending.goal())?;
        report.line("takeover", &Measured { ending, figures, rounds_ms })?;
    }
    print(&table);
    report.finish();
    Ok(())
}

/// The state that the rounds share.
struct Bed<'a> {
    testbed: Testbed,
    receiver: Receiver,
    appended: usize,
    directory: &'a Path,
}

async fn measure(ending: Ending, rounds: usize, directory: &Path) -> anyhow::Result<Vec<Duration>> {
    let testbed = Testbed::new("bench_takeover").await;
    let receiver = Receiver::start(&Environment::get().kafka, &testbed.topic(CATEGORY))?;
    let mut bed = Bed { testbed, receiver, appended: 0, directory };
    let [a, b] = [bed.start(INSTANCES[0]).await?, bed.start(INSTANCES[1]).await?];
    let mut relays = [a, b];
    let mut gaps = Vec::new();
    for round in 0..rounds {
        bed.publish_everywhere().await?;
        let number = round % relays.len();
        let ended = Instant::now();
        relays[number].signal(match ending {
            Ending::Killed => "-KILL",
            Ending::Told => "-TERM",
        })?;
        bed.publish_everywhere().await?;
        let gap = ended.elapsed();
        if !ending.goal().is_met(in_ms(gap)) {
            progress(&format!("{ending:?}: round {} took {gap:?}", round + 1));
        }
        gaps.push(gap);
        relays[number].gone().await?;
        relays[number] = bed.start(INSTANCES[number]).await?;
        if round % 10 == 9 {
            progress(&format!("{ending:?}: {} of {rounds}", round + 1));
        }
    }
    for relay in relays {
        relay.stop().await?;
    }
    bed.receiver.stop().await?;
    Ok(gaps)
}

fn in_ms(gap: Duration) -> f64 {
    gap.as_secs_f64() * 1e3
}

impl Bed<'_> {
    /// Starts a relay, and waits until it publishes its share.
    async fn start(&self, instance: &str) -> anyhow::Result<Relay> {
        let relay = Relay::of(
            &self.testbed,
            instance,
            self.directory,
            relay::Log::Usual,
            relay::Delivery::ExactlyOnce,
        )?;
        relay.has_begun().await?;
        Ok(relay)
    }

    /// Appends an event to every shard, and waits until a consumer has all of them.
    async fn publish_everywhere(&mut self) -> anyhow::Result<()> {
        let first = (event::stream(0)?, new_event(0)?);
        let mut append = Append::to(&first.0, ExpectedVersion::Any, [first.1]);
        for number in 1..STREAMS {
            let event = new_event(i64::try_from(number)?)?;
            append = append.and_to(&event::stream(number)?, ExpectedVersion::Any, [event]);
        }
        self.testbed.store().append(&append).await.context("append")?;
        self.appended += STREAMS;
        self.receiver.wait_for(self.appended).await
    }
}
