//! The subcommand `status`.

use std::io::Write;

use annals_store::{Position, Store};
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::config::Config;

/// Prints the progress of the deployment, one line for each shard.
pub(super) async fn print(
    config: &Config,
    store: &Store,
) -> Result<(), Box<dyn std::error::Error>> {
    let statement = store.schema().statement(include_str!("../../sql/status.sql"));
    let publication = config.publication();
    let rows = sqlx::query(statement).bind(&publication).fetch_all(store.pool()).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "deployment {publication}")?;
    writeln!(
        out,
        "{:>5} {:>14} {:>10}  {:<20}  published by",
        "shard", "position", "waiting", "checkpoint of"
    )?;
    let mut waiting = 0;
    for row in &rows {
        waiting += row.try_get::<i64, _>("waiting")?;
        writeln!(out, "{}", line(row)?)?;
    }
    writeln!(out, "{waiting} events wait to be published")?;
    let count = store.schema().statement(include_str!("../../sql/quarantine_count.sql"));
    let count: i64 = sqlx::query_scalar(count).bind(&publication).fetch_one(store.pool()).await?;
    if count > 0 {
        writeln!(
            out,
            "{count} streams or categories are quarantined: see `annals-relay quarantine list`"
        )?;
    }
    Ok(())
}

fn line(row: &PgRow) -> Result<String, sqlx::Error> {
    let shard: i16 = row.try_get("shard")?;
    let position: Option<Position> = row.try_get("position")?;
    let waiting: i64 = row.try_get("waiting")?;
    let recorded_us: Option<i64> = row.try_get("recorded_us")?;
    let recorded = recorded_us.and_then(|us| Timestamp::from_microsecond(us).ok());
    let recorded = recorded.map_or_else(|| "never".to_owned(), |time| format!("{time:.0}"));
    let position = position.map_or_else(|| "-".to_owned(), |position| position.to_string());
    let owner: Option<String> = row.try_get("owner")?;
    let owner = owner.unwrap_or_else(|| "nobody".to_owned());
    Ok(format!("{shard:>5} {position:>14} {waiting:>10}  {recorded:<20}  {owner}"))
}
