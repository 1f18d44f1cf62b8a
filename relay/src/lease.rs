//! The lease: which relay publishes. The database's clock decides, and the epoch only grows.
//!
//! It spares replicas from fencing each other; it is not what keeps a deposed relay from publishing.
//! That is Kafka's fencing, and it holds even when the lease is wrong.

use std::time::Duration;

use annals_store::SchemaName;
use sqlx::{PgPool, Row, SqlStr};
use uuid::Uuid;

use crate::failure::Failure;

/// Who holds the lease, and for how long at least.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) instance: String,
    pub(crate) remaining: Duration,
}

/// What came of trying to take the lease.
#[derive(Debug)]
pub(crate) enum Taken {
    Ours(Lease),
    Others(Holder),
}

/// The lease of one deployment.
#[derive(Debug, Clone)]
pub(crate) struct Leases {
    pool: PgPool,
    schema: SchemaName,
    deployment: String,
    instance: String,
    duration_ms: i64,
}

/// The lease, held by this session. Kept alive by [`renew`](Self::renew).
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    leases: Leases,
    session: Uuid,
    pub(crate) epoch: i64,
}

impl Leases {
    pub(crate) fn new(pool: &PgPool, schema: &SchemaName, config: &crate::config::Config) -> Self {
        Self {
            pool: pool.clone(),
            schema: schema.clone(),
            deployment: config.relay.deployment.clone(),
            instance: config.relay.instance.clone(),
            duration_ms: i64::try_from(config.relay.lease.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Takes the lease for a new session, or says who holds it. The first session of a process may
    /// take it from an earlier process of the same instance at once.
    pub(crate) async fn take(&self, first_of_process: bool) -> Result<Taken, Failure> {
        let session = Uuid::now_v7();
        let row = sqlx::query(self.statement(include_str!("../sql/lease_take.sql")))
            .bind(&self.deployment)
            .bind(&self.instance)
            .bind(session)
            .bind(self.duration_ms)
            .bind(first_of_process)
            .fetch_optional(&self.pool)
            .await
            .map_err(Failure::database("take the lease"))?;
        match row {
            Some(row) => {
                let epoch = row.try_get("epoch").map_err(Failure::database("take the lease"))?;
                Ok(Taken::Ours(Lease { leases: self.clone(), session, epoch }))
            }
            None => Ok(Taken::Others(self.holder().await?)),
        }
    }

    async fn holder(&self) -> Result<Holder, Failure> {
        let action = "read the lease";
        let row = sqlx::query(self.statement(include_str!("../sql/lease_holder.sql")))
            .bind(&self.deployment)
            .fetch_one(&self.pool)
            .await
            .map_err(Failure::database(action))?;
        let remaining_ms: i64 = row.try_get("remaining_ms").map_err(Failure::database(action))?;
        Ok(Holder {
            instance: row.try_get("instance").map_err(Failure::database(action))?,
            remaining: Duration::from_millis(remaining_ms.unsigned_abs()),
        })
    }

    fn statement(&self, text: &'static str) -> SqlStr {
        self.schema.statement(text)
    }
}

impl Lease {
    /// Prolongs the lease.
    ///
    /// # Errors
    /// [`Failure::Fenced`] when another session has taken it.
    pub(crate) async fn renew(&self) -> Result<(), Failure> {
        let row = sqlx::query(self.leases.statement(include_str!("../sql/lease_renew.sql")))
            .bind(&self.leases.deployment)
            .bind(self.session)
            .bind(self.epoch)
            .bind(self.leases.duration_ms)
            .fetch_optional(&self.leases.pool)
            .await
            .map_err(Failure::database("renew the lease"))?;
        if row.is_some() { Ok(()) } else { Err(Failure::Fenced) }
    }

    /// Gives the lease back, so that the next session need not wait for its end.
    pub(crate) async fn release(&self) -> Result<(), Failure> {
        sqlx::query(self.leases.statement(include_str!("../sql/lease_release.sql")))
            .bind(&self.leases.deployment)
            .bind(self.session)
            .bind(self.epoch)
            .execute(&self.leases.pool)
            .await
            .map_err(Failure::database("release the lease"))?;
        Ok(())
    }

    /// Keeps the lease until it is lost: three tries in its time, so that one slow answer costs nothing.
    pub(crate) async fn keep(&self) -> Failure {
        let third = Duration::from_millis(self.leases.duration_ms.unsigned_abs() / 3);
        let mut ticks = tokio::time::interval(third);
        loop {
            ticks.tick().await;
            match tokio::time::timeout(third * 2, self.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => return failure,
                Err(elapsed) => return Failure::late("renew the lease", elapsed),
            }
        }
    }
}
