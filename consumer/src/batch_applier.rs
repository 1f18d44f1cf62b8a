//! Applies batches: commits read model, offsets and versions together.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::applied_batch::{AppliedBatch, RunEnd, limit_exceeded, rejection};
use crate::batch::EventBatch;
use crate::batch_size::{BatchSize, parts_of, split};
use crate::error::ConsumeError;
use crate::fetched_record::FetchedRecord;
use crate::filter_error::Gap;
use crate::kafka::PartitionCounts;
use crate::owned_partitions::OwnedPartitions;
use crate::position::TopicPartition;
use crate::progress::PartitionProgress;
use crate::projection::Projection;
use crate::registry::SchemaRegistry;
use crate::target::Target;
use crate::topic_watch::AddedPartitions;
use crate::transaction::{BatchOutcome, Exceeded};
use crate::version_cache::VersionCache;
use crate::version_filter::VersionFilter;

/// Applies batches, and tracks the next offset of each partition and the version of each stream.
pub(crate) struct BatchApplier<T> {
    projection: Projection,
    schemas: SchemaRegistry,
    target: T,
    shutdown: CancellationToken,
    versions: VersionCache,
    accepted_gaps: Arc<HashSet<Gap>>,
    /// The partitions of this runner.
    pub(crate) owned: OwnedPartitions,
    size: BatchSize,
}

impl<T: Target> BatchApplier<T> {
    pub(crate) fn new(
        projection: &Projection,
        schemas: &SchemaRegistry,
        target: T,
        shutdown: &CancellationToken,
    ) -> Self {
        let limits = projection.limits;
        Self {
            projection: projection.clone(),
            schemas: schemas.clone(),
            target,
            shutdown: shutdown.clone(),
            versions: VersionCache::new(limits.cached_streams_max),
            accepted_gaps: Arc::default(),
            owned: OwnedPartitions::new(),
            size: BatchSize::new(limits.batch_events_max),
        }
    }

    /// Starts topics that were found, and checks that they have not lost partitions.
    pub(crate) async fn claim(&mut self, topics: &PartitionCounts) -> Result<(), RunEnd> {
        self.accepted_gaps = Arc::new(self.target.accepted_gaps().await?);
        for (topic, &found) in topics {
            let known = self.claim_topic(topic, found).await?;
            if found < known {
                let topic = Arc::clone(topic);
                let error = ConsumeError::Repartitioned { topic, known, found };
                return Err(RunEnd::Error(error.into()));
            }
        }
        Ok(())
    }

    /// Starts the partitions that the group assigns before this runner has `found` them.
    pub(crate) async fn claim_assigned(
        &mut self,
        partitions: &[TopicPartition],
        found: &PartitionCounts,
    ) -> Result<(), RunEnd> {
        let mut counts = PartitionCounts::new();
        for (topic, partition) in partitions {
            let count = counts.entry(Arc::clone(topic)).or_default();
            *count = (partition + 1).max(*count);
        }
        counts.retain(|topic, count| found.get(topic).is_none_or(|found| *count > *found));
        for (topic, count) in counts {
            self.claim_topic(&topic, count).await?;
        }
        Ok(())
    }

    /// Starts the partitions of a topic that are not recorded; returns how many were.
    async fn claim_topic(&mut self, topic: &Arc<str>, found: i32) -> Result<i32, RunEnd> {
        let recorded = self.target.claim_topic(topic, found).await?;
        if found > recorded {
            AddedPartitions { recorded, found }.report(topic);
        }
        Ok(recorded)
    }

    /// Becomes the owner of partitions, and loads the progress in them.
    pub(crate) async fn own(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<PartitionProgress>, RunEnd> {
        let progress = self.target.own(partitions).await?;
        // Another runner may have applied events since.
        self.versions = VersionCache::new(self.projection.limits.cached_streams_max);
        self.owned.add(&progress);
        Ok(progress)
    }

    /// Applies records in one transaction, or in several: in smaller ones if it exceeds a limit,
    /// and one by one if the handler returns an error. This names the event, and commits those
    /// before it.
    pub(crate) async fn apply(
        &mut self,
        records: Vec<FetchedRecord>,
    ) -> Result<AppliedBatch<T::Event>, RunEnd> {
        let mut applied = AppliedBatch::new();
        let mut error_behind = None;
        let mut parts = parts_of(records, self.size.records());
        while let Some(records) = parts.pop_front() {
            let mut batch = self.filter_and_decode(records).await?;
            if let Some(error) = batch.error.take() {
                error_behind = Some(error);
                parts.clear();
            }
            match self.commit(&batch).await? {
                BatchOutcome::Committed => {
                    applied.add(batch);
                    self.size.record_commit();
                }
                BatchOutcome::Rejected(source) if batch.handled() == 1 => {
                    self.reject(batch, source, &mut applied).await?;
                }
                BatchOutcome::Exceeded(exceeded) if batch.handled() == 1 => {
                    applied.error = limit_exceeded(&batch, exceeded);
                }
                BatchOutcome::Rejected(_of_several) => split(&mut parts, batch.into_records(), 1),
                BatchOutcome::Exceeded(exceeded) => {
                    let records = batch.into_records();
                    self.shrink(records.len(), &exceeded);
                    split(&mut parts, records, self.size.records());
                }
            }
            if applied.error.is_some() {
                break;
            }
        }
        applied.error = applied.error.or(error_behind);
        Ok(applied)
    }

    /// Makes a dead letter of a rejected event, unless the run is to end.
    async fn reject(
        &mut self,
        mut batch: EventBatch<T::Event>,
        source: Box<dyn Error + Send + Sync>,
        applied: &mut AppliedBatch<T::Event>,
    ) -> Result<(), RunEnd> {
        if batch.events.is_empty() || self.projection.policies.rejected.stops() {
            applied.error = rejection(&batch, source);
            return Ok(());
        }
        batch.reject(source);
        match self.commit(&batch).await? {
            BatchOutcome::Committed => applied.add(batch),
            BatchOutcome::Rejected(source) => applied.error = rejection(&batch, source),
            BatchOutcome::Exceeded(exceeded) => applied.error = limit_exceeded(&batch, exceeded),
        }
        Ok(())
    }

    fn shrink(&mut self, records: usize, exceeded: &Exceeded) {
        self.size.shrink(records);
        tracing::warn!(
            projection = %self.projection.name,
            records,
            records_next = self.size.records(),
            "a transaction exceeded {}: the next ones apply fewer events",
            exceeded.limit
        );
    }

    /// Filters and decodes outside a transaction: it may wait for the registry.
    async fn filter_and_decode(
        &mut self,
        records: Vec<FetchedRecord>,
    ) -> Result<EventBatch<T::Event>, RunEnd> {
        let first = self.projection.first_version;
        let mut filter = VersionFilter::of_batch(first, records.len(), &self.accepted_gaps);
        let mut uncached = HashSet::new();
        for record in records.iter().flatten() {
            match self.versions.get(&record.stream) {
                Some(last) => filter.restore(&record.stream, last.clone()),
                None => {
                    uncached.insert(record.stream.as_str());
                }
            }
        }
        if !uncached.is_empty() {
            let uncached: Vec<&str> = uncached.into_iter().collect();
            for (stream, last) in self.target.last_applied(&uncached).await? {
                filter.restore(&stream, last);
            }
        }
        let filter_and_decode = EventBatch::filter_and_decode(
            records,
            &mut filter,
            &self.schemas,
            &self.projection.policies,
        );
        let mut batch = tokio::select! {
            batch = filter_and_decode => batch,
            () = self.shutdown.cancelled() => return Err(RunEnd::Shutdown),
        };
        batch.keep_versions(filter);
        Ok(batch)
    }

    /// Commits a batch with the offsets behind it, and remembers what was committed.
    async fn commit(&mut self, batch: &EventBatch<T::Event>) -> Result<BatchOutcome, RunEnd> {
        let updates = self.owned.updates(&batch.ends);
        if updates.is_empty() {
            return Ok(BatchOutcome::Committed);
        }
        let outcome = self.target.commit(batch, &updates).await?;
        if matches!(outcome, BatchOutcome::Committed) {
            for (stream, last) in &batch.versions {
                self.versions.insert(stream, last.clone());
            }
            self.owned.record(&updates);
        }
        Ok(outcome)
    }
}
