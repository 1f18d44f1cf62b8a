//! The loop of a run: it reads batches, and applies each while it reads the next one.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::applied_batch::{AppliedBatch, RunEnd};
use crate::batch::DeliveredEvent;
use crate::batch_applier::BatchApplier;
use crate::batcher::{Batcher, BatcherEvent};
use crate::error::{ConsumeError, RunError};
use crate::fetched_record::FetchedRecord;
use crate::kafka::PartitionCounts;
use crate::pace::Pace;
use crate::position::TopicPartition;
use crate::projection::Projection;
use crate::registry::SchemaRegistry;
use crate::run_progress::{RunProgress, RunTotals};
use crate::settings::ConsumerSettings;
use crate::target::Target;
use crate::telemetry;

/// What a run has besides its target.
pub(crate) struct Run<'a> {
    pub(crate) projection: &'a Projection,
    pub(crate) settings: &'a ConsumerSettings,
    pub(crate) schemas: &'a SchemaRegistry,
    pub(crate) shutdown: &'a CancellationToken,
}

/// The batcher, and the event that it returned while the last batch was applied.
struct Reader {
    batcher: Batcher,
    ahead: Option<Result<BatcherEvent, ConsumeError>>,
}

/// Runs a projection on a target until shutdown, or until the hook breaks.
pub(crate) async fn drive<T: Target>(
    run: &Run<'_>,
    target: T,
    mut hook: impl FnMut(&RunProgress<'_>) -> ControlFlow<()>,
) -> Result<RunTotals, RunError> {
    let Run { projection, settings, schemas, shutdown } = run;
    let mut reader = Reader::open(projection, settings)?;
    let mut applier = BatchApplier::new(projection, schemas, target, shutdown);
    let mut totals = RunTotals::default();
    let mut pace = Pace::new(Instant::now());
    let ended = loop {
        let event = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(totals),
            event = reader.next() => event,
        };
        let received = Instant::now();
        // Boxed: it would make the future of the run too large for the stack.
        let applied = match Box::pin(process(event, &mut reader, &mut applier)).await {
            Ok(applied) => applied,
            Err(RunEnd::Shutdown) => break Ok(totals),
            Err(RunEnd::Error(RunError::Superseded { .. })) if reader.batcher.is_shared() => {
                tracing::info!(projection = %projection.name, "another runner owns a partition");
                applier.owned.clear();
                reader.batcher.close().await;
                reader = Reader::open(projection, settings)?;
                continue;
            }
            Err(RunEnd::Error(error)) => break Err(error),
        };
        let Some(applied) = applied else { continue };
        totals.add(&applied);
        pace.add(applied.records(), Instant::now());
        let lags = lags(&applied.events);
        let mut progress = applied.progress(&lags, received.elapsed(), totals);
        progress.measure(&pace, reader.records_left());
        telemetry::record(&projection.name, &applied, &progress);
        let hooked = hook(&progress);
        if let Some(error) = applied.error {
            break Err(error);
        }
        if hooked.is_break() {
            break Ok(totals);
        }
    };
    reader.batcher.show_offsets(&applier.owned.take_all_to_show());
    reader.batcher.close().await;
    ended
}

impl Reader {
    fn open(projection: &Projection, settings: &ConsumerSettings) -> Result<Self, ConsumeError> {
        Ok(Self { batcher: Batcher::open(projection, settings)?, ahead: None })
    }

    /// Waits for the next event. Safe to cancel.
    async fn next(&mut self) -> Result<BatcherEvent, ConsumeError> {
        match self.ahead.take() {
            Some(event) => event,
            None => self.batcher.next().await,
        }
    }

    /// Applies a batch, and reads the next one in the time that the target needs. What comes else
    /// is processed after the batch.
    async fn apply<T: Target>(
        &mut self,
        records: Vec<FetchedRecord>,
        applier: &mut BatchApplier<T>,
    ) -> Result<AppliedBatch<T::Event>, RunEnd> {
        let mut applied = pin!(applier.apply(records));
        loop {
            tokio::select! {
                biased;
                applied = &mut applied => return applied,
                event = self.batcher.next(), if self.ahead.is_none() => self.ahead = Some(event),
            }
        }
    }

    /// The records behind the last batch, up to the last known end.
    fn records_left(&self) -> Option<u64> {
        let ahead = match &self.ahead {
            Some(Ok(BatcherEvent::Records(records))) => records.len() as u64,
            Some(_) | None => 0,
        };
        self.batcher.records_left().map(|left| left + ahead)
    }
}

/// Processes one event of the batcher. Returns the batch to report to the hook.
async fn process<T: Target>(
    event: Result<BatcherEvent, ConsumeError>,
    reader: &mut Reader,
    applier: &mut BatchApplier<T>,
) -> Result<Option<AppliedBatch<T::Event>>, RunEnd> {
    let batcher = &mut reader.batcher;
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
            applier.claim_assigned(&partitions, batcher.found()).await?;
            batcher.start(&applier.own(&partitions).await?)?;
            tracing::info!(partitions = partitions.len(), "the group assigned partitions");
        }
        BatcherEvent::Revoked(partitions) => {
            applier.owned.remove(&partitions);
            batcher.stop(&partitions)?;
            tracing::info!(partitions = partitions.len(), "the group revoked partitions");
        }
        BatcherEvent::Records(records) => {
            let applied = reader.apply(records, applier).await?;
            reader.batcher.show_offsets(&applier.owned.take_to_show());
            return Ok(Some(applied));
        }
        BatcherEvent::CaughtUp => {
            batcher.show_offsets(&applier.owned.take_all_to_show());
            return Ok(Some(AppliedBatch { caught_up: true, ..AppliedBatch::new() }));
        }
    }
    Ok(None)
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
