//! Applies batches: commits read model, offsets and versions in one transaction.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use annals_schemas::EventSet;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::applied_batch::{AppliedBatch, RunEnd, limit_exceeded, rejection, run_end};
use crate::batch::{DeliveredEvent, EventBatch};
use crate::batch_size::{BatchSize, parts_of, split};
use crate::connection::{KeptConnection, exceeded_limit, is_transient_cause, transient};
use crate::error::{ConsumeError, TransactionLimit};
use crate::kafka::PartitionCounts;
use crate::owned_partitions::OwnedPartitions;
use crate::position::TopicPartition;
use crate::projection::Projection;
use crate::projection_store::{OffsetUpdate, PartitionProgress};
use crate::raw_record::FetchedRecord;
use crate::registry::SchemaRegistry;
use crate::transaction::{
    AttemptContext, AttemptError, BatchOutcome, Exceeded, attempt, superseded,
};
use crate::version_cache::VersionCache;
use crate::version_filter::{Gap, LastApplied, VersionFilter};

/// Applies batches, and tracks the next offset of each partition and the version of each stream.
pub(crate) struct BatchApplier {
    projection: Projection,
    schemas: SchemaRegistry,
    connection: KeptConnection,
    shutdown: CancellationToken,
    versions: VersionCache,
    accepted_gaps: Arc<HashSet<Gap>>,
    /// The partitions of this runner.
    pub(crate) owned: OwnedPartitions,
    size: BatchSize,
}

impl BatchApplier {
    pub(crate) fn new(
        projection: &Projection,
        schemas: &SchemaRegistry,
        pool: &PgPool,
        shutdown: &CancellationToken,
    ) -> Self {
        let limits = projection.limits;
        Self {
            projection: projection.clone(),
            schemas: schemas.clone(),
            connection: KeptConnection::new(pool, limits.batch_deadline, shutdown),
            shutdown: shutdown.clone(),
            versions: VersionCache::new(limits.cached_streams_max),
            accepted_gaps: Arc::default(),
            owned: OwnedPartitions::new(),
            size: BatchSize::new(limits.batch_events_max),
        }
    }

    /// Starts topics that were found, and checks that their partition counts have not changed.
    pub(crate) async fn claim(&mut self, topics: &PartitionCounts) -> Result<(), RunEnd> {
        self.load_accepted_gaps().await?;
        for (topic, &found) in topics {
            let known = self.claim_topic(topic, found).await?;
            let known = i32::try_from(known).unwrap_or(i32::MAX);
            if known != found {
                let topic = Arc::clone(topic);
                let error = ConsumeError::Repartitioned { topic, known, found };
                return Err(RunEnd::Error(error.into()));
            }
        }
        Ok(())
    }

    /// Becomes the owner of partitions, and loads the progress in them.
    pub(crate) async fn own(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<PartitionProgress>, RunEnd> {
        let failed = |failure| run_end("claim the partitions of the projection", failure);
        let progress = loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let query = self.projection.store.claim_ownership(&mut connection, partitions);
            let answer = self.connection.before_deadline(query).await;
            let finished = self.connection.finish_query(connection, answer).await;
            if let Some(progress) = finished.map_err(failed)? {
                break progress;
            }
        };
        // Another runner may have applied events since.
        self.versions = VersionCache::new(self.projection.limits.cached_streams_max);
        self.owned.add(&progress);
        Ok(progress)
    }

    async fn load_accepted_gaps(&mut self) -> Result<(), RunEnd> {
        let failed = |failure| run_end("load the accepted gaps of the projection", failure);
        loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let query = self.projection.store.accepted_gaps(&mut connection);
            let answer = self.connection.before_deadline(query).await;
            let finished = self.connection.finish_query(connection, answer).await;
            if let Some(accepted) = finished.map_err(failed)? {
                self.accepted_gaps = Arc::new(accepted);
                return Ok(());
            }
        }
    }

    async fn claim_topic(&mut self, topic: &Arc<str>, partitions: i32) -> Result<usize, RunEnd> {
        let failed = |failure| run_end("load the offsets of the projection", failure);
        loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let query = self.projection.store.claim(&mut connection, topic, partitions);
            let answer = self.connection.before_deadline(query).await;
            let finished = self.connection.finish_query(connection, answer).await;
            if let Some(known) = finished.map_err(failed)? {
                return Ok(known);
            }
        }
    }

    /// Applies records in one transaction, or in several: in smaller ones if it exceeds a limit,
    /// and one by one if the handler returns an error. This names the event, and commits those
    /// before it.
    pub(crate) async fn apply<E, Failure>(
        &mut self,
        records: Vec<FetchedRecord>,
        handler: &mut impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
    ) -> Result<AppliedBatch<E>, RunEnd>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut applied = AppliedBatch::new();
        let mut error_behind = None;
        let mut parts = parts_of(records, self.size.records());
        while let Some(records) = parts.pop_front() {
            let mut batch = self.filter_and_decode(records).await?;
            if let Some(error) = batch.error.take() {
                error_behind = Some(error);
                parts.clear();
            }
            match self.commit(&batch, handler).await? {
                BatchOutcome::Committed => {
                    applied.add(batch);
                    self.size.record_commit();
                }
                BatchOutcome::Rejected(source) if batch.handled() == 1 => {
                    self.reject(batch, source, handler, &mut applied).await?;
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
    async fn reject<E, Failure>(
        &mut self,
        mut batch: EventBatch<E>,
        source: Box<dyn Error + Send + Sync>,
        handler: &mut impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
        applied: &mut AppliedBatch<E>,
    ) -> Result<(), RunEnd>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        if batch.events.is_empty() || self.projection.policies.rejected.stops() {
            applied.error = rejection(&batch, source);
            return Ok(());
        }
        batch.reject(source);
        match self.commit(&batch, handler).await? {
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
    async fn filter_and_decode<E: EventSet>(
        &mut self,
        records: Vec<FetchedRecord>,
    ) -> Result<EventBatch<E>, RunEnd> {
        let mut filter =
            VersionFilter::new(self.projection.first_version).with_accepted(&self.accepted_gaps);
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
            for (stream, last) in self.load_versions(&uncached).await? {
                filter.restore(&stream, last);
            }
        }
        let filter_and_decode = EventBatch::filter_and_decode(
            records,
            &mut filter,
            &self.schemas,
            &self.projection.policies,
        );
        tokio::select! {
            batch = filter_and_decode => Ok(batch),
            () = self.shutdown.cancelled() => Err(RunEnd::Shutdown),
        }
    }

    async fn load_versions(
        &mut self,
        streams: &[&str],
    ) -> Result<Vec<(String, LastApplied)>, RunEnd> {
        let failed = |failure| run_end("load the versions of streams", failure);
        loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let query = self.projection.store.versions(&mut connection, streams);
            let answer = self.connection.before_deadline(query).await;
            let finished = self.connection.finish_query(connection, answer).await;
            if let Some(found) = finished.map_err(failed)? {
                return Ok(found);
            }
        }
    }

    /// Retries until the outcome of the transaction is known, or it has exceeded a limit.
    async fn commit<E, Failure>(
        &mut self,
        batch: &EventBatch<E>,
        handler: &mut impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
    ) -> Result<BatchOutcome, RunEnd>
    where
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        let failed = |failure| run_end("apply a batch", failure);
        let updates = self.owned.updates(&batch.ends);
        if updates.is_empty() {
            return Ok(BatchOutcome::Committed);
        }
        let mut tries = 0;
        loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let handler_called = AtomicBool::new(false);
            let context = AttemptContext {
                store: &self.projection.store,
                policies: &self.projection.policies,
                updates: &updates,
                deadline: self.projection.limits.batch_deadline,
                handler_called: &handler_called,
            };
            let attempt = attempt(&mut connection, &context, batch, handler);
            let failure = match self.connection.before_deadline(attempt).await {
                Ok(()) => {
                    self.connection.put_back(connection);
                    break;
                }
                Err(AttemptError::OffsetChanged) => {
                    self.connection.put_back(connection);
                    self.check_superseded(&updates).await?;
                    break;
                }
                Err(AttemptError::Handler(error)) if !is_transient_cause(&*error) => {
                    self.connection.put_back(connection);
                    return Ok(BatchOutcome::Rejected(error));
                }
                Err(AttemptError::Handler(error)) => error,
                Err(AttemptError::Sql(error)) => transient(error).map_err(failed)?.into(),
            };
            if handler_called.into_inner()
                && let Some(limit) = reached_limit(&*failure, &mut tries, batch.handled())
            {
                return Ok(BatchOutcome::Exceeded(Exceeded { limit, tries, source: failure }));
            }
            let delay = self.connection.delay_after(&*failure);
            self.connection.wait(delay).await.map_err(failed)?;
        }
        self.remember(batch, &updates);
        Ok(BatchOutcome::Committed)
    }

    /// Determines why stored offsets differ from the expected ones: an earlier attempt was
    /// committed and its answer lost, or another runner has changed them.
    async fn check_superseded(&mut self, updates: &[OffsetUpdate]) -> Result<(), RunEnd> {
        let failed = |failure| run_end("load the offsets of the projection", failure);
        let mut topics: Vec<_> = updates.iter().map(|u| Arc::clone(&u.next.topic)).collect();
        topics.dedup();
        let stored = loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let query = self.projection.store.progress(&mut connection, &topics);
            let answer = self.connection.before_deadline(query).await;
            let finished = self.connection.finish_query(connection, answer).await;
            if let Some(found) = finished.map_err(failed)? {
                break found;
            }
        };
        match superseded(&self.projection.name, updates, stored) {
            None => Ok(()),
            Some(error) => Err(RunEnd::Error(error)),
        }
    }

    fn remember<E>(&mut self, batch: &EventBatch<E>, updates: &[OffsetUpdate]) {
        for (stream, last) in &batch.versions {
            self.versions.insert(stream, last.clone());
        }
        self.owned.record(updates);
    }
}

/// Counts a try that exceeded a limit; returns the limit after the last one.
fn reached_limit(
    failure: &(dyn Error + 'static),
    tries: &mut u32,
    handled: usize,
) -> Option<TransactionLimit> {
    let limit = exceeded_limit(failure).filter(|_| handled > 0)?;
    *tries += 1;
    (*tries >= limit.tries_max(handled)).then_some(limit)
}
