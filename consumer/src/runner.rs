//! Runs a projection: one transaction a batch, until shutdown.

use std::error::Error;
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use annals_schemas::EventSet;
use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::batch::DeliveredEvent;
use crate::batch_applier::{AppliedBatch, BatchApplier, RunEnd};
use crate::batcher::{Batcher, BatcherEvent};
use crate::error::{ConsumeError, RunError};
use crate::projection::Projection;
use crate::registry::SchemaRegistry;
use crate::settings::ConsumerSettings;

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
    /// Applied events.
    pub events: u64,
    /// Dropped records: their event had been applied before.
    pub duplicates: u64,
    /// Skipped events: their type is not declared.
    pub skipped: u64,
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
    /// The time from append to commit, of each event of the batch.
    pub lags: &'a [Duration],
    /// The time from the receipt of the batch's last record to the commit.
    pub took: Duration,
    /// All events are applied that were committed to the topics at some moment after the last
    /// record was received. True also while no topic exists.
    pub caught_up: bool,
    /// The counts since the start of the run, including this batch.
    pub totals: RunTotals,
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
        let ended = loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ok(totals),
                event = batcher.next() => event,
            };
            let received = Instant::now();
            let applied = match process(event, &mut batcher, &mut applier, &mut handler).await {
                Ok(applied) => applied,
                Err(RunEnd::Shutdown) => break Ok(totals),
                Err(RunEnd::Error(error)) => break Err(error),
            };
            let Some(applied) = applied else { continue };
            totals.add(&applied);
            let lags = lags(&applied.events);
            let hooked = hook(&applied.progress(&lags, received.elapsed(), totals));
            if let Some(error) = applied.error {
                break Err(error);
            }
            if hooked.is_break() {
                break Ok(totals);
            }
        };
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
    match event.map_err(|error| RunEnd::Error(error.into()))? {
        BatcherEvent::TopicsFound(topics) => {
            let progress = applier.progress(&topics).await?;
            batcher.start(&progress).map_err(|error| RunEnd::Error(error.into()))?;
            Ok(None)
        }
        BatcherEvent::Records(records, error) => {
            let mut applied = applier.apply(records, handler).await?;
            applied.error = applied.error.or(error.map(RunError::from));
            Ok(Some(applied))
        }
        BatcherEvent::CaughtUp => Ok(Some(AppliedBatch { caught_up: true, ..AppliedBatch::new() })),
    }
}

impl RunTotals {
    fn add<E>(&mut self, applied: &AppliedBatch<E>) {
        // Counts of one batch always fit.
        self.events += applied.events.len() as u64;
        self.duplicates += applied.duplicates as u64;
        self.skipped += applied.skipped as u64;
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
            lags,
            took,
            caught_up: self.caught_up,
            totals,
        }
    }
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
