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

/// Queries the projection's store until the database answers. A macro: with a function that
/// takes an `AsyncFnMut` the future of a run would not be `Send`.
macro_rules! answer {
    ($target:ident, $action:literal, $query:ident($($argument:expr),*)) => {{
        let failed = |failure| run_end($action, failure);
        loop {
            let mut connection = $target.connection.take().await.map_err(failed)?;
            let query = $target.projection.store.$query(&mut connection $(, $argument)*);
            let answer = $target.connection.before_deadline(query).await;
            let finished = $target.connection.finish_query(connection, answer).await;
            if let Some(found) = finished.map_err(failed)? {
                break found;
            }
        }
    }};
}

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
        let mut topics: Vec<_> = updates.iter().map(|u| Arc::clone(&u.next.topic)).collect();
        topics.dedup();
        let stored = answer!(self, "load the offsets of the projection", progress(&topics));
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
        Ok(answer!(self, "load the offsets of the projection", claim(topic, partitions)))
    }

    async fn own(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<PartitionProgress>, RunEnd> {
        Ok(answer!(self, "claim the partitions of the projection", claim_ownership(partitions)))
    }

    async fn accepted_gaps(&mut self) -> Result<HashSet<Gap>, RunEnd> {
        Ok(answer!(self, "load the accepted gaps of the projection", accepted_gaps()))
    }

    async fn last_applied(
        &mut self,
        streams: &[&str],
    ) -> Result<Vec<(String, LastApplied)>, RunEnd> {
        Ok(answer!(self, "load the versions of streams", versions(streams)))
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
