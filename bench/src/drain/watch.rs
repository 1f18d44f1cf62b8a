//! The times of a topic's first and last record, seen from the broker: the same for both sides.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinHandle;

use crate::kafka::Ends;
use crate::machine::CpuTime;

/// Interval between requests for the ends: one small request each. It is the precision of the
/// times.
const INTERVAL: Duration = Duration::from_millis(5);
/// After so long without a record no more will come.
const QUIET: Duration = Duration::from_secs(2);
/// After so long without a record, an incomplete topic is a fault.
const STUCK: Duration = Duration::from_secs(60);

/// Watches the ends of a topic's partitions until all records are there.
#[derive(Debug)]
pub(crate) struct Watch {
    task: JoinHandle<anyhow::Result<Seen>>,
}

/// The observed times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// From the last moment at which the topic was empty until it had everything, transaction
    /// markers included.
    pub(crate) took: Duration,
    /// From the start of watching until the last moment at which the topic was empty.
    pub(crate) empty: Duration,
    /// The share of all cores' time that was used meanwhile, by any process.
    pub(crate) cpu_busy: f64,
}

impl Watch {
    /// Starts watching an existing topic, on a thread of its own. Returns after the first answer,
    /// so that a later publisher is seen from its begin.
    pub(crate) async fn start(
        brokers: &str,
        topic: &str,
        partitions: i32,
        events: usize,
    ) -> anyhow::Result<Self> {
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        let events = i64::try_from(events)?;
        let connect = move || {
            let ends = Ends::connect(&brokers, &topic, partitions)?;
            let total = ends.total()?;
            anyhow::ensure!(total == 0, "topic {topic} is not empty");
            Ok(ends)
        };
        let ends = tokio::task::spawn_blocking(connect).await??;
        Ok(Self { task: tokio::task::spawn_blocking(move || watch(&ends, events)) })
    }

    /// Waits until everything is there.
    pub(crate) async fn end(self) -> anyhow::Result<Seen> {
        self.task.await.context("watch a topic")?
    }
}

fn watch(ends: &Ends, events: i64) -> anyhow::Result<Seen> {
    let start = Instant::now();
    let (mut empty, mut cpu_empty) = (start, CpuTime::now()?);
    let (mut changed, mut cpu_changed) = (start, cpu_empty);
    let mut total = 0;
    loop {
        let asked = Instant::now();
        let now = ends.total()?;
        if now == 0 {
            (empty, cpu_empty) = (asked, CpuTime::now()?);
        }
        if now != total {
            total = now;
            (changed, cpu_changed) = (Instant::now(), CpuTime::now()?);
        }
        let quiet = changed.elapsed();
        if total >= events && quiet > QUIET {
            let cpu_busy = cpu_changed.busy_since(cpu_empty);
            return Ok(Seen { took: changed - empty, empty: empty - start, cpu_busy });
        }
        anyhow::ensure!(
            quiet < STUCK,
            "only {total} of {events} records came, and none for {STUCK:?}"
        );
        std::thread::sleep(INTERVAL.saturating_sub(asked.elapsed()));
    }
}
