//! Draining a backlog: the relay, exactly once, beside a bare idempotent producer with the same
//! bytes, and Debezium.

mod backlog;
pub(crate) mod once;
mod raw;
pub(crate) mod records;
pub(crate) mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use annals_testkit::{Environment, Testbed};
use anyhow::Context;
use serde::Serialize;

use self::records::Records;
use self::watch::{Seen, Watch};
use crate::debezium::{Connector, Debezium, Peer};
use crate::event::CATEGORY;
use crate::goals::Goal;
use crate::kafka::{create_topic, delete_topic};
use crate::process::Used;
use crate::relay::{self, Relay};
use crate::report::{Report, Table, number, print, progress};
use crate::scrape::Scraper;
use crate::settle::settle;
use crate::spread::{Spread, as_f64};

/// Events per second out of a backlog: the relay beside a bare producer of the same bytes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Events in the backlog.
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Events per append, which is one transaction: an import leaves few large ones.
    #[arg(long, default_value_t = 10)]
    append_events: usize,
    /// Number of streams that receive the events.
    #[arg(long, default_value_t = 50_000)]
    streams: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 8)]
    partitions: i32,
    /// `linger.ms` of the bare producer.
    #[arg(long, default_value_t = raw::LINGER_MS)]
    linger_ms: u32,
    /// Measures two relays more: one without its HTTP server, and one whose metrics are scraped each
    /// second.
    #[arg(long)]
    metrics: bool,
    /// The peer that publishes the same events beside the relay, from a table of its own.
    #[arg(long)]
    peer: Option<Peer>,
    /// The directory into which bench/peers/install has installed the peers.
    #[arg(long, default_value = "target/peers")]
    peers: PathBuf,
}

/// The publishing program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Relay,
    /// A relay without its HTTP server.
    Unserved,
    /// A relay whose metrics are scraped each second.
    Scraped,
    Raw,
    Debezium,
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
    /// Of the relay or of Debezium; the memory from its start on.
    used: Option<Used>,
}

struct Bench<'a> {
    arguments: &'a Arguments,
    bed: &'a Testbed,
    report: &'a mut Report,
    debezium: Option<Debezium>,
}

/// Loads the backlog, measures each side in every round, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let bed = Testbed::new("bench_drain").await;
    progress(&format!("loading {} events", arguments.events));
    backlog::load(&bed, arguments).await?;
    let debezium = match arguments.peer {
        None => None,
        Some(Peer::Debezium) => {
            Some(Debezium::start(&arguments.peers, report.directory(), &bed.database_url()).await?)
        }
    };
    let mut bench = Bench { arguments, bed: &bed, report: &mut report, debezium };
    let (records, measured) = bench.rounds().await?;
    if let Some(debezium) = bench.debezium {
        debezium.stop().await?;
    }
    print(&format!(
        "{} events, {:.0} MiB of keys, values and headers, {} partitions",
        number(as_f64(arguments.events)),
        as_f64(records.bytes()) / 1_048_576.0,
        arguments.partitions
    ));
    print(&format!("bare producer: {}\n", raw::describe(arguments.linger_ms)));
    print(&table(&measured));
    goals(&measured, &mut report)?;
    report.finish();
    Ok(())
}

impl Bench<'_> {
    /// Measures each side in every round. An unmeasured round comes first: it warms everything up,
    /// and supplies the bare producer's records.
    async fn rounds(&mut self) -> anyhow::Result<(Arc<Records>, Vec<Measured>)> {
        let (_, records) = self.relay(Side::Relay, 0).await?;
        let records = Arc::new(records);
        let mut sides = vec![Side::Relay, Side::Raw];
        if self.arguments.metrics {
            sides.extend([Side::Unserved, Side::Scraped]);
        }
        if self.debezium.is_some() {
            let before = self.debezium(0).await?;
            self.note(&before)?;
            sides.push(Side::Debezium);
        }
        let mut measured = Vec::new();
        for round in 1..=self.arguments.rounds {
            for side in &sides {
                let one = self.measure(*side, round, &records).await?;
                self.note(&one)?;
                measured.push(one);
            }
            // The order changes, so that no side always follows the same one.
            sides.rotate_left(1);
        }
        Ok((records, measured))
    }

    async fn measure(
        &self,
        side: Side,
        round: usize,
        records: &Arc<Records>,
    ) -> anyhow::Result<Measured> {
        match side {
            Side::Relay | Side::Unserved | Side::Scraped => Ok(self.relay(side, round).await?.0),
            Side::Raw => self.raw(round, records).await,
            Side::Debezium => self.debezium(round).await,
        }
    }

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

    /// Lets a new deployment publish the whole backlog, and reads the published records.
    async fn relay(&self, side: Side, round: usize) -> anyhow::Result<(Measured, Records)> {
        let Arguments { partitions, events, .. } = *self.arguments;
        let deployment = format!("{}_{round}_{side:?}", self.bed.name()).to_lowercase();
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
            log: relay::Log::Usual,
            http: if side == Side::Unserved { relay::Http::Off } else { relay::Http::Served },
            delivery: relay::Delivery::ExactlyOnce,
        })?;
        let scraper = match side {
            Side::Scraped => Some(Scraper::start(relay.address().await?)),
            _ => None,
        };
        let seen = tokio::select! {
            seen = watch.end() => seen.with_context(|| relay.where_log_is())?,
            ended = relay.ended() => return Err(ended),
        };
        let used = Some(relay.used()?);
        if let Some(scraper) = scraper {
            scraper.stop().await?;
        }
        relay.stop().await?;
        let records = records::read(brokers, &topic, partitions, events).await?;
        delete_topic(brokers, &topic).await?;
        Ok((self.measured(side, round, seen, used), records))
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

    /// Writes the events to Debezium's table, and lets it publish them.
    async fn debezium(&self, round: usize) -> anyhow::Result<Measured> {
        let Arguments { partitions, events, .. } = *self.arguments;
        let debezium = self.debezium.as_ref().context("measure without Debezium")?;
        let name = format!("{}_{round}_debezium", self.bed.name());
        let brokers = &Environment::get().kafka;
        let connector = Connector { name: &name, topic: &name };
        create_topic(brokers, &name, partitions).await?;
        debezium.begin(connector).await?;
        debezium.fill().await?;
        settle(&self.bed.database_url()).await?;
        let watch = Watch::start(brokers, &name, partitions, events).await?;
        let before = debezium.used()?;
        debezium.publish(connector).await?;
        let seen = watch.end().await?;
        let now = debezium.used()?;
        debezium.end(connector).await?;
        records::check_ids(brokers, &name, partitions, events).await?;
        delete_topic(brokers, &name).await?;
        let used = Used { cpu_seconds: now.cpu_seconds_since(before), ..now };
        Ok(self.measured(Side::Debezium, round, seen, Some(used)))
    }

    fn measured(&self, side: Side, round: usize, seen: Seen, used: Option<Used>) -> Measured {
        let Seen { took, empty, cpu_busy } = seen;
        let seconds = took.as_secs_f64();
        let events_per_second = as_f64(self.arguments.events) / seconds;
        let until_first_seconds = empty.as_secs_f64();
        Measured { side, round, seconds, events_per_second, until_first_seconds, cpu_busy, used }
    }
}

fn table(measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "",
        "events/s",
        "min..max",
        "relay/this",
        "cpu busy",
        "its own cores",
        "its memory peak",
    ]);
    let of = |side: Side| measured.iter().filter(move |one| one.side == side);
    let names = [
        (Side::Relay, "relay, exactly once"),
        (Side::Unserved, "relay, http.listen = off"),
        (Side::Scraped, "relay, scraped each second"),
        (Side::Raw, "bare producer"),
        (Side::Debezium, "Debezium, exactly once"),
    ];
    for (side, name) in names {
        let Some(rate) = rate(measured, side) else { continue };
        let ratio = ratio(measured, side).filter(|_| side != Side::Relay);
        let busy = Spread::of(of(side).map(|one| one.cpu_busy)).map_or(0.0, |busy| busy.median);
        let cores =
            Spread::of(of(side).filter_map(|one| Some(one.used?.cpu_seconds / one.seconds)));
        table.row(vec![
            name.to_owned(),
            number(rate.median),
            rate.ends(),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            format!("{:.0} %", busy * 100.0),
            cores.map_or_else(String::new, |cores| format!("{:.2}", cores.median)),
            memory(measured, side).map_or_else(String::new, |memory| format!("{memory:.0} MiB")),
        ]);
    }
    table
}

fn rate(measured: &[Measured], side: Side) -> Option<Spread> {
    let of = measured.iter().filter(|one| one.side == side);
    Spread::of(of.map(|one| one.events_per_second))
}

/// The median of the rounds' ratios, the relay to another side.
fn ratio(measured: &[Measured], side: Side) -> Option<f64> {
    let of = |side, round| {
        let mut of = measured.iter().filter(move |one| one.side == side && one.round == round);
        Some(of.next()?.events_per_second)
    };
    let ratios = (1..).map_while(|round| Some(of(Side::Relay, round)? / of(side, round)?));
    Some(Spread::of(ratios)?.median)
}

fn memory(measured: &[Measured], side: Side) -> Option<f64> {
    let of = measured.iter().filter(|one| one.side == side);
    Some(Spread::of(of.filter_map(|one| Some(one.used?.memory_peak_mib)))?.max)
}

fn goals(measured: &[Measured], report: &mut Report) -> anyhow::Result<()> {
    let figures = [
        ("drain, relay/bare producer", ratio(measured, Side::Raw), Goal::AtLeast(0.8)),
        ("drain, relay/Debezium exactly once", ratio(measured, Side::Debezium), Goal::AtLeast(5.0)),
        ("memory peak while draining, MiB", memory(measured, Side::Relay), Goal::AtMost(64.0)),
    ];
    for (name, figure, goal) in figures {
        if let Some(figure) = figure {
            report.figure(name, figure, goal)?;
        }
    }
    Ok(())
}
