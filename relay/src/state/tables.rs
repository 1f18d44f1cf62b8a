//! The tables of the relay in PostgreSQL, for one instance of a deployment.

use std::sync::Arc;
use std::time::Duration;

use annals_relay_machine::Lease;
use annals_store::Store;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgPool, Postgres, Row, SqlStr};
use uuid::Uuid;

use crate::config::{Config, host_name};
use crate::model::shard_number::number;
use crate::report::failure::Failure;
use crate::state::process::Process;
use crate::state::session::{Session, WriteNumber};

/// Reads and writes sessions, leases, checkpoints and the quarantine of one deployment.
#[derive(Debug, Clone)]
pub(crate) struct RelayTables {
    store: Store,
    publication: String,
    pub(super) generation: i32,
    pub(super) instance: String,
    pub(super) process: Arc<Process>,
    pub(super) lease: Duration,
}

impl RelayTables {
    pub(crate) fn new(config: &Config, store: &Store) -> Self {
        let relay = &config.relay;
        Self {
            store: store.clone(),
            publication: config.publication(),
            generation: i32::try_from(config.generation).unwrap_or(i32::MAX),
            instance: relay.instance.clone(),
            process: Arc::new(Process::this(&host_name())),
            lease: relay.lease,
        }
    }

    /// A statement with the deployment as its first argument.
    pub(super) fn query(&self, statement: &'static str) -> Query<'_, Postgres, PgArguments> {
        let statement: SqlStr = self.store.schema().statement(statement);
        sqlx::query(statement).bind(&self.publication)
    }

    /// The same, followed by the session, the shards and the epochs of its leases.
    pub(super) fn of(
        &self,
        statement: &'static str,
        session: &Session,
        leases: &[Lease],
    ) -> Query<'_, Postgres, PgArguments> {
        self.of_session(statement, session.id, leases)
    }

    /// The same, followed by the number of the write.
    pub(super) fn write(
        &self,
        statement: &'static str,
        write: WriteNumber,
        leases: &[Lease],
    ) -> Query<'_, Postgres, PgArguments> {
        self.of_session(statement, write.session, leases).bind(write.number)
    }

    fn of_session(
        &self,
        statement: &'static str,
        session: Uuid,
        leases: &[Lease],
    ) -> Query<'_, Postgres, PgArguments> {
        let shards: Vec<i16> = leases.iter().map(|lease| number(lease.shard)).collect();
        let epoch = |lease: &Lease| i64::try_from(lease.epoch).unwrap_or(i64::MAX);
        let epochs: Vec<i64> = leases.iter().map(epoch).collect();
        self.query(statement).bind(session).bind(shards).bind(epochs)
    }

    /// The rows of a statement. Its deadline is the duration of a lease: a later answer is of no
    /// use.
    pub(super) async fn rows(
        &self,
        action: &'static str,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, Failure> {
        let pool: &PgPool = self.store.pool();
        match tokio::time::timeout(self.lease, query.fetch_all(pool)).await {
            Ok(rows) => rows.map_err(Failure::database(action)),
            Err(elapsed) => Err(Failure::late(action, elapsed)),
        }
    }

    pub(super) fn lease_ms(&self) -> i64 {
        i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Whether a write was admitted.
pub(super) fn admitted(rows: &[PgRow]) -> Result<bool, sqlx::Error> {
    rows.first().map_or(Ok(false), |row| row.try_get("is_written"))
}
