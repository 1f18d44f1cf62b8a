//! A read model in a database that the application implements.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use annals_schemas::EventSet;
use tokio_util::sync::CancellationToken;

use crate::applied_batch::RunEnd;
use crate::batch::EventBatch;
use crate::connection::DeadlineExceeded;
use crate::error::{RunError, TransactionLimit};
use crate::filter_error::Gap;
use crate::outage::Outage;
use crate::position::{Offset, RecordLocation, TopicPartition};
use crate::progress::{LastApplied, OffsetUpdate, PartitionProgress};
use crate::projection::Projection;
use crate::projection_database::{BatchToApply, DatabaseError, ProjectionDatabase};
use crate::target::Target;
use crate::transaction::{BatchOutcome, Exceeded};

/// Calls the database of a target until it answers. A macro, as in `postgres_target`.
macro_rules! answer {
    ($target:ident, $action:literal, $call:ident($($argument:expr),*)) => {
        loop {
            match in_time($target.deadline, $target.database.$call($($argument),*)).await {
                Ok(found) => break $target.answered(found),
                Err(failure) => $target.after($action, failure).await?,
            }
        }
    };
}

/// A database of the application.
pub(crate) struct DatabaseTarget<E, D> {
    name: Arc<str>,
    database: D,
    outage: Outage,
    deadline: Duration,
    shutdown: CancellationToken,
    events: std::marker::PhantomData<fn() -> E>,
}

impl<E, D> DatabaseTarget<E, D> {
    pub(crate) fn new(projection: &Projection, database: D, shutdown: &CancellationToken) -> Self {
        Self {
            name: Arc::clone(&projection.name),
            database,
            outage: Outage::of("the database of the read model"),
            deadline: projection.limits.batch_deadline,
            shutdown: shutdown.clone(),
            events: std::marker::PhantomData,
        }
    }

    fn answered<T>(&mut self, answer: T) -> T {
        self.outage.record_success();
        answer
    }

    /// Waits before a call is repeated, or returns the end of the run.
    async fn after(&mut self, action: &'static str, failure: DatabaseError) -> Result<(), RunEnd> {
        match failure {
            DatabaseError::Unavailable(cause) => {
                let delay = self.outage.record_failure(&*cause);
                self.wait(delay).await
            }
            DatabaseError::Refused(source) => {
                Err(RunEnd::Error(RunError::OtherDatabase { action, source }))
            }
            DatabaseError::Superseded(found) => Err(self.superseded(&[], &found)),
        }
    }

    async fn wait(&self, delay: Duration) -> Result<(), RunEnd> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(RunEnd::Shutdown),
            () = tokio::time::sleep(delay) => Ok(()),
        }
    }

    fn superseded(&self, updates: &[OffsetUpdate], found: &RecordLocation) -> RunEnd {
        let key = found.topic_partition();
        let update = updates.iter().find(|update| update.next.topic_partition() == key);
        RunEnd::Error(RunError::Superseded {
            projection: Arc::clone(&self.name),
            topic: Arc::clone(&found.topic),
            partition: found.partition,
            expected: update.map_or(Offset::ZERO, |update| update.expected),
            found: found.offset,
        })
    }
}

async fn in_time<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    let answer = tokio::time::timeout(deadline, call).await;
    answer.unwrap_or(Err(DatabaseError::Unavailable(DeadlineExceeded(deadline).into())))
}

impl<E: EventSet, D: ProjectionDatabase<E>> Target for DatabaseTarget<E, D> {
    type Event = E;

    async fn claim_topic(&mut self, topic: &Arc<str>, partitions: i32) -> Result<i32, RunEnd> {
        Ok(answer!(self, "record the partitions of a topic", record_partitions(topic, partitions)))
    }

    async fn own(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<PartitionProgress>, RunEnd> {
        Ok(answer!(self, "claim the partitions", own(partitions)))
    }

    async fn accepted_gaps(&mut self) -> Result<HashSet<Gap>, RunEnd> {
        Ok(answer!(self, "load the accepted gaps", accepted_gaps()).into_iter().collect())
    }

    async fn last_applied(
        &mut self,
        streams: &[&str],
    ) -> Result<Vec<(String, LastApplied)>, RunEnd> {
        Ok(answer!(self, "load the versions of streams", last_applied(streams)))
    }

    async fn commit(
        &mut self,
        batch: &EventBatch<E>,
        updates: &[OffsetUpdate],
    ) -> Result<BatchOutcome, RunEnd> {
        let to_apply = BatchToApply {
            events: &batch.events,
            dead_letters: batch.dead_letters().collect(),
            versions: &batch.versions,
            offsets: updates,
        };
        let limit = TransactionLimit::BatchDeadline(self.deadline);
        let mut tries = 0;
        loop {
            let source = match in_time(self.deadline, self.database.apply(&to_apply)).await {
                Ok(()) => return Ok(self.answered(BatchOutcome::Committed)),
                Err(DatabaseError::Refused(source)) => return Ok(BatchOutcome::Rejected(source)),
                Err(DatabaseError::Superseded(found)) => {
                    return Err(self.superseded(updates, &found));
                }
                Err(DatabaseError::Unavailable(source)) => source,
            };
            tries += u32::from(source.is::<DeadlineExceeded>());
            if tries >= limit.tries_max(batch.handled()) {
                return Ok(BatchOutcome::Exceeded(Exceeded { limit, tries, source }));
            }
            let delay = self.outage.record_failure(&*source);
            self.wait(delay).await?;
        }
    }
}
