//! Events of large transactions, as an import leaves them, beside the same number from small
//! appends: relay and follower must read them at the same rate.

use std::pin::pin;
use std::time::Instant;

use annals_store::{Append, ExpectedVersion, Follow};
use annals_testkit::Testbed;
use anyhow::Context;
use futures_util::TryStreamExt;
use serde::Serialize;

use crate::drain::once;
use crate::event::{self, new_event};
use crate::goals::Goal;
use crate::report::{Report, Table, number, print, progress};
use crate::settle::settle;
use crate::size::preload;
use crate::spread::{Spread, as_f64};

/// Maximum number of events per append.
const EVENTS_PER_APPEND: usize = 10_000;
const STREAMS: usize = 50_000;

/// The rate of relay and follower with events of large transactions, beside those of small ones.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Events in each backlog.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 8)]
    partitions: i32,
}

/// The transactions that wrote the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Written {
    /// Transactions of 100 events.
    Small,
    /// Transactions of 10,000 events.
    Large,
    /// One transaction.
    One,
}

impl Written {
    const ALL: [Self; 3] = [Self::Small, Self::Large, Self::One];

    const fn name(self) -> &'static str {
        match self {
            Self::Small => "transactions of 100 events",
            Self::Large => "transactions of 10,000 events",
            Self::One => "one transaction",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reader {
    Relay,
    Follower,
}

impl Reader {
    const ALL: [Self; 2] = [Self::Relay, Self::Follower];

    const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Follower => "follower",
        }
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    written: Written,
    reader: Reader,
    round: usize,
    events_per_second: f64,
}

/// Writes the three backlogs, measures each with both readers in every round, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let mut backlogs = Vec::new();
    for written in Written::ALL {
        progress(&format!("writing {} events: {}", arguments.events, written.name()));
        backlogs.push((written, write(written, arguments.events).await?));
    }
    let mut measured = Vec::new();
    // The first round does not count: a broker that has just started is busy compiling itself.
    for round in 0..=arguments.rounds {
        for (written, bed) in &backlogs {
            let both = measure(arguments, round, (*written, bed), &report).await?;
            measured.extend(both.into_iter().filter(|_| round > 0));
        }
        backlogs.rotate_left(1);
    }
    for one in &measured {
        report.line("bulk", one)?;
    }
    print(&table(&measured));
    for reader in Reader::ALL {
        for written in [Written::Large, Written::One] {
            if let Some(ratio) = ratio(&measured, reader, written) {
                let name = format!("{}, {}/small ones", reader.name(), written.name());
                report.figure(&name, ratio.median, Goal::AtLeast(0.7))?;
            }
        }
    }
    report.finish();
    Ok(())
}

/// Measures a backlog with both readers.
async fn measure(
    arguments: &Arguments,
    round: usize,
    (written, bed): (Written, &Testbed),
    report: &Report,
) -> anyhow::Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for reader in Reader::ALL {
        let events_per_second = match reader {
            Reader::Relay => drain(arguments, round, bed, report).await?,
            Reader::Follower => follow(arguments.events, bed).await?,
        };
        let one = Measured { written, reader, round, events_per_second };
        progress(&format!("{one:?}"));
        measured.push(one);
    }
    Ok(measured)
}

async fn write(written: Written, events: usize) -> anyhow::Result<Testbed> {
    let bed = Testbed::new("bench_bulk").await;
    let store = bed.store();
    match written {
        Written::Small => preload(store, events).await?,
        Written::Large => {
            for append in appends(events) {
                store.append(&append?).await?;
            }
        }
        Written::One => {
            let mut transaction = store.pool().begin().await?;
            for append in appends(events) {
                store.append_in(&mut transaction, &append?).await?;
            }
            transaction.commit().await?;
        }
    }
    settle(&bed.database_url()).await?;
    Ok(bed)
}

/// Appends with the maximum number of events, a hundred per stream, each time to new streams.
fn appends(events: usize) -> impl Iterator<Item = anyhow::Result<Append>> {
    const EVENTS_PER_STREAM: usize = 100;
    (0..events).step_by(EVENTS_PER_APPEND).map(move |first| {
        let mut append = Append::default();
        for begin in (first..events.min(first + EVENTS_PER_APPEND)).step_by(EVENTS_PER_STREAM) {
            let some = (begin..begin + EVENTS_PER_STREAM)
                .map(|number| Ok(new_event(i64::try_from(number)?)?));
            let stream = event::stream((begin / EVENTS_PER_STREAM) % STREAMS)?;
            let some = some.collect::<anyhow::Result<Vec<_>>>()?;
            append = append.and_to(&stream, ExpectedVersion::Any, some);
        }
        Ok(append)
    })
}

/// Lets a new deployment publish all of it.
async fn drain(
    arguments: &Arguments,
    round: usize,
    bed: &Testbed,
    report: &Report,
) -> anyhow::Result<f64> {
    let Arguments { events, partitions, .. } = *arguments;
    let deployment = format!("{}_{round}", bed.name());
    let size = (partitions, events);
    let took = once::drain(&bed.database_url(), &deployment, size, report).await?;
    Ok(as_f64(events) / took.as_secs_f64())
}

/// Follows from the beginning until every event has come.
async fn follow(events: usize, bed: &Testbed) -> anyhow::Result<f64> {
    let mut log = pin!(bed.store().follow(Follow::all()));
    let began = Instant::now();
    for _ in 0..events {
        log.try_next().await?.context("follow for ever")?;
    }
    Ok(as_f64(events) / began.elapsed().as_secs_f64())
}

fn table(measured: &[Measured]) -> Table {
    let mut table = Table::new(&["", "written by", "events/s", "min..max", "of small ones"]);
    for reader in Reader::ALL {
        for written in Written::ALL {
            let Some(rate) = Spread::of(of(measured, reader, written).map(|(_, rate)| rate)) else {
                continue;
            };
            let ratio = ratio(measured, reader, written);
            table.row(vec![
                reader.name().to_owned(),
                written.name().to_owned(),
                number(rate.median),
                rate.ends(),
                ratio.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median)),
            ]);
        }
    }
    table
}

/// The rates of the rounds.
fn of(
    measured: &[Measured],
    reader: Reader,
    written: Written,
) -> impl Iterator<Item = (usize, f64)> {
    let of = measured.iter().filter(move |one| one.reader == reader && one.written == written);
    of.map(|one| (one.round, one.events_per_second))
}

/// The rounds' ratios to the events of small transactions.
fn ratio(measured: &[Measured], reader: Reader, written: Written) -> Option<Spread> {
    let small = |round| {
        of(measured, reader, Written::Small).find_map(|(of, rate)| (of == round).then_some(rate))
    };
    let ratios =
        of(measured, reader, written).filter_map(|(round, rate)| Some(rate / small(round)?));
    Spread::of(ratios)
}
