//! Partitions of the outbox: created ahead of the appends, dropped after publication.

use std::sync::atomic::Ordering;

use sqlx::PgConnection;

use crate::error::Error;
use crate::store::Store;
use crate::stream::Position;

/// Positions per partition, as in the migration.
const PARTITION_POSITIONS: i64 = 4_194_304;
/// Positions that have a partition after an extension.
const POSITIONS_AHEAD: i64 = 4 * PARTITION_POSITIONS;
/// The outbox is extended when fewer positions than this have a partition.
pub(crate) const OUTBOX_POSITIONS_LEFT_MIN: i64 = 2 * PARTITION_POSITIONS;
/// Below this, the outbox is extended even inside a caller's transaction.
const OUTBOX_POSITIONS_LEFT_URGENT: i64 = PARTITION_POSITIONS;

impl Store {
    /// Creates partitions of the outbox for the next appends, if necessary. The store calls this
    /// itself; a relay calls it, too, so that the partitions exist before an append needs them.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn extend_outbox(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let upper = sqlx::query_scalar(self.statements().outbox_extend.clone())
            .bind(POSITIONS_AHEAD)
            .fetch_one(connection);
        let upper: i64 = self
            .within_deadline(upper)
            .await
            .map_err(Error::database("create partitions of the outbox"))?;
        self.outbox_upper().store(upper, Ordering::Relaxed);
        Ok(())
    }

    /// Drops the lowest partition of the outbox if every deployment has published all of it;
    /// returns the number of dropped partitions, 0 or 1. No event is lost: windows that start
    /// before the dropped partition are read from the events.
    ///
    /// Locks are held and awaited only briefly: nothing is dropped while a backup or a long
    /// transaction uses the outbox. Call it again later, at most once a second. A deployment that
    /// was removed for good prevents every drop until it is forgotten (`annals-relay forget`; the
    /// name of a deployment with a topic prefix is `name@prefix`).
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn drop_published_outbox(&self, connection: &mut PgConnection) -> Result<i64, Error> {
        let dropped = sqlx::query_scalar(self.statements().outbox_drop_published.clone());
        let dropped = self.within_deadline(dropped.fetch_one(connection)).await;
        dropped.map_err(Error::database("drop a published partition of the outbox"))
    }

    /// The number of positions after `last` that have a partition, as far as this process knows.
    pub(crate) fn outbox_positions_left(&self, last: Option<Position>) -> i64 {
        let last = last.map_or(0, Position::get);
        self.outbox_upper().load(Ordering::Relaxed) - last
    }

    /// Extends the outbox. A failure is logged, and the next append tries again: millions of
    /// positions are left then.
    pub(crate) async fn extend_outbox_on(&self, connection: &mut PgConnection) {
        if let Err(error) = self.extend_outbox(connection).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not create partitions of the outbox, the next append tries again"
            );
        }
    }

    /// Extends the outbox beside a caller's transaction, on another connection if one is idle:
    /// inside the transaction, other extensions would wait for its end.
    pub(crate) async fn extend_outbox_beside(&self, transaction: &mut PgConnection, left: i64) {
        if left >= OUTBOX_POSITIONS_LEFT_MIN {
            return;
        }
        let is_urgent = left < OUTBOX_POSITIONS_LEFT_URGENT;
        if let Some(mut connection) = self.pool().try_acquire() {
            self.extend_outbox_on(&mut connection).await;
        } else if is_urgent && self.outbox_upper().load(Ordering::Relaxed) > 0 {
            self.extend_outbox_on(transaction).await;
        }
    }
}
