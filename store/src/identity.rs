//! The identity of a store, and its adoption by another database cluster.

use sqlx::postgres::PgRow;
use sqlx::{Connection, Row};
use uuid::Uuid;

use crate::error::Error;
use crate::store::Store;
use crate::stream::Position;

/// The identity of the store in a database, and its history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The store. An independent copy has another id.
    pub store_id: Uuid,
    /// 1, plus the number of times that another database cluster adopted the store.
    pub history: u32,
    /// The identifier of the cluster that the store belongs to.
    pub system_identifier: String,
    /// The settled position: events up to it count as visible, with any transaction id;
    /// [`Position::ORIGIN`] before an adoption.
    pub settled: Position,
}

/// Whether the original store continues, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Adoption {
    /// It does not: the store was restored, moved or upgraded, and its relays and followers
    /// continue here.
    Moved,
    /// It does: this copy becomes an independent store with a new id. The state of the original's
    /// relays is deleted from the copy.
    Copy,
}

impl Store {
    /// Reads the identity of the store.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn identity(&self) -> Result<Identity, Error> {
        let row = sqlx::query(self.statements().identity.clone()).fetch_one(self.pool());
        let row = self.within_deadline(row).await;
        row.and_then(|row| identity(&row)).map_err(Error::database("read the store's identity"))
    }

    /// Adopts the store into the current database cluster, after a dump and restore, a logical copy
    /// or an upgrade. Before the adoption, appends and followers are refused, because transaction
    /// ids have no meaning in another cluster. After it, all present events count as visible, and
    /// relays and followers continue from their checkpoints if all events before these are present.
    ///
    /// Requires the role `annals_admin`. `annals.adoptions` records the reason, the role and the
    /// time.
    ///
    /// # Errors
    /// [`Error::Database`], also if the store already belongs to this cluster and does not become a
    /// copy.
    pub async fn adopt(&self, reason: &str, adoption: Adoption) -> Result<Identity, Error> {
        let action = "adopt the store";
        let adopted = async {
            // Outside the pool: a dropped future leaves no transaction in the pool.
            let mut own = self.pool().acquire().await?.detach();
            let adopt = sqlx::query(self.statements().adopt.clone()).bind(reason);
            let adopted = adopt.bind(adoption == Adoption::Copy).fetch_one(&mut own).await?;
            let adopted = identity(&adopted)?;
            drop(own.close().await);
            Ok(adopted)
        };
        let adopted = self.within_deadline(adopted).await.map_err(Error::database(action))?;
        self.forget_outbox_upper();
        Ok(adopted)
    }
}

fn identity(row: &PgRow) -> Result<Identity, sqlx::Error> {
    let history: i32 = row.try_get("history")?;
    Ok(Identity {
        store_id: row.try_get("store_id")?,
        history: history.unsigned_abs(),
        system_identifier: row.try_get("system_identifier")?,
        settled: row.try_get("settled")?,
    })
}
