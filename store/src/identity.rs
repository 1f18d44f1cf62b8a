//! Which store this is, and taking it over into another database cluster.

use sqlx::postgres::PgRow;
use sqlx::{Connection, Row};
use uuid::Uuid;

use crate::error::Error;
use crate::store::Store;

/// Which store a database has, and in which history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The store: a copy that goes on by itself has another one.
    pub store_id: Uuid,
    /// How often the store was adopted by another database cluster; 1 at first.
    pub history: u32,
    /// The identifier of the cluster that the store belongs to.
    pub system_identifier: String,
    /// The position up to which every event counts as visible, whatever its transaction id; 0 before an adoption.
    pub settled: u64,
}

/// Whether the store goes on here instead of where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// It does: it was restored, moved or upgraded, and its relays and followers go on.
    Moved,
    /// No: it goes on there, too, and this is a store of its own from now on, with a new id. What relays of the first one kept in
    /// the database is forgotten.
    Copy,
}

impl Store {
    /// Which store this is.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn identity(&self) -> Result<Identity, Error> {
        let row = sqlx::query(self.statements().identity.clone()).fetch_one(self.pool()).await;
        row.and_then(|row| identity(&row)).map_err(Error::database("read the store's identity"))
    }

    /// Takes the store over into the database cluster that it is in now, after a dump and restore, a logical copy or an
    /// upgrade: until then, appending and following are refused, for transaction ids mean nothing in another cluster. From
    /// then on everything that is here counts as visible; relays and followers go on where they were, if all that they
    /// passed is here.
    ///
    /// Needs the role `annals_admin`. The reason, who gave it and when are kept in `annals.adoptions`.
    ///
    /// # Errors
    /// [`Error::Database`], also where the store is in its own cluster already and is not to become a copy.
    pub async fn adopt(&self, reason: &str, adoption: Adoption) -> Result<Identity, Error> {
        let action = "adopt the store";
        // A connection of its own: nothing is left behind in the pool, however this ends.
        let pool = self.pool().acquire().await.map_err(Error::database(action))?;
        let mut own = pool.detach();
        let adopted = sqlx::query(self.statements().adopt.clone())
            .bind(reason)
            .bind(adoption == Adoption::Copy)
            .fetch_one(&mut own)
            .await
            .and_then(|row| identity(&row))
            .map_err(Error::database(action))?;
        drop(own.close().await);
        self.forget_outbox_upper();
        Ok(adopted)
    }
}

fn identity(row: &PgRow) -> Result<Identity, sqlx::Error> {
    let (history, settled): (i32, i64) = (row.try_get("history")?, row.try_get("settled")?);
    Ok(Identity {
        store_id: row.try_get("store_id")?,
        history: history.unsigned_abs(),
        system_identifier: row.try_get("system_identifier")?,
        settled: settled.unsigned_abs(),
    })
}
