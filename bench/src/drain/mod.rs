//! Draining a backlog: the relay, exactly once, beside a bare idempotent producer with the same bytes.

mod backlog;
mod raw;
mod records;
mod watch;

use std::sync::Arc;

use annals_testkit::{Environment, Testbed};
use anyhow::Context;
use serde::Serialize;

use self::records::Records;
use self::watch::{Seen, Watch};
use crate::event::CATEGORY;
use crate::kafka::{create_topic, delete_topic};
use crate::relay::{self, Relay, Used};
use crate::report::{Report, Table, number, print, progress};
use crate::spread::{Spread, as_f64};

/// Events a second out of a backlog: the relay beside a bare producer of the same bytes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each is measured, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Events in the backlog.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Streams that they are spread over.
    #[arg(long, default_value_t = 50_000)]
    streams: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 8)]
    partitions: i32,
    /// `linger.ms` of the bare producer.
    #[arg(long, default_value_t = raw::LINGER_MS)]
    linger_ms: u32,
}

/// Who publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Relay,
    Raw,
}

/// One measurement.
#[derive(Debug, Serialize)]
struct Measured {
    side: Side,
    round: usize,
    seconds: f64,
    events_per_second: f64,
    /// From the start of the relay, or of sending, to the first record on the topic.
    until_first_seconds: f64,
    cpu_busy: f64,
    relay: Option<Used>,
}

struct Bench<'a> {
    arguments: &'a Arguments,
    bed: &'a Testbed,
    report: &'a mut Report,
}

/// Loads the backlog, measures each side in every round, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let bed = Testbed::new("bench_drain").await;
    progress(&format!("loading {} events", arguments.events));
    backlog::load(&bed, arguments.events, arguments.streams).await?;
    let mut bench = Bench { arguments, bed: &bed, report: &mut report };
    // Not measured: it warms everything up, and gives the bare producer what it is to send.
    let (_, records) = bench.relay(0).await?;
    let records = Arc::new(records);
    let mut measured = Vec::new();
    for round in 1..=arguments.rounds {
        let first_relay = round % 2 == 1;
        for is_first in [true, false] {
            let one = if is_first == first_relay {
                bench.relay(round).await?.0
            } else {
                bench.raw(round, &records).await?
            };
            bench.note(&one)?;
            measured.push(one);
        }
    }
    print(&format!(
        "{} events, {:.0} MiB of keys, values and headers, {} partitions",
        number(as_f64(arguments.events)),
        as_f64(records.bytes()) / 1_048_576.0,
        arguments.partitions
    ));
    print(&format!("bare producer: {}\n", raw::describe(arguments.linger_ms)));
    print(&table(&measured));
    report.finish();
    Ok(())
}

impl Bench<'_> {
    fn note(&mut self, one: &Measured) -> anyhow::Result<()> {
        progress(&format!(
            "round {} of {}: {:?}: {} events/s",
            one.round,
            self.arguments.rounds,
            one.side,
            number(one.events_per_second)
        ));
        self.report.line("drain", one)
    }

    /// Lets a new deployment publish the whole backlog, and reads what it published.
    async fn relay(&self, round: usize) -> anyhow::Result<(Measured, Records)> {
        let Arguments { partitions, events, .. } = *self.arguments;
        let deployment = format!("{}_{round}", self.bed.name());
        let topic_prefix = format!("{deployment}-");
        let topic = format!("{topic_prefix}{CATEGORY}");
        let brokers = &Environment::get().kafka;
        create_topic(brokers, &topic, partitions).await?;
        let watch = Watch::start(brokers, &topic, partitions, events).await?;
        let mut relay = Relay::start(&relay::Settings {
            database_url: &self.bed.database_url(),
            deployment: &deployment,
            instance: "a",
            topic_prefix: &topic_prefix,
            directory: self.report.directory(),
        })?;
        let seen = tokio::select! {
            seen = watch.end() => seen.with_context(|| relay.where_log_is())?,
            ended = relay.ended() => return Err(ended),
        };
        let used = Some(relay.used()?);
        relay.stop().await?;
        let records = records::read(brokers, &topic, partitions, events).await?;
        delete_topic(brokers, &topic).await?;
        Ok((self.measured(Side::Relay, round, seen, used), records))
    }

    /// Sends the same records from memory to a topic of the same kind.
    async fn raw(&self, round: usize, records: &Arc<Records>) -> anyhow::Result<Measured> {
        let Arguments { partitions, events, linger_ms, .. } = *self.arguments;
        let topic = format!("{}_{round}-raw", self.bed.name());
        let brokers = &Environment::get().kafka;
        create_topic(brokers, &topic, partitions).await?;
        let watch = Watch::start(brokers, &topic, partitions, events).await?;
        raw::send(brokers, &topic, linger_ms, records).await?;
        let seen = watch.end().await?;
        delete_topic(brokers, &topic).await?;
        Ok(self.measured(Side::Raw, round, seen, None))
    }

    fn measured(&self, side: Side, round: usize, seen: Seen, relay: Option<Used>) -> Measured {
        let Seen { took, empty, cpu_busy } = seen;
        let seconds = took.as_secs_f64();
        let events_per_second = as_f64(self.arguments.events) / seconds;
        let until_first_seconds = empty.as_secs_f64();
        Measured { side, round, seconds, events_per_second, until_first_seconds, cpu_busy, relay }
    }
}

fn table(measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "",
        "events/s",
        "min..max",
        "relay/bare",
        "cpu busy",
        "relay: cores",
        "relay: memory peak",
    ]);
    let of = |side: Side| measured.iter().filter(move |one| one.side == side);
    let rate = |side| Spread::of(of(side).map(|one| one.events_per_second));
    let bare = rate(Side::Raw);
    for (side, name) in [(Side::Relay, "relay, exactly once"), (Side::Raw, "bare producer")] {
        let Some(rate) = rate(side) else { continue };
        let ratio = bare.filter(|_| side == Side::Relay).map(|bare| rate.median / bare.median);
        let busy = Spread::of(of(side).map(|one| one.cpu_busy)).map_or(0.0, |busy| busy.median);
        let used = || of(side).filter_map(|one| one.relay);
        let cores =
            Spread::of(of(side).filter_map(|one| Some(one.relay?.cpu_seconds / one.seconds)));
        let memory = Spread::of(used().map(|used| used.memory_peak_mib));
        table.row(vec![
            name.to_owned(),
            number(rate.median),
            rate.ends(),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            format!("{:.0} %", busy * 100.0),
            cores.map_or_else(String::new, |cores| format!("{:.2}", cores.median)),
            memory.map_or_else(String::new, |memory| format!("{:.0} MiB", memory.max)),
        ]);
    }
    table
}
