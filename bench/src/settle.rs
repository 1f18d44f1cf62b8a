//! A database in the same state before every measurement.

use sqlx::{Connection, PgConnection};

const STATEMENTS: [&str; 2] =
    [include_str!("../sql/vacuum.sql"), include_str!("../sql/checkpoint.sql")];

/// Runs the server's background work now, so that it does not run by chance during the measurement.
pub(crate) async fn settle(database_url: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(database_url).await?;
    for statement in STATEMENTS {
        sqlx::raw_sql(statement).execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}
