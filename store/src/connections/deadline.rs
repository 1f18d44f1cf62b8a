//! The deadline of a statement: a server or a network that no longer answers ends in an error.

use std::future::Future;
use std::io;
use std::time::Duration;

use crate::store::Store;

impl Store {
    /// The result of a statement, or an error of the connection after the deadline. The connection
    /// is in the middle of the statement then, and must not be used again.
    pub(crate) async fn within_deadline<T>(
        &self,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let deadline = self.options().deadline;
        match tokio::time::timeout(deadline, statement).await {
            Ok(result) => result,
            Err(_elapsed) => Err(timed_out(deadline)),
        }
    }

    /// The same for several statements together, whose errors have another type.
    pub(crate) async fn all_within_deadline<T, E>(
        &self,
        statements: impl Future<Output = Result<T, E>>,
        failed: impl FnOnce(sqlx::Error) -> E,
    ) -> Result<T, E> {
        let deadline = self.options().deadline;
        match tokio::time::timeout(deadline, statements).await {
            Ok(result) => result,
            Err(_elapsed) => Err(failed(timed_out(deadline))),
        }
    }
}

/// The result of a statement, or an error of the connection after a deadline of its own.
pub(crate) async fn within<T>(
    deadline: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(deadline, statement).await {
        Ok(result) => result,
        Err(_elapsed) => Err(timed_out(deadline)),
    }
}

fn timed_out(deadline: Duration) -> sqlx::Error {
    let message = format!("no answer within {deadline:?}; StoreOptions::deadline sets it");
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message))
}
