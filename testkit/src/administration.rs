//! The work of an administrator: statements of any kind, and changes of recorded events.

use std::ops::Range;

use annals_store::{Store, StreamName};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::must::Must;

/// Executes statements on a connection of their own.
///
/// # Panics
/// If the server is not there, or refuses one.
pub async fn execute_at(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.must("connect");
    let statements = AssertSqlSafe(statements.to_owned());
    sqlx::raw_sql(statements).execute(&mut connection).await.must("execute statements");
    connection.close().await.must("disconnect");
}

/// Lets the rest of a transaction change recorded events.
///
/// # Panics
/// If the database refuses.
pub async fn administer(transaction: &mut PgConnection) {
    let administer = sqlx::query(include_str!("../sql/administer.sql"));
    administer.execute(transaction).await.must("administer");
}

/// Removes versions of a stream, in a transaction of its own.
///
/// # Panics
/// If the database refuses.
pub async fn remove_events(store: &Store, stream: &StreamName, versions: Range<i64>) {
    let mut change = store.pool().begin().await.must("begin");
    remove_events_in(&mut change, stream, versions).await;
    change.commit().await.must("commit");
}

/// Removes versions of a stream, in a transaction.
///
/// # Panics
/// If the database refuses.
pub async fn remove_events_in(
    transaction: &mut PgConnection,
    stream: &StreamName,
    versions: Range<i64>,
) {
    administer(&mut *transaction).await;
    let remove = sqlx::query(include_str!("../sql/remove_events.sql"))
        .bind(stream.as_str())
        .bind(versions.start)
        .bind(versions.end);
    remove.execute(transaction).await.must("remove events");
}
