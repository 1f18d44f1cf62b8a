//! The deadline of a statement: a server or a network that no longer answers ends in an error.

use std::future::Future;
use std::io;

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
            Err(_elapsed) => {
                let message =
                    format!("no answer within {deadline:?}, which StoreOptions::deadline sets");
                Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message)))
            }
        }
    }
}
