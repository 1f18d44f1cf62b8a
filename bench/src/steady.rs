//! The delay of an append at a steady rate, with coalescing and without.

use std::time::Duration;

use annals_store::{Store, StoreOptions};
use serde::Serialize;

use crate::append::Load;
use crate::append::bed::Bed;
use crate::goals::Goal;
use crate::latency::figures::{Figures, PERCENTILES, Span};
use crate::latency::writers::{Sent, Target, Writers};
use crate::report::{Report, Table, print, progress};
use crate::spread::Spread;

/// The delay of an append of one event at a steady rate, with coalescing and without.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Appends per second.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Concurrent writers.
    #[arg(long, default_value_t = 16)]
    writers: u32,
    /// Number of streams that receive the appends.
    #[arg(long, default_value_t = 50_000)]
    streams: usize,
}

/// How appends go to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    Coalesced,
    CallPerAppend,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Coalesced => "coalescing",
            Self::CallPerAppend => "a call per append",
        }
    }
}

/// One measurement.
#[derive(Debug, Serialize)]
struct Measured {
    way: Way,
    round: usize,
    /// From the scheduled time to the answer.
    figures: Figures,
}

/// Measures both in every round, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let mut measured = Vec::new();
    let mut ways = [Way::Coalesced, Way::CallPerAppend];
    for round in 0..arguments.rounds {
        for way in ways {
            let figures = arguments.measure(way).await?;
            progress(&format!("round {}: {}: {figures}", round + 1, way.name()));
            let one = Measured { way, round, figures };
            report.line("steady", &one)?;
            measured.push(one);
        }
        // Each goes first in every other round.
        ways.reverse();
    }
    print(&table(&measured));
    if let Some(ratio) = Spread::of(p99_ratios(&measured)) {
        report.figure(
            "p99 of an append, coalescing / a call per append",
            ratio.median,
            Goal::AtMost(1.0),
        )?;
    }
    report.finish();
    Ok(())
}

impl Arguments {
    async fn measure(&self, way: Way) -> anyhow::Result<Figures> {
        let (clients, streams) = (self.writers, self.streams);
        let bed = Bed::make(Load { events: 1, clients, streams, duration: Duration::ZERO }).await?;
        let target = Target::Store(self.connect(way, &bed).await?);
        let writers = Writers { target, count: self.writers, streams: self.streams };
        // Opens the connections and prepares the statements.
        writers.run(self.rate, self.rate).await?;
        let sent = writers.run(self.rate, self.rate * self.seconds).await?;
        let delay = |sent: &Sent| sent.returned - sent.intended;
        Figures::of(Span::Append, sent.iter().map(delay))
    }

    async fn connect(&self, way: Way, bed: &Bed) -> anyhow::Result<Store> {
        let options = StoreOptions::default().connections_max(self.writers);
        let options = match way {
            Way::Coalesced => options,
            Way::CallPerAppend => options.without_coalescing(),
        };
        Ok(options.connect(bed.database_url()).await?)
    }
}

/// The ratio of the two in each round: machines change over minutes.
fn p99_ratios(measured: &[Measured]) -> impl Iterator<Item = f64> {
    let of = move |way: Way| measured.iter().filter(move |one| one.way == way);
    of(Way::Coalesced).filter_map(move |one| {
        let other = of(Way::CallPerAppend).find(|other| other.round == one.round)?;
        Some(one.figures.p99_ms() / other.figures.p99_ms())
    })
}

fn table(measured: &[Measured]) -> Table {
    let names = PERCENTILES.map(|(name, _)| name);
    let mut table = Table::new(&[&["scheduled → answered, ms"][..], &names].concat());
    for way in [Way::Coalesced, Way::CallPerAppend] {
        let percentile = |index: usize| {
            let of_way = measured.iter().filter(|one| one.way == way);
            let spread = Spread::of(of_way.map(|one| one.figures.percentiles_ms[index]));
            spread.map_or_else(String::new, |spread| {
                format!("{:.1} ({:.1}..{:.1})", spread.median, spread.min, spread.max)
            })
        };
        let cells = (0..PERCENTILES.len()).map(percentile);
        table.row(std::iter::once(way.name().to_owned()).chain(cells).collect());
    }
    table
}
