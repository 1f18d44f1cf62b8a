//! Leases: which session publishes which shard. The database's clock decides, and epochs only grow.
//!
//! Leases keep replicas from fencing each other. They do not keep a deposed relay from publishing:
//! Kafka's fencing does, and it does so even if a lease is wrong.

use annals_relay_machine::{Lease, Leases, Readiness, Shard};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::model::shard_number::{number, shard};
use crate::report::failure::Failure;
use crate::state::session::Session;
use crate::state::tables::RelayTables;

impl RelayTables {
    /// Renews the session's lease, and reads all leases; `None` when the session does not exist any
    /// more.
    pub(crate) async fn renew_lease(
        &self,
        session: &Session,
        readiness: Readiness,
    ) -> Result<Option<Leases>, Failure> {
        let action = "renew the lease";
        let query = self
            .query(include_str!("../../sql/lease_renew.sql"))
            .bind(session.id)
            .bind(readiness == Readiness::Ready)
            .bind(self.lease_ms());
        leases(&self.rows(action, query).await?).map_err(Failure::database(action))
    }

    pub(crate) async fn acquire(
        &self,
        session: &Session,
        shards: &[Shard],
    ) -> Result<Vec<Lease>, Failure> {
        let action = "acquire shards";
        let shards: Vec<i16> = shards.iter().map(|shard| number(*shard)).collect();
        let query =
            self.query(include_str!("../../sql/shards_acquire.sql")).bind(session.id).bind(shards);
        let rows = self.rows(action, query).await?;
        rows.iter().map(lease).collect::<Result<_, _>>().map_err(Failure::database(action))
    }

    pub(crate) async fn release(&self, session: &Session, leases: &[Lease]) -> Result<(), Failure> {
        let query = self.of(include_str!("../../sql/shards_release.sql"), session, leases);
        self.rows("release shards", query).await.map(drop)
    }

    /// The transactional ids to fence before these leases are published.
    ///
    /// # Errors
    /// [`Failure::Fenced`] when one of the leases is lost; [`Failure::Outage`].
    pub(crate) async fn ids_to_fence(
        &self,
        session: &Session,
        leases: &[Lease],
    ) -> Result<Vec<String>, Failure> {
        let action = "read the transactional ids to fence";
        let query = self.of(include_str!("../../sql/ids_to_fence.sql"), session, leases);
        let rows = self.rows(action, query).await?;
        let ids = rows.first().map(|row| row.try_get("transactional_ids")).transpose();
        let ids: Option<Vec<String>> = ids.map_err(Failure::database(action))?.flatten();
        ids.ok_or(Failure::Fenced)
    }

    /// The transactional ids of the sessions that joined in this incarnation of the database.
    ///
    /// # Errors
    /// [`Failure::DatabaseChanged`] if the database has another one; [`Failure::Outage`].
    pub(crate) async fn joined_ids(&self, incarnation: &str) -> Result<Vec<String>, Failure> {
        let action = "read the sessions of relays";
        let query = self.query(include_str!("../../sql/joined_ids.sql")).bind(incarnation);
        let rows = self.rows(action, query).await?;
        let ids = rows.first().map(|row| row.try_get("transactional_ids")).transpose();
        let ids: Option<Vec<String>> = ids.map_err(Failure::database(action))?.flatten();
        ids.ok_or(Failure::DatabaseChanged)
    }

    pub(crate) async fn record_fenced(
        &self,
        session: &Session,
        leases: &[Lease],
        ids: &[String],
    ) -> Result<(), Failure> {
        let query = self.of(include_str!("../../sql/fenced_record.sql"), session, leases);
        self.rows("record fenced transactional ids", query.bind(ids.to_vec())).await.map(drop)
    }
}

fn lease(row: &PgRow) -> Result<Lease, sqlx::Error> {
    let epoch: i64 = row.try_get("epoch")?;
    Ok(Lease { shard: shard(row.try_get("shard")?), epoch: epoch.unsigned_abs() })
}

fn leases(rows: &[PgRow]) -> Result<Option<Leases>, sqlx::Error> {
    let Some(first) = rows.first() else { return Ok(None) };
    let count = |name| first.try_get::<i64, _>(name).map(|n| u16::try_from(n).unwrap_or(u16::MAX));
    let (members, rank) = (count("members")?, count("rank")?);
    let mut leases = Leases { members, rank, ..Leases::default() };
    for row in rows {
        let lease = lease(row)?;
        if row.try_get("is_mine")? {
            leases.mine.push(lease);
        }
        if row.try_get("is_free")? {
            leases.free.push(lease.shard);
        }
    }
    Ok(Some(leases))
}
