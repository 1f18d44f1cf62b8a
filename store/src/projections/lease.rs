//! The lease of a version of a projection: the right of one runner to commit.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use tokio::sync::Mutex;

use super::versions::{ProjectionVersion, begin, milliseconds};
use crate::follow::Checkpoint;
use crate::store::Store;
use crate::stream::Position;

/// A lease that this runner acquired. Another runner can have it by now: each write is conditioned
/// on its epoch.
#[derive(Debug)]
pub(super) struct ProjectionLease {
    store: Store,
    version: ProjectionVersion,
    epoch: i64,
    duration: Duration,
    /// The stored progress, as the database has it.
    stored: std::sync::Mutex<Option<Value>>,
    /// No transaction is open on it.
    connection: Mutex<PgConnection>,
}

/// Another runner has the lease, or the database has other progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaseLost;

/// The result of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewed {
    /// Events are to be applied now.
    Due,
    /// The event at which the projection stopped is to be tried later.
    Later,
}

impl ProjectionLease {
    /// Acquires the lease, with the checkpoint behind the applied events; waits while another
    /// runner has it.
    pub(super) async fn acquire(
        store: &Store,
        version: &ProjectionVersion,
        owner: &str,
        duration: Duration,
    ) -> Result<(Self, Option<Checkpoint>), sqlx::Error> {
        let mut connection = store.within_deadline(store.pool().acquire()).await?.detach();
        let row = loop {
            let acquired = async {
                // A transaction of its own: the pool can return a connection inside another one.
                let mut transaction = begin(store, &mut connection).await?;
                let acquire = sqlx::query(store.statements().projection_acquire.clone())
                    .bind(version.name)
                    .bind(version.number)
                    .bind(owner)
                    .bind(milliseconds(duration));
                let acquired = acquire.fetch_optional(&mut *transaction).await?;
                transaction.commit().await?;
                Ok(acquired)
            };
            if let Some(row) = store.within_deadline(acquired).await? {
                break row;
            }
            tokio::time::sleep(duration / 10).await;
        };
        let stored: Option<Json<Value>> = row.try_get("checkpoint")?;
        let stored = stored.map(|Json(stored)| stored);
        let checkpoint = stored.clone().map(serde_json::from_value).transpose();
        let checkpoint = checkpoint.map_err(|error| sqlx::Error::Decode(error.into()))?;
        let (store, version, epoch) = (store.clone(), version.clone(), row.try_get("epoch")?);
        let (stored, connection) = (std::sync::Mutex::new(stored), Mutex::new(connection));
        Ok((Self { store, version, epoch, duration, stored, connection }, checkpoint))
    }

    pub(super) const fn epoch(&self) -> i64 {
        self.epoch
    }

    pub(super) const fn duration(&self) -> Duration {
        self.duration
    }

    /// The pause between two renewals.
    pub(super) fn renewal_pause(&self) -> Duration {
        self.duration / 3
    }

    /// Renews the lease.
    pub(super) async fn renew(&self) -> Result<Result<Renewed, LeaseLost>, sqlx::Error> {
        let mut connection = self.connection.lock().await;
        let renewed = sqlx::query_scalar(self.store.statements().projection_renew.clone())
            .bind(self.version.name)
            .bind(self.version.number)
            .bind(self.epoch)
            .bind(milliseconds(self.duration))
            .fetch_optional(&mut *connection);
        let renewed = tokio::time::timeout(self.duration, renewed).await;
        // A server that does not answer: another runner has the lease by now.
        let renewed = renewed.map_err(|_elapsed| sqlx::Error::PoolTimedOut)??;
        Ok(match renewed {
            None => Err(LeaseLost),
            Some(true) => Ok(Renewed::Due),
            Some(false) => Ok(Renewed::Later),
        })
    }

    /// Records the event, by its position, at which the projection stops.
    pub(super) async fn record_failure(
        &self,
        position: Position,
        error: &str,
    ) -> Result<(), sqlx::Error> {
        let mut connection = self.connection.lock().await;
        let recorded = sqlx::query(self.store.statements().projection_fail.clone())
            .bind(self.version.name)
            .bind(self.version.number)
            .bind(self.epoch)
            .bind(position)
            .bind(error)
            .execute(&mut *connection);
        self.store.within_deadline(recorded).await.map(drop)
    }

    /// Stores the progress in the transaction of the events that led to it. Once that is committed,
    /// it is [`committed`](Self::committed).
    pub(super) async fn store_progress(
        &self,
        transaction: &mut PgConnection,
        reached: &Checkpoint,
        events: usize,
    ) -> Result<Result<(), LeaseLost>, sqlx::Error> {
        let before = self.stored().clone().map(Json);
        let stored = sqlx::query(self.store.statements().projection_progress.clone())
            .bind(self.version.name)
            .bind(self.version.number)
            .bind(self.epoch)
            .bind(Json(reached))
            .bind(reached.position())
            .bind(i64::try_from(events).unwrap_or(i64::MAX))
            .bind(before)
            .execute(transaction)
            .await?;
        Ok(if stored.rows_affected() == 1 { Ok(()) } else { Err(LeaseLost) })
    }

    /// The transaction with this progress is committed.
    pub(super) fn committed(&self, reached: &Checkpoint) {
        *self.stored() = serde_json::to_value(reached).ok();
    }

    /// No operation under this lock can leave a partial state.
    fn stored(&self) -> MutexGuard<'_, Option<Value>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a lease, so that another runner need not wait until it expires.
pub(super) async fn release(
    store: &Store,
    version: &ProjectionVersion,
    epoch: i64,
) -> Result<(), sqlx::Error> {
    let released = async {
        let mut own = store.pool().acquire().await?.detach();
        let mut transaction = begin(store, &mut own).await?;
        let release = sqlx::query(store.statements().projection_release.clone());
        let release = release.bind(version.name).bind(version.number).bind(epoch);
        release.execute(&mut *transaction).await?;
        transaction.commit().await
    };
    store.within_deadline(released).await
}
