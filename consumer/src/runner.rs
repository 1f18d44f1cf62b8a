//! Runs a projection: one transaction a batch, until shutdown.

use std::error::Error;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_schemas::EventSet;
use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::applied_batch::{AppliedBatch, RunEnd};
use crate::batch::DeliveredEvent;
use crate::batch_applier::BatchApplier;
use crate::batcher::{Batcher, BatcherEvent};
use crate::error::{ConsumeError, RunError};
use crate::kafka::PartitionCounts;
use crate::pace::Pace;
use crate::position::TopicPartition;
use crate::projection::Projection;
use crate::registry::SchemaRegistry;
use crate::settings::ConsumerSettings;
use crate::telemetry;

/// Runs a projection. Made by [`Projection::runner`].
pub struct Runner {
    projection: Projection,
    pool: PgPool,
    settings: ConsumerSettings,
    schemas: SchemaRegistry,
}

/// The counts of a run so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunTotals {
    /// Applied events; more than their records where upcasters make several of one.
    pub events: u64,
    /// Dropped records: their event had been applied before.
    pub duplicates: u64,
    /// Skipped events: their type is not declared, or their upcaster makes none of them.
    pub skipped: u64,
    /// Passed records that cannot be applied.
    pub dead_letters: u64,
    /// Committed transactions.
    pub batches: u64,
}

/// The progress after a committed batch, or at the end of the topics.
#[derive(Debug, Clone, Copy)]
pub struct RunProgress<'a> {
    /// Applied events of this batch.
    pub batch_events: usize,
    /// Dropped records of this batch: their event had been applied before.
    pub batch_duplicates: usize,
    /// Skipped events of this batch: their type is not declared.
    pub batch_skipped: usize,
    /// Passed records of this batch that cannot be applied.
    pub batch_dead_letters: usize,
    /// The time from append to commit, of each event of the batch.
    pub lags: &'a [Duration],
    /// The time from the receipt of the batch's last record to the commit.
    pub took: Duration,
    /// All events are applied that were committed to the topics at some moment after the last
    /// record was received. True also while no topic exists.
    pub caught_up: bool,
    /// The counts since the start of the run, including this batch.
    pub totals: RunTotals,
    /// Records a second, over the last seconds: also those that are not applied.
    pub records_per_second: f64,
    /// The records behind this batch, up to the end of the topics when it was last queried.
    /// Transaction markers count. None before the first query.
    pub records_left: Option<u64>,
    /// The time that these records take at this rate, without those that are written meanwhile.
    pub time_left: Option<Duration>,
}

impl Projection {
    /// Makes a runner of this projection. It detaches one connection from the pool.
    #[must_use]
    pub fn runner(
        &self,
        pool: &PgPool,
        settings: ConsumerSettings,
        schemas: SchemaRegistry,
    ) -> Runner {
        Runner { projection: self.clone(), pool: pool.clone(), settings, schemas }
    }
}

impl Runner {
    /// Applies events until `shutdown` is cancelled, and ends after the current batch.
    ///
    /// `handler` gets events, in the order of their streams, and the connection to write with.
    /// Its writes are committed once for each event. It must write through this connection only,
    /// and neither commit nor roll back. Other side effects may be repeated: the handler is called
    /// again with the same events if the transaction did not commit, and with each event alone
    /// after it returned an error for a batch, so that the error can name the event.
    ///
    /// While Kafka, PostgreSQL or the registry is unavailable it waits, and logs the cause.
    ///
    /// # Errors
    /// [`RunError`]. Deadlocks and broken connections within the handler are retried if the
    /// [`sqlx::Error`] is the handler's error or one of its causes.
    pub async fn run<E, Failure>(
        self,
        shutdown: &CancellationToken,
        handler: impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
    ) -> Result<RunTotals, RunError>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        self.run_until(shutdown, |_progress| ControlFlow::Continue(()), handler).await
    }

    /// Like [`run`](Self::run), and calls `hook` with the progress after each batch, and at the end
    /// of the topics. The run ends when the hook breaks.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until<E, Failure>(
        self,
        shutdown: &CancellationToken,
        mut hook: impl FnMut(&RunProgress<'_>) -> ControlFlow<()>,
        mut handler: impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
    ) -> Result<RunTotals, RunError>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut batcher = Batcher::open(&self.projection, &self.settings)?;
        let mut applier = BatchApplier::new(&self.projection, &self.schemas, &self.pool, shutdown);
        let mut totals = RunTotals::default();
        let mut pace = Pace::new(Instant::now());
        let ended = loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ok(totals),
                event = batcher.next() => event,
            };
            let received = Instant::now();
            // Boxed: it would make the future of the run too large for the stack.
            let work = Box::pin(process(event, &mut batcher, &mut applier, &mut handler));
            let applied = match work.await {
                Ok(applied) => applied,
                Err(RunEnd::Shutdown) => break Ok(totals),
                Err(RunEnd::Error(RunError::Superseded { .. })) if batcher.is_shared() => {
                    tracing::info!(projection = %self.projection.name, "another runner owns a partition");
                    applier.owned.clear();
                    batcher.close().await;
                    batcher = Batcher::open(&self.projection, &self.settings)?;
                    continue;
                }
                Err(RunEnd::Error(error)) => break Err(error),
            };
            let Some(applied) = applied else { continue };
            totals.add(&applied);
            pace.add(applied.records(), Instant::now());
            let lags = lags(&applied.events);
            let mut progress = applied.progress(&lags, received.elapsed(), totals);
            progress.measure(&pace, batcher.records_left());
            telemetry::record(&self.projection.name, &applied, &progress);
            let hooked = hook(&progress);
            if let Some(error) = applied.error {
                break Err(error);
            }
            if hooked.is_break() {
                break Ok(totals);
            }
        };
        batcher.show_offsets(&applier.owned.take_all_to_show());
        batcher.close().await;
        ended
    }
}

/// Processes one event of the batcher. Returns the batch to report to the hook.
async fn process<E, Failure>(
    event: Result<BatcherEvent, ConsumeError>,
    batcher: &mut Batcher,
    applier: &mut BatchApplier,
    handler: &mut impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
) -> Result<Option<AppliedBatch<E>>, RunEnd>
where
    E: EventSet,
    Failure: Into<Box<dyn Error + Send + Sync>>,
{
    match event? {
        BatcherEvent::TopicsFound(topics) => {
            applier.claim(&topics).await?;
            let partitions = if batcher.is_shared() {
                batcher.join()?;
                batcher.assigned_of(&topics)
            } else {
                partitions_of(&topics)
            };
            if !partitions.is_empty() {
                batcher.start(&applier.own(&partitions).await?)?;
            }
        }
        BatcherEvent::Assigned(partitions) => {
            batcher.start(&applier.own(&partitions).await?)?;
            tracing::info!(partitions = partitions.len(), "the group assigned partitions");
        }
        BatcherEvent::Revoked(partitions) => {
            applier.owned.remove(&partitions);
            batcher.stop(&partitions)?;
            tracing::info!(partitions = partitions.len(), "the group revoked partitions");
        }
        BatcherEvent::Records(records) => {
            let applied = applier.apply(records, handler).await?;
            batcher.show_offsets(&applier.owned.take_to_show());
            return Ok(Some(applied));
        }
        BatcherEvent::CaughtUp => {
            batcher.show_offsets(&applier.owned.take_all_to_show());
            return Ok(Some(AppliedBatch { caught_up: true, ..AppliedBatch::new() }));
        }
    }
    Ok(None)
}

impl RunTotals {
    fn add<E>(&mut self, applied: &AppliedBatch<E>) {
        // Counts of one batch always fit.
        self.events += applied.events.len() as u64;
        self.duplicates += applied.duplicates as u64;
        self.skipped += applied.skipped as u64;
        self.dead_letters += applied.dead_letters as u64;
        self.batches += applied.batches;
    }
}

impl<E> AppliedBatch<E> {
    fn progress<'a>(
        &self,
        lags: &'a [Duration],
        took: Duration,
        totals: RunTotals,
    ) -> RunProgress<'a> {
        RunProgress {
            batch_events: self.events.len(),
            batch_duplicates: self.duplicates,
            batch_skipped: self.skipped,
            batch_dead_letters: self.dead_letters,
            lags,
            took,
            caught_up: self.caught_up,
            totals,
            records_per_second: 0.0,
            records_left: None,
            time_left: None,
        }
    }

    fn records(&self) -> u64 {
        (self.event_records + self.duplicates + self.skipped + self.dead_letters) as u64
    }
}

impl RunProgress<'_> {
    fn measure(&mut self, pace: &Pace, records_left: Option<u64>) {
        let now = Instant::now();
        self.records_per_second = pace.per_second(now);
        self.records_left = records_left;
        self.time_left = records_left.and_then(|records| pace.time_for(records, now));
    }
}

fn partitions_of(topics: &PartitionCounts) -> Vec<TopicPartition> {
    let all = topics.iter().flat_map(|(topic, count)| (0..*count).map(move |p| (topic, p)));
    all.map(|(topic, partition)| (Arc::clone(topic), partition)).collect()
}

fn lags<E>(events: &[DeliveredEvent<E>]) -> Vec<Duration> {
    let now = Timestamp::now();
    // No negative lags if the clock of the database is ahead.
    let lag = |event: &DeliveredEvent<E>| {
        Duration::try_from(now.duration_since(event.delivered.recorded_at)).unwrap_or_default()
    };
    events.iter().map(lag).collect()
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("projection", &self.projection.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
