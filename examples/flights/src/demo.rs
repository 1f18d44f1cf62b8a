//! The demo, from the file to the comparison of all totals.

use std::pin::pin;
use std::time::{Duration, Instant};

use annals_store::{EventSet, StreamName, Version};
use annals_testkit::{Environment, Follower, RelayProcess, Testbed, check, drop_database};
use anyhow::{Result, bail, ensure};
use futures_util::TryStreamExt;
use jiff::Timestamp;
use sqlx::PgPool;
use tokio::sync::watch;

use crate::events::{AircraftEvent, FlightEvent};
use crate::lags::percentiles;
use crate::outage::{self, Outage};
use crate::projections::{Projections, until};
use crate::report::{grouped, heading, per_second, say, time};
use crate::rows::Row;
use crate::totals::Totals;
use crate::writers::{Appended, append, append_all};
use crate::{Arguments, read_model, rows, totals};

const CATEGORIES: [&str; 2] = [FlightEvent::CATEGORY, AircraftEvent::CATEGORY];
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
const DIFFERENCES_SHOWN: usize = 20;
/// The last flights, one in so many, are appended at a rate that any machine keeps up with.
const LIVE_SHARE: usize = 60;
const LIVE_PER_SECOND: u32 = 50;

/// Runs the demo. It succeeds if every event was published and applied once and every total agrees.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    heading("The file")?;
    let csv = arguments.csv.clone().unwrap_or_else(rows::month);
    let expected = totals::of_file(&csv)?;
    let mut rows = rows::read(&csv)?;
    ensure!(!rows.is_empty(), "{} has no flights", csv.display());
    let totals = grouped(expected.len());
    say(format!("{} flights, {totals} totals, from {}", grouped(rows.len()), csv.display()))?;

    heading("A new database, the relay and two projections")?;
    let environment = Environment::get();
    let name = Timestamp::now().strftime("annals_demo_%Y%m%d_%H%M%S_%3f").to_string();
    let bed = Testbed::kept(&name, environment.clone()).await;
    drop_earlier(&bed).await?;
    let relay =
        RelayProcess::start(&bed.relay().variable("ANNALS_RELAY__TOPICS__PARTITIONS", "12"));
    let read_model = read_model::create(&bed.database_url()).await?;
    let projections = Projections::start(&bed, &read_model).await?;
    say(format!("database {name}; the relay's log: {}", relay.log_path().display()))?;
    let appended = watch::Sender::new(Appended::default());
    let mut demo = Demo { bed, relay, projections, read_model, appended };

    let first = demo.first_flight(&rows.remove(0)).await?;
    let last = rows.split_off(rows.len() - rows.len() / LIVE_SHARE);
    let outage = demo.all_flights(rows, &arguments).await?;
    let live_since = demo.last_flights(&last).await?;
    demo.check_topics().await?;
    demo.show(&first).await?;
    demo.end(&expected, outage, live_since).await
}

/// Drops the databases of earlier runs, except those in use.
async fn drop_earlier(bed: &Testbed) -> Result<()> {
    let unused = sqlx::query_scalar(include_str!("../sql/databases_unused.sql"));
    for name in unused.fetch_all(bed.store().pool()).await? {
        let name: String = name;
        drop_database(bed.environment(), &name).await;
        say(format!("dropped {name}, of an earlier run"))?;
    }
    Ok(())
}

struct Demo {
    bed: Testbed,
    relay: RelayProcess,
    projections: Projections,
    read_model: PgPool,
    appended: watch::Sender<Appended>,
}

impl Demo {
    /// One flight alone: then topics and schemas exist, and times can be measured.
    async fn first_flight(&mut self, row: &(u64, Row)) -> Result<StreamName> {
        let begun = Instant::now();
        let flight = append(self.bed.store(), row, &self.appended).await?;
        let events = self.appended.borrow().events;
        self.projections.until_applied(events).await?;
        say(format!(
            "{} after its append the first flight is in the read model",
            time(begun.elapsed())
        ))?;
        drop(self.projections.lags.take());
        Ok(flight.stream)
    }

    async fn all_flights(
        &mut self,
        rows: Vec<(u64, Row)>,
        arguments: &Arguments,
    ) -> Result<Option<Outage>> {
        let writers = arguments.writers;
        heading(format!("All flights: {writers} writers, one append a flight to two streams"))?;
        let topics = CATEGORIES.map(|category| self.bed.topic(category));
        let topics = Follower::start(&self.bed.environment().kafka, &[&topics[0], &topics[1]]);
        let (begun, flights) = (Instant::now(), rows.len());
        let before = self.appended.borrow().events;
        let append = async {
            append_all(self.bed.store(), rows, writers, &self.appended).await?;
            Ok(begun.elapsed())
        };
        let outage = async {
            if arguments.no_kill {
                return Ok(None);
            }
            let appended = self.appended.subscribe();
            outage::play(&mut self.relay, &topics, appended, flights).await.map(Some)
        };
        let (append_time, outage) = tokio::select! {
            all = async { tokio::try_join!(append, outage) } => all?,
            shown = show_progress(&self.appended) => return shown.map(|never| match never {}),
        };
        let Appended { events, .. } = *self.appended.borrow();
        until(&mut topics.counter(), events, "published events").await?;
        let relay_time = begun.elapsed();
        self.projections.until_applied(events).await?;
        let rates =
            [("appended", append_time), ("published", relay_time), ("applied", begun.elapsed())];
        for (done, took) in rates {
            let (events, rate) = (events - before, per_second(events - before, took));
            say(format!("{} events {done} in {}: {rate} events/s", grouped(events), time(took)))?;
        }
        say(format!("memory of the relay: at most {} MB", self.relay.peak_bytes() / 1_000_000))?;
        Ok(outage)
    }

    /// Appends one flight after the other, while nothing else waits. Returns the time of the first.
    async fn last_flights(&mut self, rows: &[(u64, Row)]) -> Result<Timestamp> {
        let flights = grouped(rows.len());
        heading(format!("The last {flights} flights, live: {LIVE_PER_SECOND} a second"))?;
        let since = Timestamp::now();
        let mut turns = tokio::time::interval(Duration::from_secs(1) / LIVE_PER_SECOND);
        for row in rows {
            turns.tick().await;
            append(self.bed.store(), row, &self.appended).await?;
        }
        let (last, events) = (Instant::now(), self.appended.borrow().events);
        self.projections.until_applied(events).await?;
        say(format!("{} after the last append all is in the read model", time(last.elapsed())))?;
        Ok(since)
    }

    /// Reads both topics again, and compares them with the store.
    async fn check_topics(&self) -> Result<()> {
        heading("Both topics are read again, from the beginning to the end")?;
        let history = self.bed.history_of(&CATEGORIES, Vec::new()).await;
        let (recorded, acknowledged) = (history.recorded.len(), self.appended.borrow().events);
        ensure!(
            recorded == acknowledged,
            "{recorded} events recorded, {acknowledged} acknowledged"
        );
        if let Some(violation) = check(&history).first() {
            bail!("the topics are not the log: {violation}");
        }
        let recorded = grouped(recorded);
        Ok(say(format!("{recorded} events, those of the store: each once, each stream in order"))?)
    }

    async fn show(&self, stream: &StreamName) -> Result<()> {
        heading(format!("The first flight, stream {stream}"))?;
        let mut events = pin!(self.bed.store().read_stream(stream, Version::FIRST));
        while let Some(event) = events.try_next().await? {
            let json = event.to_json()?;
            say(format!("version {} {} {json}", event.version, event.event_type))?;
        }
        Ok(())
    }

    async fn end(
        mut self,
        expected: &Totals,
        outage: Option<Outage>,
        live_since: Timestamp,
    ) -> Result<()> {
        let lags = self.projections.lags.take();
        let (events, batches, duplicates) = self.projections.end().await?;
        let found = totals::of_read_model(&self.read_model).await?;
        heading("The read model, which was made from the topics alone")?;
        say(format!(
            "{} events applied in {} transactions, {duplicates} duplicates dropped",
            grouped(events),
            grouped(batches)
        ))?;
        report_carriers(&found)?;
        report_lags(&lags, outage, live_since)?;
        let ended = self.relay.terminate().await;
        ensure!(ended.success(), "the relay ended with {ended}");
        compare(expected, &found)?;
        heading("What is left")?;
        say(format!(
            "database {}, topics {}",
            self.bed.name(),
            CATEGORIES.map(|it| self.bed.topic(it)).join(", ")
        ))?;
        Ok(say("Once more: make demo    Stop the components: make down")?)
    }
}

async fn show_progress(appended: &watch::Sender<Appended>) -> Result<std::convert::Infallible> {
    let mut events_before = appended.borrow().events;
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let Appended { flights, events } = *appended.borrow();
        let rate = per_second(events - events_before, PROGRESS_INTERVAL);
        say(format!(
            "{} flights appended, {} events, {rate} events/s",
            grouped(flights),
            grouped(events)
        ))?;
        events_before = events;
    }
}

fn report_carriers(totals: &Totals) -> Result<()> {
    let sum = |group: &str, name: &str| {
        totals.get(&(group.to_owned(), name.to_owned())).copied().unwrap_or(0)
    };
    let number = |sum: i64| f64::from(i32::try_from(sum).unwrap_or(i32::MAX));
    let mean = |group: &str, minutes: &str, flights: &str| match sum(group, flights) {
        0 => "-".to_owned(),
        flights => format!("{:+.1}", number(sum(group, minutes)) / number(flights)),
    };
    say(format!(
        "{:<12} {:>9} {:>10} {:>16} {:>14}",
        "", "flights", "cancelled", "departure delay", "arrival delay"
    ))?;
    let groups =
        totals.keys().filter(|(_, name)| name == "flights").map(|(group, _)| group.as_str());
    for group in groups.filter(|group| !group.starts_with("destination")) {
        say(format!(
            "{group:<12} {:>9} {:>10} {:>12} min {:>10} min",
            grouped(sum(group, "flights")),
            grouped(sum(group, "cancelled")),
            mean(group, "minutes of departure delay", "departed"),
            mean(group, "minutes of arrival delay", "arrived")
        ))?;
    }
    Ok(())
}

fn report_lags(
    lags: &[(Timestamp, Duration)],
    outage: Option<Outage>,
    live_since: Timestamp,
) -> Result<()> {
    say(format!(
        "{:<32} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "from append to read model", "events", "p50", "p90", "p99", "max"
    ))?;
    let line = |name: &str, figures: String| say(format!("  {name:<30} {figures}"));
    let is_live = |at| at >= live_since;
    if let Some(Outage { killed_at, recovered_at }) = outage {
        let is_before = |_, committed_at| committed_at < killed_at;
        line("all writers, before the kill", percentiles(lags, is_before))?;
        let is_delayed = |at, committed_at| at < recovered_at && committed_at >= killed_at;
        line("delayed by the kill", percentiles(lags, is_delayed))?;
        let is_after = |at, _| at >= recovered_at && !is_live(at);
        line("after the relay had caught up", percentiles(lags, is_after))?;
    } else {
        line("all writers", percentiles(lags, |at, _| !is_live(at)))?;
    }
    let name = format!("live, {LIVE_PER_SECOND} flights a second");
    Ok(line(&name, percentiles(lags, |at, _| is_live(at)))?)
}

fn compare(expected: &Totals, found: &Totals) -> Result<()> {
    heading("The totals: straight from the file, and out of Kafka")?;
    say(format!("{:<28} {:>14} {:>14}", "", "file", "Kafka"))?;
    for (name, in_file) in expected.iter().filter(|((group, _), _)| group == "all") {
        let in_kafka = found.get(name).copied().map_or_else(|| "none".to_owned(), grouped);
        say(format!("{:<28} {:>14} {in_kafka:>14}", name.1, grouped(*in_file)))?;
    }
    let differences = totals::differences(expected, found);
    for difference in differences.iter().take(DIFFERENCES_SHOWN) {
        say(difference)?;
    }
    ensure!(
        differences.is_empty(),
        "{} totals DIFFER: events were lost, applied twice, or changed",
        differences.len()
    );
    Ok(say(format!("all {} totals are the same", grouped(expected.len())))?)
}
