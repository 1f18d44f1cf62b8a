//! One attempt to commit a batch in a transaction.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use sqlx::{Connection, PgConnection};

use crate::batch::{DeliveredEvent, EventBatch};
use crate::error::RunError;
use crate::position::Offset;
use crate::projection_store::{OffsetUpdate, PartitionProgress, ProjectionStore};

/// The outcome of a batch.
pub(crate) enum BatchOutcome {
    Committed,
    /// The handler returned this error; the transaction was rolled back.
    Rejected(Box<dyn Error + Send + Sync>),
}

/// Why a transaction was not committed, or is not known to be.
pub(crate) enum AttemptError {
    /// The state of the connection's transaction is unknown.
    Sql(sqlx::Error),
    /// The stored offset of a partition differs from the expected one; rolled back.
    OffsetChanged,
    /// The handler returned this error; rolled back.
    Handler(Box<dyn Error + Send + Sync>),
}

/// Updates the offsets first: their row locks exclude other runners of the projection.
pub(crate) async fn attempt<E, Failure>(
    connection: &mut PgConnection,
    store: &ProjectionStore,
    updates: &[OffsetUpdate],
    batch: &EventBatch<E>,
    handler: &mut impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
) -> Result<(), AttemptError>
where
    Failure: Into<Box<dyn Error + Send + Sync>>,
{
    let mut transaction = connection.begin().await?;
    if !store.update_offsets(&mut transaction, updates).await? {
        transaction.rollback().await?;
        return Err(AttemptError::OffsetChanged);
    }
    if !batch.events.is_empty()
        && let Err(failure) = handler(&mut transaction, &batch.events).await
    {
        transaction.rollback().await?;
        return Err(AttemptError::Handler(failure.into()));
    }
    store.store_versions(&mut transaction, &batch.versions).await?;
    transaction.commit().await?;
    Ok(())
}

/// Determines from the stored offsets whether another runner has changed them. Returns `None` if
/// all of them lie behind the batch: an earlier attempt was committed, and its answer was lost.
pub(crate) fn superseded(
    projection: &Arc<str>,
    updates: &[OffsetUpdate],
    stored: Vec<PartitionProgress>,
) -> Option<RunError> {
    let offsets: HashMap<_, _> =
        stored.into_iter().map(|s| (s.next.topic_partition(), s.next.offset)).collect();
    updates.iter().find_map(|OffsetUpdate { expected, next, .. }| {
        let found = offsets.get(&next.topic_partition()).copied().unwrap_or(Offset::ZERO);
        (found != next.offset).then(|| RunError::Superseded {
            projection: Arc::clone(projection),
            topic: Arc::clone(&next.topic),
            partition: next.partition,
            expected: *expected,
            found,
        })
    })
}

impl From<sqlx::Error> for AttemptError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}
