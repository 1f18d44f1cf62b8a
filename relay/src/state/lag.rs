//! How many events wait to be published, and since when: bounded in time for any number of them.

use annals_store::Store;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::model::lag::{Lag, Lags};
use crate::report::failure::Failure;

/// The most positions that one reading looks at: up to half of them are counted, more are
/// estimated.
pub(crate) const POSITIONS_MAX: i64 = 20_000;

/// Reads the lag of a deployment.
pub(crate) async fn lags(store: &Store, publication: &str) -> Result<Lags, Failure> {
    let failed = Failure::database("read the lag");
    let statement = store.schema().statement(include_str!("../../sql/lag.sql"));
    let rows =
        sqlx::query(statement).bind(publication).bind(POSITIONS_MAX).fetch_all(store.pool()).await;
    rows.and_then(|rows| of_rows(&rows)).map_err(failed)
}

fn of_rows(rows: &[PgRow]) -> Result<Lags, sqlx::Error> {
    let mut lags = Lags::default();
    for row in rows {
        let oldest: i64 = row.try_get("oldest_us")?;
        let lag = Lag {
            events: row.try_get("events")?,
            is_estimate: row.try_get("is_estimate")?,
            seconds: row.try_get("age_seconds")?,
            oldest: Timestamp::from_microsecond(oldest).ok(),
        };
        match (row.try_get("shard")?, row.try_get("category")?) {
            (Some(shard), _) => drop(lags.shards.insert(shard, lag)),
            (None, Some(category)) => drop(lags.categories.insert(category, lag)),
            (None, None) => lags.all = lag,
        }
    }
    Ok(lags)
}
