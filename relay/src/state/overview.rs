//! A deployment as its tables in PostgreSQL describe it: for operators.

use annals_store::{Position, Store};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};

use crate::report::failure::Failure;

/// The most open transactions that are listed.
const TRANSACTIONS_MAX: i64 = 5;

/// A deployment and the outbox.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct DeploymentState {
    /// None: no relay of the deployment has run.
    pub(crate) delivery: Option<String>,
    pub(crate) generation: Option<i32>,
    #[serde(skip)]
    pub(crate) shards: i16,
    /// Transactional ids of earlier owners that are not fenced yet.
    pub(crate) unfenced_transactional_ids: i64,
    pub(crate) outbox_partitions: i64,
    /// Partitions that the checkpoints of all deployments cover.
    pub(crate) droppable_partitions: i64,
}

/// A deployment that has checkpoints: partitions of the outbox above them are kept.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OutboxHolder {
    pub(crate) deployment: String,
    /// Everything up to it is published; none if a shard has no checkpoint.
    pub(crate) position: Option<Position>,
    /// Full partitions of the outbox that it keeps.
    pub(crate) kept_partitions: i64,
    pub(crate) checkpoint_age_seconds: Option<f64>,
    /// Its relays that run.
    pub(crate) relays: i64,
}

impl std::fmt::Display for OutboxHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { deployment, position, kept_partitions, checkpoint_age_seconds, relays } = self;
        let position =
            position.map_or_else(|| "nothing of a shard".to_owned(), |at| format!("up to {at}"));
        let age = checkpoint_age_seconds.unwrap_or_default();
        write!(
            f,
            "{deployment} keeps {kept_partitions} full partitions of the outbox: published {position}, {relays} relays, last \
             checkpoint {age:.0} s ago"
        )
    }
}

/// A shard.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ShardState {
    pub(crate) shard: i16,
    /// None: no relay owns it.
    pub(crate) owner: Option<String>,
    pub(crate) epoch: i64,
    pub(crate) unfenced_transactional_ids: i64,
    /// The position of the copied checkpoint; none before the first one.
    pub(crate) position: Option<Position>,
    pub(crate) checkpoint_at: Option<Timestamp>,
}

/// A relay that runs, or has reported lately.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RelayState {
    pub(crate) instance: String,
    /// None: it has no session.
    pub(crate) session_since: Option<Timestamp>,
    /// Its last report; none before the first one.
    pub(crate) report: Option<serde_json::Value>,
    pub(crate) report_age_seconds: Option<f64>,
}

/// A transaction that can still write events.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OpenTransaction {
    /// None: it is prepared.
    pub(crate) pid: Option<i32>,
    pub(crate) login: Option<String>,
    pub(crate) application: Option<String>,
    pub(crate) client: Option<String>,
    /// None without the role `pg_read_all_stats`, like the three below.
    pub(crate) state: Option<String>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) seconds: Option<f64>,
    pub(crate) query: Option<String>,
}

/// Quarantined streams or categories of one cause.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Quarantined {
    pub(crate) kind: String,
    pub(crate) cause: String,
    pub(crate) entries: i64,
    /// The age of the oldest entry.
    pub(crate) seconds: f64,
}

/// Reads the deployment.
pub(crate) async fn deployment(
    store: &Store,
    publication: &str,
) -> Result<DeploymentState, Failure> {
    let statement = store.schema().statement(include_str!("../../sql/status_deployment.sql"));
    let rows = read(store, sqlx::query(statement).bind(publication), |row| {
        Ok(DeploymentState {
            delivery: row.try_get("delivery")?,
            generation: row.try_get("generation")?,
            shards: row.try_get("shards")?,
            unfenced_transactional_ids: row.try_get("unfenced")?,
            outbox_partitions: row.try_get("partitions")?,
            droppable_partitions: row.try_get("droppable")?,
        })
    });
    Ok(rows.await?.into_iter().next().unwrap_or_default())
}

/// Reads its shards.
pub(crate) async fn shards(store: &Store, publication: &str) -> Result<Vec<ShardState>, Failure> {
    let statement = store.schema().statement(include_str!("../../sql/status_shards.sql"));
    read(store, sqlx::query(statement).bind(publication), |row| {
        Ok(ShardState {
            shard: row.try_get("shard")?,
            owner: row.try_get("owner")?,
            epoch: row.try_get("epoch")?,
            unfenced_transactional_ids: row.try_get("unfenced")?,
            position: row.try_get("position")?,
            checkpoint_at: time(row, "checkpoint_us")?,
        })
    })
    .await
}

/// Reads its relays.
pub(crate) async fn relays(store: &Store, publication: &str) -> Result<Vec<RelayState>, Failure> {
    let statement = store.schema().statement(include_str!("../../sql/status_relays.sql"));
    read(store, sqlx::query(statement).bind(publication), |row| {
        let report: Option<String> = row.try_get("report")?;
        Ok(RelayState {
            instance: row.try_get("instance")?,
            session_since: time(row, "joined_us")?,
            report: report.and_then(|report| serde_json::from_str(&report).ok()),
            report_age_seconds: row.try_get("report_age_seconds")?,
        })
    })
    .await
}

/// Reads which deployments keep partitions of the outbox, the one that keeps most first.
pub(crate) async fn outbox_holders(store: &Store) -> Result<Vec<OutboxHolder>, Failure> {
    let statement = store.schema().statement(include_str!("../../sql/status_outbox_holders.sql"));
    read(store, sqlx::query(statement), |row| {
        Ok(OutboxHolder {
            deployment: row.try_get("deployment")?,
            position: row.try_get("position")?,
            kept_partitions: row.try_get("kept")?,
            checkpoint_age_seconds: row.try_get("seconds")?,
            relays: row.try_get("running")?,
        })
    })
    .await
}

/// Reads the transactions that have been open longest.
pub(crate) async fn open_transactions(store: &Store) -> Result<Vec<OpenTransaction>, Failure> {
    let statement = store.schema().statement(include_str!("../../sql/open_transactions.sql"));
    read(store, sqlx::query(statement).bind(TRANSACTIONS_MAX), |row| {
        Ok(OpenTransaction {
            pid: row.try_get("pid")?,
            login: row.try_get("login")?,
            application: row.try_get("application")?,
            client: row.try_get("client")?,
            state: row.try_get("state")?,
            since: time(row, "since_us")?,
            seconds: row.try_get("age_seconds")?,
            query: row.try_get("query")?,
        })
    })
    .await
}

/// Counts its quarantined streams and categories.
pub(crate) async fn quarantined(
    store: &Store,
    publication: &str,
) -> Result<Vec<Quarantined>, Failure> {
    let statement = store.schema().statement(include_str!("../../sql/status_quarantine.sql"));
    read(store, sqlx::query(statement).bind(publication), |row| {
        Ok(Quarantined {
            kind: row.try_get("kind")?,
            cause: row.try_get("cause")?,
            entries: row.try_get("entries")?,
            seconds: row.try_get("age_seconds")?,
        })
    })
    .await
}

/// Reports the phase and the wait of a relay.
pub(crate) async fn report(
    store: &Store,
    publication: &str,
    instance: &str,
    readiness: &impl Serialize,
) -> Result<(), Failure> {
    let statement = store.schema().statement(include_str!("../../sql/report.sql"));
    let query = sqlx::query(statement).bind(publication).bind(instance);
    let query = query.bind(sqlx::types::Json(serde_json::json!(readiness)));
    query.execute(store.pool()).await.map(drop).map_err(Failure::database("report to operators"))
}

async fn read<T>(
    store: &Store,
    query: Query<'_, Postgres, PgArguments>,
    of_row: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, Failure> {
    let rows = query.fetch_all(store.pool()).await;
    rows.and_then(|rows| rows.iter().map(of_row).collect())
        .map_err(Failure::database("read the state of the deployment"))
}

fn time(row: &PgRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    let us: Option<i64> = row.try_get(column)?;
    Ok(us.and_then(|us| Timestamp::from_microsecond(us).ok()))
}
