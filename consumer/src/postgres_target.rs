//! A read model in PostgreSQL: one transaction commits a handler's writes, offsets and versions.

use std::collections::HashSet;
use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use annals_schemas::EventSet;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::applied_batch::{RunEnd, run_end};
use crate::batch::{DeliveredEvent, EventBatch};
use crate::connection::{KeptConnection, exceeded_limit, is_transient_cause, transient};
use crate::error::TransactionLimit;
use crate::filter_error::Gap;
use crate::position::TopicPartition;
use crate::progress::{LastApplied, OffsetUpdate, PartitionProgress};
use crate::projection::Projection;
use crate::target::Target;
use crate::transaction::{
    AttemptContext, AttemptError, BatchOutcome, Exceeded, attempt, superseded,
};

/// A handler, and the connection that it writes through.
pub(crate) struct PostgresTarget<E, H, Failure> {
    projection: Projection,
    connection: KeptConnection,
    handler: H,
    types: PhantomData<fn() -> (E, Failure)>,
}

impl<E, H, Failure> PostgresTarget<E, H, Failure> {
    pub(crate) fn new(
        projection: &Projection,
        pool: &PgPool,
        shutdown: &CancellationToken,
        handler: H,
    ) -> Self {
        let deadline = projection.limits.batch_deadline;
        Self {
            projection: projection.clone(),
            connection: KeptConnection::new(pool, deadline, shutdown),
            handler,
            types: PhantomData,
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
}

impl<E, H, Failure> Target for PostgresTarget<E, H, Failure>
where
    E: EventSet,
    H: AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
    Failure: Into<Box<dyn Error + Send + Sync>>,
{
    type Event = E;

    async fn claim_topic(&mut self, topic: &Arc<str>, partitions: i32) -> Result<i32, RunEnd> {
        let failed = |failure| run_end("load the offsets of the projection", failure);
        loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let query = self.projection.store.claim(&mut connection, topic, partitions);
            let answer = self.connection.before_deadline(query).await;
            let finished = self.connection.finish_query(connection, answer).await;
            if let Some(known) = finished.map_err(failed)? {
                return Ok(i32::try_from(known).unwrap_or(i32::MAX));
            }
        }
    }

    async fn own(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<PartitionProgress>, RunEnd> {
        let failed = |failure| run_end("claim the partitions of the projection", failure);
        loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let query = self.projection.store.claim_ownership(&mut connection, partitions);
            let answer = self.connection.before_deadline(query).await;
            let finished = self.connection.finish_query(connection, answer).await;
            if let Some(progress) = finished.map_err(failed)? {
                return Ok(progress);
            }
        }
    }

    async fn accepted_gaps(&mut self) -> Result<HashSet<Gap>, RunEnd> {
        let failed = |failure| run_end("load the accepted gaps of the projection", failure);
        loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let query = self.projection.store.accepted_gaps(&mut connection);
            let answer = self.connection.before_deadline(query).await;
            let finished = self.connection.finish_query(connection, answer).await;
            if let Some(accepted) = finished.map_err(failed)? {
                return Ok(accepted);
            }
        }
    }

    async fn last_applied(
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

    async fn commit(
        &mut self,
        batch: &EventBatch<E>,
        updates: &[OffsetUpdate],
    ) -> Result<BatchOutcome, RunEnd> {
        let failed = |failure| run_end("apply a batch", failure);
        let mut tries = 0;
        loop {
            let mut connection = self.connection.take().await.map_err(failed)?;
            let handler_called = AtomicBool::new(false);
            let context = AttemptContext {
                store: &self.projection.store,
                policies: &self.projection.policies,
                updates,
                settings: self.projection.transaction_settings(),
                handler_called: &handler_called,
            };
            let attempt = attempt(&mut connection, &context, batch, &mut self.handler);
            let failure = match self.connection.before_deadline(attempt).await {
                Ok(()) => {
                    self.connection.put_back(connection);
                    return Ok(BatchOutcome::Committed);
                }
                Err(AttemptError::OffsetChanged) => {
                    self.connection.put_back(connection);
                    self.check_superseded(updates).await?;
                    return Ok(BatchOutcome::Committed);
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
