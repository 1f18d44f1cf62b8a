//! One attempt to commit a batch in a transaction.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{Connection, PgConnection};

use crate::batch::{DeliveredEvent, EventBatch};
use crate::connection::is_transient_cause;
use crate::dead_letter::{DeadLetter, FailurePolicy};
use crate::error::{RunError, TransactionLimit};
use crate::position::Offset;
use crate::projection::RecordPolicies;
use crate::projection_store::{OffsetUpdate, PartitionProgress, ProjectionStore};

/// The outcome of a batch.
pub(crate) enum BatchOutcome {
    Committed,
    /// The handler returned this error; the transaction was rolled back.
    Rejected(Box<dyn Error + Send + Sync>),
    /// The transaction exceeded a limit; it was rolled back.
    Exceeded(Exceeded),
}

/// A limit that the transaction of a batch exceeded.
pub(crate) struct Exceeded {
    pub(crate) limit: TransactionLimit,
    pub(crate) tries: u32,
    pub(crate) source: Box<dyn Error + Send + Sync>,
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

/// The inputs of one attempt, except the connection and the batch.
pub(crate) struct AttemptContext<'a> {
    pub(crate) store: &'a ProjectionStore,
    pub(crate) policies: &'a RecordPolicies,
    pub(crate) updates: &'a [OffsetUpdate],
    pub(crate) deadline: Duration,
    /// Set when the handler is called: a limit that is exceeded later is the handler's.
    pub(crate) handler_called: &'a AtomicBool,
}

/// Updates the offsets first: their row locks exclude other runners of the projection.
pub(crate) async fn attempt<E, Failure>(
    connection: &mut PgConnection,
    context: &AttemptContext<'_>,
    batch: &EventBatch<E>,
    handler: &mut impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
) -> Result<(), AttemptError>
where
    Failure: Into<Box<dyn Error + Send + Sync>>,
{
    let store = context.store;
    let mut transaction = connection.begin().await?;
    if !store.update_offsets(&mut transaction, context.updates, context.deadline).await? {
        transaction.rollback().await?;
        return Err(AttemptError::OffsetChanged);
    }
    context.handler_called.store(true, Ordering::Relaxed);
    let mut handled = Ok(());
    if !batch.events.is_empty() {
        handled = handler(&mut transaction, &batch.events).await.map_err(Into::into);
    }
    for letter in batch.dead_letters() {
        if handled.is_ok() {
            handled = handle_dead_letter(&mut transaction, context, letter).await;
        }
    }
    if let Err(failure) = handled {
        return match transaction.rollback().await {
            // Its failure has the same cause as that of the handler, which says more.
            Err(error) if !is_transient_cause(&*failure) => Err(error.into()),
            Err(_) | Ok(()) => Err(AttemptError::Handler(failure)),
        };
    }
    store.store_versions(&mut transaction, &batch.versions).await?;
    transaction.commit().await?;
    Ok(())
}

async fn handle_dead_letter(
    connection: &mut PgConnection,
    context: &AttemptContext<'_>,
    letter: &DeadLetter,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let policies = context.policies;
    let policy = match letter {
        DeadLetter::NotAnEvent(_) | DeadLetter::Undecodable(..) => &policies.unreadable,
        DeadLetter::Rejected(..) => &policies.rejected,
    };
    match policy {
        FailurePolicy::Handle(handler) => handler.handle(connection, letter).await,
        // A batch has no dead letters under the policy to stop.
        FailurePolicy::DeadLetter | FailurePolicy::Stop => {
            Ok(context.store.insert_dead_letter(connection, letter).await?)
        }
    }
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
