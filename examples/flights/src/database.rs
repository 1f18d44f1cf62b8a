//! A database for each run, and the removal of those that earlier runs left.

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

use crate::environment::Environment;
use crate::run::Run;

/// Databases of earlier runs that are kept.
const KEPT: usize = 1;
/// The name that the statements are written with.
const WRITTEN: &str = "annals_demo_run";

/// Creates the database of this run and drops those of earlier runs except the last. Returns the
/// number of dropped ones.
pub(crate) async fn create(environment: &Environment, run: &Run) -> Result<usize> {
    let options: sqlx::postgres::PgConnectOptions =
        environment.database_url.parse().context("read ANNALS_DATABASE_URL")?;
    let mut connection = options.connect().await.context(
        "connect to PostgreSQL at ANNALS_DATABASE_URL: does it run? `ops/dev/dev status` says so for the components of make up",
    )?;
    let dropped =
        drop_unused(&mut connection).await.context("drop the databases of earlier runs")?;
    let create = statement(include_str!("../sql/database_create.sql"), &run.database);
    sqlx::raw_sql(create).execute(&mut connection).await.with_context(|| {
        format!(
            "create database {}: the user of ANNALS_DATABASE_URL must be allowed to",
            run.database
        )
    })?;
    connection.close().await?;
    Ok(dropped)
}

async fn drop_unused(connection: &mut PgConnection) -> Result<usize> {
    let rows = sqlx::query(include_str!("../sql/databases_unused.sql"))
        .fetch_all(&mut *connection)
        .await?;
    let mut names = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    names.truncate(names.len().saturating_sub(KEPT));
    let mut dropped = 0;
    for name in names {
        let drop = statement(include_str!("../sql/database_drop.sql"), &name);
        match sqlx::raw_sql(drop).execute(&mut *connection).await {
            Ok(_) => dropped += 1,
            // Another demo is beginning, or was faster: it is theirs.
            Err(error) => tracing::info!(database = name, %error, "left a database as it is"),
        }
    }
    Ok(dropped)
}

/// Both the name of this run and those that were found have letters, digits and `_` only.
fn statement(text: &str, database: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(text.replace(WRITTEN, database))
}
