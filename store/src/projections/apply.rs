//! Applying: events, and the progress behind them, in one transaction.

use std::error::Error as StdError;

use sqlx::PgConnection;

use super::Projection;
use super::lease::{LeaseLost, ProjectionLease};
use super::versions::{ProjectionVersion, begin};
use crate::event::RecordedEvent;
use crate::follow::Checkpoint;
use crate::sqlstate::is_transient;
use crate::store::Store;

/// Why events were not applied. Their transaction is rolled back.
#[derive(Debug)]
pub(super) enum ApplyError {
    /// Another runner has the lease.
    LeaseLost,
    /// The projection returned this error.
    Refused(Box<dyn StdError + Send + Sync>),
    /// The same events can be applied later, or on another connection.
    Interrupted(Box<dyn StdError + Send + Sync>),
}

/// Applies events in a transaction of their own, and stores the checkpoint after them.
pub(super) async fn apply<P: Projection>(
    (store, projection, version): (&Store, &P, &ProjectionVersion),
    connection: &mut PgConnection,
    lease: &ProjectionLease,
    events: &[RecordedEvent],
    reached: &Checkpoint,
) -> Result<(), ApplyError> {
    let mut transaction = begin(store, connection).await?;
    version.enter(store, &mut transaction, lease.duration()).await?;
    let applied = match events {
        [] => Ok(()),
        events => {
            projection.apply(events, &mut transaction).await.map_err(ApplyError::of_projection)
        }
    };
    if let Err(error) = applied {
        transaction.rollback().await?;
        return Err(error);
    }
    // Last, so that a runner that hangs before it keeps no other from the lease.
    if let Err(LeaseLost) = lease.store_progress(&mut transaction, reached, events.len()).await? {
        transaction.rollback().await?;
        return Err(ApplyError::LeaseLost);
    }
    transaction.commit().await?;
    lease.committed(reached);
    Ok(())
}

impl ApplyError {
    fn of_projection(error: Box<dyn StdError + Send + Sync>) -> Self {
        if is_transient_cause(&*error) { Self::Interrupted(error) } else { Self::Refused(error) }
    }
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Interrupted(error.into())
    }
}

/// Whether an error or one of its causes is a transient one of the database.
pub(super) fn is_transient_cause(error: &(dyn StdError + 'static)) -> bool {
    has_cause(error, is_transient)
}

/// Whether an error or one of its causes is such an error of the database.
pub(super) fn has_cause(
    error: &(dyn StdError + 'static),
    is_so: impl Fn(&sqlx::Error) -> bool,
) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<sqlx::Error>().is_some_and(&is_so) {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error and its causes, in one line.
pub(super) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
