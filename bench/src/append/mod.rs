//! Appends per second: the store beside pgbench, which calls the same SQL procedure with the same
//! sizes.

pub(crate) mod bed;
pub(crate) mod clients;
pub(crate) mod pgbench;

use std::time::Duration;

use serde::Serialize;

use self::bed::Bed;
use self::pgbench::Pgbench;
use crate::machine::CpuTime;
use crate::report::{Report, Table, number, print, progress};
use crate::spread::{Spread, as_f64};

/// Appends per second: the store beside pgbench, which calls the same SQL procedure.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Events per append.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    events: Vec<usize>,
    /// Concurrent clients, each with a connection of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    clients: Vec<u32>,
    /// Number of streams that receive the appends.
    #[arg(long, default_value_t = 50_000)]
    streams: usize,
}

/// The parameters of one measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Load {
    pub(crate) events: usize,
    pub(crate) clients: u32,
    pub(crate) streams: usize,
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub(crate) duration: Duration,
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// The appending program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Store,
    Pgbench,
}

/// One measurement.
#[derive(Debug, Serialize)]
struct Measured {
    side: Side,
    round: usize,
    #[serde(flatten)]
    load: Load,
    appends_per_second: f64,
    cpu_busy: f64,
}

/// Measures every cell in every round, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let pgbench = Pgbench::find();
    if pgbench.is_none() {
        print(
            &"pgbench is on neither PATH nor in /usr/lib/postgresql/*/bin: the store is measured alone",
        );
    }
    let mut measured = Vec::new();
    for round in 0..arguments.rounds {
        for load in arguments.loads() {
            for side in sides(round, pgbench.is_some()) {
                let one = measure(side, round, load, (pgbench.as_ref(), &report)).await?;
                report.line("append", &one)?;
                progress(&format!(
                    "round {} of {}: {side:?}, {} events, {} clients: {} appends/s",
                    round + 1,
                    arguments.rounds,
                    load.events,
                    load.clients,
                    number(one.appends_per_second)
                ));
                measured.push(one);
            }
        }
    }
    print(&table(&arguments.loads(), &measured));
    report.finish();
    Ok(())
}

impl Arguments {
    fn loads(&self) -> Vec<Load> {
        let duration = Duration::from_secs(self.seconds);
        let of = |events: usize| {
            self.clients.iter().map(move |&clients| Load {
                events,
                clients,
                streams: self.streams,
                duration,
            })
        };
        self.events.iter().flat_map(|&events| of(events)).collect()
    }
}

/// Each side goes first in every other round, so that a machine that slows down or warms up favours
/// neither.
fn sides(round: usize, with_pgbench: bool) -> Vec<Side> {
    let mut sides = vec![Side::Store, Side::Pgbench];
    if round % 2 == 1 {
        sides.reverse();
    }
    sides.retain(|side| with_pgbench || *side == Side::Store);
    sides
}

/// Measures one cell in fresh tables, and checks that the counted events are the recorded ones.
async fn measure(
    side: Side,
    round: usize,
    load: Load,
    (pgbench, report): (Option<&Pgbench>, &Report),
) -> anyhow::Result<Measured> {
    let bed = Bed::make(load).await?;
    let before = bed.events().await?;
    let cpu = CpuTime::now()?;
    let run = match (side, pgbench) {
        (Side::Pgbench, Some(pgbench)) => {
            pgbench.append(bed.database_url(), load, report.directory()).await?
        }
        (Side::Pgbench, None) | (Side::Store, _) => {
            clients::run(bed.store(), load, clients::Tagging::None).await?
        }
    };
    let cpu_busy = CpuTime::now()?.busy_since(cpu);
    let recorded = bed.events().await? - before;
    let expected = run.appends * i64::try_from(load.events)?;
    anyhow::ensure!(
        recorded == expected,
        "{side:?} counted {} appends of {} events, but {recorded} events were recorded",
        run.appends,
        load.events
    );
    Ok(Measured { side, round, load, appends_per_second: run.appends_per_second, cpu_busy })
}

/// The counts of one measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Run {
    /// All events, including those from before the clock started.
    pub(crate) appends: i64,
    pub(crate) appends_per_second: f64,
}

fn table(loads: &[Load], measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "events",
        "clients",
        "store appends/s",
        "min..max",
        "pgbench appends/s",
        "min..max",
        "store/pgbench",
        "store events/s",
        "cpu busy",
    ]);
    for load in loads {
        let of =
            |side: Side| measured.iter().filter(move |one| one.side == side && one.load == *load);
        let rate = |side| Spread::of(of(side).map(|one| one.appends_per_second));
        let Some(store) = rate(Side::Store) else { continue };
        let pgbench = rate(Side::Pgbench);
        let cpu =
            Spread::of(of(Side::Store).map(|one| one.cpu_busy)).map_or(0.0, |spread| spread.median);
        let absent = || "-".to_owned();
        table.row(vec![
            load.events.to_string(),
            load.clients.to_string(),
            number(store.median),
            store.ends(),
            pgbench.map_or_else(absent, |pgbench| number(pgbench.median)),
            pgbench.map_or_else(absent, Spread::ends),
            pgbench.map_or_else(absent, |pgbench| format!("{:.2}", store.median / pgbench.median)),
            number(store.median * as_f64(load.events)),
            format!("{:.0} %", cpu * 100.0),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_first_changes_with_the_round() {
        assert_eq!(sides(0, true), [Side::Store, Side::Pgbench]);
        assert_eq!(sides(1, true), [Side::Pgbench, Side::Store]);
        assert_eq!(sides(1, false), [Side::Store]);
    }
}
