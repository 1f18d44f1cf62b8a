//! What another program on the same server loses: pgbench's TPC-B beside appends and their relay.

use std::time::Duration;

use annals_store::StoreOptions;
use annals_testkit::{Environment, Testbed};
use anyhow::Context;
use serde::Serialize;

use crate::append::Load;
use crate::append::pgbench::Pgbench;
use crate::event::CATEGORY;
use crate::latency::receiver::Receiver;
use crate::latency::writers::{Target, Writers};
use crate::machine::CpuTime;
use crate::relay::{self, Relay};
use crate::report::{Report, Table, number, print, progress};
use crate::settle::settle;
use crate::spread::Spread;

/// Appends before a measurement, for as long: connections, statements and the topic exist then.
const WARM_UP_SECONDS: u32 = 2;

/// What another program on the same server loses: TPC-B beside appends and their relay.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
    /// Appends per second, of one event each.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Concurrent writers, each with a connection.
    #[arg(long, default_value_t = 8)]
    writers: u32,
    /// Number of streams that receive the events.
    #[arg(long, default_value_t = 50_000)]
    streams: usize,
    /// Concurrent clients of TPC-B, each with a connection.
    #[arg(long, default_value_t = 4)]
    clients: u32,
    /// Branches of TPC-B, of 100,000 accounts each.
    #[arg(long, default_value_t = 20)]
    scale: u32,
}

/// What the neighbour shares its server with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Beside {
    Nothing,
    Appends,
    AppendsAndRelay,
}

impl Beside {
    const ALL: [Self; 3] = [Self::Nothing, Self::Appends, Self::AppendsAndRelay];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "alone",
            Self::Appends => "beside appends",
            Self::AppendsAndRelay => "beside appends and their relay",
        }
    }
}

/// One measurement.
#[derive(Debug, Serialize)]
struct Measured {
    beside: Beside,
    round: usize,
    transactions_per_second: f64,
    cpu_busy: f64,
}

/// The neighbour: TPC-B in a database of its own.
struct Neighbour {
    pgbench: Pgbench,
    bed: Testbed,
    load: Load,
}

impl Neighbour {
    async fn transactions_per_second(&self) -> anyhow::Result<f64> {
        Ok(self.pgbench.tpcb(&self.bed.database_url(), self.load).await?.appends_per_second)
    }
}

/// Measures the neighbour in every round with each of them, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let neighbour = arguments.neighbour().await?;
    let mut measured = Vec::new();
    let mut sides = Beside::ALL;
    for round in 0..arguments.rounds {
        for beside in sides {
            settle(&neighbour.bed.database_url()).await?;
            let one = measure(arguments, (beside, round), &neighbour, &report).await?;
            let rate = number(one.transactions_per_second);
            progress(&format!("round {}: {}: {rate} transactions/s", round + 1, beside.name()));
            report.line("neighbour", &one)?;
            measured.push(one);
        }
        // Each goes first in turn.
        sides.rotate_left(1);
    }
    print(&format!(
        "TPC-B, scale {}, {} clients, {} s, beside {} appends/s; median of {} rounds\n",
        arguments.scale, arguments.clients, arguments.seconds, arguments.rate, arguments.rounds
    ));
    print(&table(&measured));
    report.finish();
    Ok(())
}

impl Arguments {
    async fn neighbour(&self) -> anyhow::Result<Neighbour> {
        let pgbench = Pgbench::find().context(
            "pgbench is on neither PATH nor in /usr/lib/postgresql/*/bin: install postgresql-contrib",
        )?;
        let bed = Testbed::new("bench_neighbour").await;
        pgbench.initialize_tpcb(&bed.database_url(), self.scale).await?;
        let duration = Duration::from_secs(u64::from(self.seconds));
        let load = Load { events: 1, clients: self.clients, streams: 0, duration };
        Ok(Neighbour { pgbench, bed, load })
    }
}

async fn measure(
    arguments: &Arguments,
    (beside, round): (Beside, usize),
    neighbour: &Neighbour,
    report: &Report,
) -> anyhow::Result<Measured> {
    let (transactions_per_second, cpu_busy) = match beside {
        Beside::Nothing => {
            let cpu = CpuTime::now()?;
            (neighbour.transactions_per_second().await?, CpuTime::now()?.busy_since(cpu))
        }
        Beside::Appends | Beside::AppendsAndRelay => {
            beside_appends(arguments, beside, neighbour, report).await?
        }
    };
    Ok(Measured { beside, round, transactions_per_second, cpu_busy })
}

/// The neighbour's transactions a second while events are appended, and the share of the cores that
/// is busy. Afterwards every appended event has to be on the topic if a relay runs.
async fn beside_appends(
    arguments: &Arguments,
    beside: Beside,
    neighbour: &Neighbour,
    report: &Report,
) -> anyhow::Result<(f64, f64)> {
    let bed = Testbed::new("bench_beside_neighbour").await;
    let options = StoreOptions::default().connections_max(arguments.writers);
    let target = Target::Store(options.connect(&bed.database_url()).await?);
    sqlx::query(include_str!("../sql/streams.sql"))
        .bind(i32::try_from(arguments.streams)?)
        .execute(bed.store().pool())
        .await?;
    settle(&bed.database_url()).await?;
    let relay = match beside {
        Beside::AppendsAndRelay => Some(Relay::of(
            &bed,
            "a",
            report.directory(),
            relay::Log::Usual,
            relay::Delivery::ExactlyOnce,
        )?),
        Beside::Nothing | Beside::Appends => None,
    };
    let writers = Writers { target, count: arguments.writers, streams: arguments.streams };
    let warm_up = arguments.rate * WARM_UP_SECONDS;
    writers.run(arguments.rate, warm_up).await?;
    let cpu = CpuTime::now()?;
    // A little longer than the neighbour's run, whose connections are not part of its rate.
    let appends = arguments.rate * (arguments.seconds + 1);
    let (sent, rate) = tokio::try_join!(
        writers.run(arguments.rate, appends),
        neighbour.transactions_per_second()
    )?;
    let cpu_busy = CpuTime::now()?.busy_since(cpu);
    if let Some(relay) = relay {
        let receiver = Receiver::start(&Environment::get().kafka, &bed.topic(CATEGORY))?;
        receiver.wait_for(usize::try_from(warm_up)? + sent.len()).await?;
        receiver.stop().await?;
        relay.stop().await?;
    }
    Ok((rate, cpu_busy))
}

fn table(measured: &[Measured]) -> Table {
    let mut table =
        Table::new(&["TPC-B", "transactions/s", "min..max", "of alone", "min..max", "cpu busy"]);
    for beside in Beside::ALL {
        let of = |beside| measured.iter().filter(move |one| one.beside == beside);
        let rates = Spread::of(of(beside).map(|one| one.transactions_per_second));
        // The ratio in each round: machines change over minutes.
        let ratios = of(beside).filter_map(|one| {
            let alone = of(Beside::Nothing).find(|alone| alone.round == one.round)?;
            Some(one.transactions_per_second / alone.transactions_per_second)
        });
        let cpu = Spread::of(of(beside).map(|one| one.cpu_busy));
        let (Some(rate), Some(ratio), Some(cpu)) = (rates, Spread::of(ratios), cpu) else {
            continue;
        };
        table.row(vec![
            beside.name().to_owned(),
            number(rate.median),
            rate.ends(),
            number(ratio.median),
            ratio.ends(),
            format!("{:.0} %", cpu.median * 100.0),
        ]);
    }
    table
}
