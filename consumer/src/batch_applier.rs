//! Applies batches: commits read model, offsets and versions in one transaction.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;

use annals_schemas::EventSet;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::batch::{DeliveredEvent, EventBatch};
use crate::connection::{ConnectionFailure, KeptConnection, is_transient_cause};
use crate::envelope::Delivered;
use crate::error::{ConsumeError, RunError};
use crate::kafka::PartitionCounts;
use crate::position::{Offset, RecordLocation, TopicPartition};
use crate::projection::Projection;
use crate::projection_store::{OffsetUpdate, PartitionProgress};
use crate::registry::SchemaRegistry;
use crate::transaction::{AttemptError, BatchOutcome, attempt, superseded};
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
    next_offsets: HashMap<TopicPartition, Offset>,
}

/// Why the run ends.
#[derive(Debug)]
pub(crate) enum RunEnd {
    /// Shutdown was requested during a wait.
    Shutdown,
    /// The run cannot continue.
    Error(RunError),
}

/// The applied records of one batch, and the error behind them.
#[derive(Debug, Default)]
pub(crate) struct AppliedBatch<E> {
    pub(crate) events: Vec<DeliveredEvent<E>>,
    pub(crate) duplicates: usize,
    pub(crate) skipped: usize,
    pub(crate) batches: u64,
    pub(crate) caught_up: bool,
    pub(crate) error: Option<RunError>,
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
            next_offsets: HashMap::new(),
        }
    }

    /// Loads the progress in topics that were found.
    pub(crate) async fn progress(
        &mut self,
        topics: &PartitionCounts,
    ) -> Result<Vec<PartitionProgress>, RunEnd> {
        self.load_accepted_gaps().await?;
        let mut progress = Vec::new();
        for (topic, &found) in topics {
            let of_topic = self.progress_of(topic, found).await?;
            let known = i32::try_from(of_topic.len()).unwrap_or(i32::MAX);
            if known != found {
                let topic = Arc::clone(topic);
                return Err(RunEnd::Error(
                    ConsumeError::Repartitioned { topic, known, found }.into(),
                ));
            }
            progress.extend(of_topic);
        }
        let offsets = progress.iter().map(|p| (p.next.topic_partition(), p.next.offset));
        self.next_offsets.extend(offsets);
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

    async fn progress_of(
        &mut self,
        topic: &Arc<str>,
        partitions: i32,
    ) -> Result<Vec<PartitionProgress>, RunEnd> {
        let failed = |failure| run_end("load the offsets of the projection", failure);
        loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let query = self.projection.store.claim(&mut connection, topic, partitions);
            let answer = self.connection.before_deadline(query).await;
            let finished = self.connection.finish_query(connection, answer).await;
            if let Some(progress) = finished.map_err(failed)? {
                return Ok(progress);
            }
        }
    }

    /// Applies records in one transaction. If the handler returns an error, applies them one by
    /// one: this names the event, and commits those before it.
    pub(crate) async fn apply<E, Failure>(
        &mut self,
        records: Vec<Delivered>,
        handler: &mut impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
    ) -> Result<AppliedBatch<E>, RunEnd>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut applied = AppliedBatch::new();
        let mut batch = self.filter_and_decode(records).await?;
        let error = batch.error.take();
        match self.commit(&batch, handler).await? {
            BatchOutcome::Committed => applied.add(batch),
            BatchOutcome::Rejected(source) if batch.events.len() == 1 => {
                applied.error = rejection(&batch, source);
            }
            BatchOutcome::Rejected(_of_several) => {
                self.apply_each(batch.into_records(), handler, &mut applied).await?;
            }
        }
        applied.error = applied.error.or(error);
        Ok(applied)
    }

    async fn apply_each<E, Failure>(
        &mut self,
        records: Vec<Delivered>,
        handler: &mut impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
        applied: &mut AppliedBatch<E>,
    ) -> Result<(), RunEnd>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        for record in records {
            let batch = self.filter_and_decode(vec![record]).await?;
            match self.commit(&batch, handler).await? {
                BatchOutcome::Committed => applied.add(batch),
                BatchOutcome::Rejected(source) => {
                    applied.error = rejection(&batch, source);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Filters and decodes outside a transaction: it may wait for the registry.
    async fn filter_and_decode<E: EventSet>(
        &mut self,
        records: Vec<Delivered>,
    ) -> Result<EventBatch<E>, RunEnd> {
        let mut filter =
            VersionFilter::new(self.projection.first_version).with_accepted(&self.accepted_gaps);
        let mut uncached = HashSet::new();
        for record in &records {
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
            self.projection.unknown_events,
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

    /// Retries until the outcome of the transaction is known.
    async fn commit<E, Failure>(
        &mut self,
        batch: &EventBatch<E>,
        handler: &mut impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
    ) -> Result<BatchOutcome, RunEnd>
    where
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        let failed = |failure| run_end("apply a batch", failure);
        let updates = self.offset_updates(batch);
        if updates.is_empty() {
            return Ok(BatchOutcome::Committed);
        }
        loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let store = &self.projection.store;
            let attempt = attempt(&mut connection, store, &updates, batch, handler);
            match self.connection.before_deadline(attempt).await {
                Ok(()) => self.connection.put_back(connection),
                Err(AttemptError::OffsetChanged) => {
                    self.connection.put_back(connection);
                    self.check_superseded(&updates).await?;
                }
                Err(AttemptError::Handler(error)) if is_transient_cause(&*error) => {
                    let delay = self.connection.delay_after(&*error);
                    self.connection.wait(delay).await.map_err(failed)?;
                    continue;
                }
                Err(AttemptError::Handler(error)) => {
                    self.connection.put_back(connection);
                    return Ok(BatchOutcome::Rejected(error));
                }
                Err(AttemptError::Sql(error)) => {
                    self.connection.wait_after(error).await.map_err(failed)?;
                    continue;
                }
            }
            self.remember(batch, &updates);
            return Ok(BatchOutcome::Committed);
        }
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

    fn offset_updates<E>(&self, batch: &EventBatch<E>) -> Vec<OffsetUpdate> {
        let updates = batch.ends.iter().map(|(key, &(offset, last_event))| {
            let (topic, partition) = key.clone();
            let expected = self.next_offsets.get(key).copied().unwrap_or(Offset::ZERO);
            let next = RecordLocation { topic, partition, offset: offset.next() };
            OffsetUpdate { expected, next, last_event }
        });
        let mut updates: Vec<OffsetUpdate> = updates.collect();
        updates.sort_by(|a, b| a.next.cmp(&b.next));
        updates
    }

    fn remember<E>(&mut self, batch: &EventBatch<E>, updates: &[OffsetUpdate]) {
        for (stream, last) in &batch.versions {
            self.versions.insert(stream, last.clone());
        }
        for OffsetUpdate { next, .. } in updates {
            self.next_offsets.insert(next.topic_partition(), next.offset);
        }
    }
}

impl<E> AppliedBatch<E> {
    pub(crate) fn new() -> Self {
        Self {
            events: Vec::new(),
            duplicates: 0,
            skipped: 0,
            batches: 0,
            caught_up: false,
            error: None,
        }
    }

    fn add(&mut self, batch: EventBatch<E>) {
        self.batches += u64::from(!batch.ends.is_empty());
        self.duplicates += batch.duplicates;
        self.skipped += batch.skipped();
        self.events.extend(batch.events);
    }
}

/// Names the single event of a batch that the handler rejected.
fn rejection<E>(batch: &EventBatch<E>, source: Box<dyn Error + Send + Sync>) -> Option<RunError> {
    let rejected = &batch.events.first()?.delivered;
    Some(RunError::Handler {
        stream: rejected.stream.clone(),
        version: rejected.version,
        event_type: rejected.event_type.clone(),
        event_id: rejected.event_id,
        location: rejected.location(),
        source,
    })
}

fn run_end(action: &'static str, failure: ConnectionFailure) -> RunEnd {
    match failure {
        ConnectionFailure::Shutdown => RunEnd::Shutdown,
        ConnectionFailure::Permanent(source) => {
            RunEnd::Error(RunError::Database { action, source })
        }
    }
}
