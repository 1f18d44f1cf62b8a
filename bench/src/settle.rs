//! A database in the same state before every measurement.

use sqlx::{Connection, PgConnection};

const STATEMENTS: [&str; 2] =
    [include_str!("../sql/vacuum.sql"), include_str!("../sql/checkpoint.sql")];

/// Does now what the server would otherwise do during the measurement, or not, as it happens.
pub(crate) async fn settle(database_url: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(database_url).await?;
    for statement in STATEMENTS {
        sqlx::raw_sql(statement).execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}
