//! One attempt to commit a batch.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use sqlx::{Connection, PgConnection};

use crate::batch::{Batch, Event};
use crate::ledger::{Advance, Ledger, Standing};
use crate::runner::RunError;

/// What became of a batch whose transaction could be tried.
pub(crate) enum Outcome {
    Committed,
    /// The handler's error; everything was rolled back.
    Refused(Box<dyn Error + Send + Sync>),
}

/// Why a transaction was not committed, or is not known to be.
pub(crate) enum Trouble {
    /// The connection is in no known state.
    Sql(sqlx::Error),
    /// A partition does not stand where it was left; rolled back.
    Moved,
    /// The handler returned this; rolled back.
    Handler(Box<dyn Error + Send + Sync>),
}

/// Offsets first: they lock out any other runner of the projection until the end.
pub(crate) async fn attempt<E, Failure>(
    connection: &mut PgConnection,
    ledger: &Ledger,
    advances: &[Advance],
    batch: &Batch<E>,
    handler: &mut impl AsyncFnMut(&mut PgConnection, &[Event<E>]) -> Result<(), Failure>,
) -> Result<(), Trouble>
where
    Failure: Into<Box<dyn Error + Send + Sync>>,
{
    let mut transaction = connection.begin().await?;
    if !ledger.advance(&mut transaction, advances).await? {
        transaction.rollback().await?;
        return Err(Trouble::Moved);
    }
    if !batch.events.is_empty()
        && let Err(failure) = handler(&mut transaction, &batch.events).await
    {
        transaction.rollback().await?;
        return Err(Trouble::Handler(failure.into()));
    }
    ledger.store_versions(&mut transaction, &batch.lasts).await?;
    transaction.commit().await?;
    Ok(())
}

/// Tells who moved the partitions of a batch, from where they stand: nobody if all stand behind it,
/// for then an earlier attempt was committed and only its answer got lost.
pub(crate) fn moved_by_another(
    projection: &Arc<str>,
    advances: &[Advance],
    standings: Vec<Standing>,
) -> Option<RunError> {
    let offsets: HashMap<_, _> =
        standings.into_iter().map(|s| ((s.next.topic, s.next.partition), s.next.offset)).collect();
    advances.iter().find_map(|Advance { expected, next, .. }| {
        let key = (Arc::clone(&next.topic), next.partition);
        let found = offsets.get(&key).copied().unwrap_or(0);
        (found != next.offset).then(|| RunError::Superseded {
            projection: Arc::clone(projection),
            topic: Arc::clone(&next.topic),
            partition: next.partition,
            expected: *expected,
            found,
        })
    })
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}
