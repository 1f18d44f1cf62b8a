//! Append, read, follow and drain with a hundred million events in the tables, beside a million.

mod readers;
mod tables;
mod work;

use serde::Serialize;

use self::readers::Tail;
use self::tables::Tables;
use self::work::{Measured, Work, repeat};
use crate::goals::Goal;
use crate::report::{Report, Table, number, print, progress};
use crate::spread::Spread;

/// Append, read, follow and drain with a hundred million events in the tables, beside a million.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Events in the large tables, written by SQL; some 320 MB of disk per million, and as much
    /// again for the log and for sorting while they are written.
    #[arg(long, default_value_t = 100_000_000)]
    events: usize,
    /// Events in the small tables.
    #[arg(long, default_value_t = 1_000_000)]
    beside: usize,
    /// Events that are appended behind both, for follower and relay.
    #[arg(long, default_value_t = 1_000_000)]
    tail: usize,
    /// Rounds. One more comes before them, and does not count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Duration of each measurement of appends and reads.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The URL of a database that an earlier run has filled with so many events, and kept
    /// (`ANNALS_TEST_KEEP`): it is measured again.
    #[arg(long)]
    filled: Option<String>,
    /// What is measured; all by default.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Work::ALL)]
    only: Vec<Work>,
}

#[derive(Debug, Serialize)]
struct Pair {
    work: Work,
    round: usize,
    large: Measured,
    small: Measured,
}

/// Fills two databases, and measures them in turns.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let small = Tables::fill(arguments.beside).await?;
    let large = match &arguments.filled {
        Some(url) => Tables::found(url, arguments.events).await?,
        None => Tables::fill(arguments.events).await?,
    };
    let tables = [&large, &small];
    for tables in tables {
        print(&tables.size().await?);
    }
    let mut pairs = Vec::new();
    let (of_tail, repeated): (Vec<Work>, Vec<Work>) =
        arguments.only.iter().partition(|work| work.is_of_tail());
    // All reads before the first append: appends would make the fewer streams of the small tables
    // longer than those of the large ones.
    let (appends, reads): (Vec<Work>, Vec<Work>) =
        repeated.into_iter().partition(|work| work.is_append());
    for works in [reads, appends] {
        for round in 0..=arguments.rounds {
            for &work in &works {
                let pair = repeat_in_both(arguments, work, round, tables).await?;
                note(pair, &mut report, &mut pairs)?;
            }
        }
    }
    if !of_tail.is_empty() {
        let tails = append_tails(arguments, tables).await?;
        for round in 0..=arguments.rounds {
            for &work in &of_tail {
                let pair = from_tails(work, round, (tables, &tails), &report).await?;
                note(pair, &mut report, &mut pairs)?;
            }
        }
    }
    print(&table(&pairs));
    for work in Work::ALL {
        if let Some(ratio) = ratio(&pairs, work) {
            let name = format!("{}, {} events/{}", work.name(), arguments.events, arguments.beside);
            report.figure(&name, ratio.median, Goal::AtLeast(0.8))?;
        }
    }
    report.finish();
    Ok(())
}

/// Keeps a pair, unless it is of the first round: caches are cold then, and a broker that has just
/// started is busy compiling itself.
fn note(pair: Pair, report: &mut Report, pairs: &mut Vec<Pair>) -> anyhow::Result<()> {
    progress(&format!(
        "round {}: {}: {:.2} of {}/s; {:?} beside {:?}",
        pair.round,
        pair.work.name(),
        pair.large.per_second / pair.small.per_second,
        number(pair.small.per_second),
        pair.large,
        pair.small
    ));
    report.line("large", &pair)?;
    if pair.round > 0 {
        pairs.push(pair);
    }
    Ok(())
}

async fn append_tails(
    arguments: &Arguments,
    [large, small]: [&Tables; 2],
) -> anyhow::Result<[Tail; 2]> {
    let Arguments { tail, rounds, .. } = *arguments;
    let streams = small.streams();
    progress(&format!("appending {tail} events to both"));
    Ok([
        Tail::append(large, tail, rounds, streams).await?,
        Tail::append(small, tail, rounds, streams).await?,
    ])
}

/// Each goes first in every other round.
async fn repeat_in_both(
    arguments: &Arguments,
    work: Work,
    round: usize,
    [large, small]: [&Tables; 2],
) -> anyhow::Result<Pair> {
    let streams = small.streams();
    // Other streams and positions in each round, and for each work.
    let place = Work::ALL.iter().position(|of| *of == work).unwrap_or_default();
    let how = (arguments.seconds, u64::try_from(round * Work::ALL.len() + place)?);
    let (large, small) = if round.is_multiple_of(2) {
        let large = repeat(work, large, streams, how).await?;
        (large, repeat(work, small, streams, how).await?)
    } else {
        let small = repeat(work, small, streams, how).await?;
        (repeat(work, large, streams, how).await?, small)
    };
    Ok(Pair { work, round, large, small })
}

async fn from_tails(
    work: Work,
    round: usize,
    (tables, tails): ([&Tables; 2], &[Tail; 2]),
    report: &Report,
) -> anyhow::Result<Pair> {
    let mut measured = Vec::new();
    let mut order = [0, 1];
    order.rotate_left(round % 2);
    for of in order {
        let (tables, tail) = (tables[of], &tails[of]);
        let one = match work {
            Work::Drain => tail.drain(tables, round, report).await?,
            _ => tail.follow(tables).await?,
        };
        measured.push((of, one));
    }
    measured.sort_by_key(|(of, _)| *of);
    Ok(Pair { work, round, large: measured[0].1, small: measured[1].1 })
}

fn ratio(pairs: &[Pair], work: Work) -> Option<Spread> {
    let of = pairs.iter().filter(|pair| pair.work == work);
    Spread::of(of.map(|pair| pair.large.per_second / pair.small.per_second))
}

fn table(pairs: &[Pair]) -> Table {
    let mut table = Table::new(&[
        "a second",
        "large",
        "small",
        "large/small",
        "min..max",
        "log each, bytes",
        "whole pages each",
        "blocks read each",
    ]);
    for work in Work::ALL {
        let median = |of: fn(&Pair) -> f64| {
            let pairs = pairs.iter().filter(|pair| pair.work == work);
            Spread::of(pairs.map(of)).map_or(0.0, |spread| spread.median)
        };
        let Some(ratio) = ratio(pairs, work) else { continue };
        let both = |large: fn(&Pair) -> f64, small: fn(&Pair) -> f64| {
            format!("{} / {}", number(median(large)), number(median(small)))
        };
        table.row(vec![
            work.name().to_owned(),
            number(median(|pair| pair.large.per_second)),
            number(median(|pair| pair.small.per_second)),
            number(ratio.median),
            ratio.ends(),
            both(|pair| pair.large.wal_bytes_each, |pair| pair.small.wal_bytes_each),
            both(|pair| pair.large.whole_pages_each, |pair| pair.small.whole_pages_each),
            both(|pair| pair.large.blocks_read_each, |pair| pair.small.blocks_read_each),
        ]);
    }
    table
}
