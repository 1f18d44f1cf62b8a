//! One connection to PostgreSQL. It is replaced whenever its transaction state is unknown.

use std::error::Error;
use std::io;
use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::error::TransactionLimit;
use crate::outage::Outage;

/// A connection that was detached from the pool: when a future is dropped, the pool could reuse a
/// pooled one within a transaction.
#[derive(Debug)]
pub(crate) struct KeptConnection {
    pool: PgPool,
    connection: Option<PgConnection>,
    outage: Outage,
    deadline: Duration,
    shutdown: CancellationToken,
}

/// Why no connection or answer can be had.
#[derive(Debug)]
pub(crate) enum ConnectionFailure {
    /// Shutdown was requested while the database was unavailable.
    Shutdown,
    /// PostgreSQL reported a permanent error.
    Permanent(sqlx::Error),
}

impl KeptConnection {
    pub(crate) fn new(pool: &PgPool, deadline: Duration, shutdown: &CancellationToken) -> Self {
        Self {
            pool: pool.clone(),
            connection: None,
            outage: Outage::of("PostgreSQL"),
            deadline,
            shutdown: shutdown.clone(),
        }
    }

    /// Takes the connection, or makes a new one; waits while the database is unavailable.
    pub(crate) async fn take(&mut self) -> Result<PgConnection, ConnectionFailure> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        loop {
            match self.pool.acquire().await {
                Ok(pooled) => return Ok(pooled.detach()),
                Err(error) => self.wait_after(error).await?,
            }
        }
    }

    /// Keeps a connection that has no open transaction.
    pub(crate) fn put_back(&mut self, connection: PgConnection) {
        self.outage.record_success();
        self.connection = Some(connection);
    }

    /// Limits the time of a query or transaction.
    pub(crate) async fn before_deadline<T, E: From<sqlx::Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.deadline, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(sqlx::Error::from(DeadlineExceeded(self.deadline)).into()),
        }
    }

    /// Completes a query outside a transaction: returns its answer, or `None` after the delay
    /// before the next attempt.
    pub(crate) async fn finish_query<T>(
        &mut self,
        connection: PgConnection,
        answer: Result<T, sqlx::Error>,
    ) -> Result<Option<T>, ConnectionFailure> {
        match answer {
            Ok(answer) => {
                self.put_back(connection);
                Ok(Some(answer))
            }
            Err(error) => {
                drop(connection);
                self.wait_after(error).await?;
                Ok(None)
            }
        }
    }

    /// Waits before the next attempt, unless the error is permanent.
    pub(crate) async fn wait_after(&mut self, error: sqlx::Error) -> Result<(), ConnectionFailure> {
        let error = transient(error)?;
        let delay = self.delay_after(&error);
        self.wait(delay).await
    }

    /// Records an outage, and returns the delay before the next attempt.
    pub(crate) fn delay_after(&mut self, cause: &(dyn Error + 'static)) -> Duration {
        self.outage.record_failure(cause)
    }

    pub(crate) async fn wait(&self, delay: Duration) -> Result<(), ConnectionFailure> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(ConnectionFailure::Shutdown),
            () = tokio::time::sleep(delay) => Ok(()),
        }
    }
}

/// A query, a transaction, or a call of another database took longer than the deadline of the
/// projection.
#[derive(Debug, thiserror::Error)]
#[error("it took longer than {0:?}")]
pub(crate) struct DeadlineExceeded(pub(crate) Duration);

impl From<DeadlineExceeded> for sqlx::Error {
    fn from(exceeded: DeadlineExceeded) -> Self {
        Self::Io(io::Error::new(io::ErrorKind::TimedOut, exceeded))
    }
}

/// The limit that a transaction exceeded while the handler worked, by its error; none if the
/// database may be busy or unavailable instead.
pub(crate) fn exceeded_limit(error: &(dyn Error + 'static)) -> Option<TransactionLimit> {
    database_errors(error).find_map(limit_of)
}

/// The errors of the database among an error and its causes.
fn database_errors<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a sqlx::Error> {
    let causes =
        std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source());
    causes.filter_map(|error| error.downcast_ref())
}

fn limit_of(error: &sqlx::Error) -> Option<TransactionLimit> {
    match error {
        sqlx::Error::Io(io) => {
            let inner = io.get_ref().and_then(|inner| inner.downcast_ref::<DeadlineExceeded>());
            let deadline =
                inner.map(|DeadlineExceeded(time)| TransactionLimit::BatchDeadline(*time));
            Some(deadline.unwrap_or(TransactionLimit::Connection))
        }
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Some(TransactionLimit::Connection),
        sqlx::Error::Database(refused) => match refused.code()?.as_ref() {
            "57014" => Some(TransactionLimit::StatementTimeout),
            "25P03" => Some(TransactionLimit::IdleInTransaction),
            "25P04" => Some(TransactionLimit::TransactionTimeout),
            code if code.starts_with("57") || code.starts_with("08") => {
                Some(TransactionLimit::Connection)
            }
            _ => None,
        },
        // The enum is open.
        _ => None,
    }
}

/// Whether an error or one of its causes is transient: the database is unavailable, or the same
/// transaction may succeed on retry.
pub(crate) fn is_transient_cause(error: &(dyn Error + 'static)) -> bool {
    database_errors(error).any(is_transient)
}

/// The error, unless it is permanent.
pub(crate) fn transient(error: sqlx::Error) -> Result<sqlx::Error, ConnectionFailure> {
    if is_transient(&error) { Ok(error) } else { Err(ConnectionFailure::Permanent(error)) }
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        // A server that stops within an answer shows as a protocol error.
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(refused) => {
            refused.code().is_some_and(|code| is_transient_state(&code))
        }
        // The enum is open: a new kind of error ends the run and is reported.
        _ => false,
    }
}

/// Transient classes of SQLSTATE: connection, authorization, rollback (deadlock, serialization),
/// resources, operator intervention (shutdown, startup), 25006: the server is a standby, 25P03 and
/// 25P04: the
/// transaction was idle or open for too long.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_transient_state(code: &str) -> bool {
    ["08", "28", "40", "53", "57"].iter().any(|class| code.starts_with(class))
        || ["25006", "25P03", "25P04"].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("count flights")]
    struct Wrapped(#[source] sqlx::Error);

    #[test]
    fn transient_cause_is_found_within_the_error_of_a_handler() {
        let broken = || sqlx::Error::Io(std::io::Error::other("connection reset"));
        assert!(is_transient_cause(&broken()));
        assert!(is_transient_cause(&Wrapped(broken())));
        assert!(!is_transient_cause(&Wrapped(sqlx::Error::RowNotFound)));
    }

    #[test]
    fn transient_states_are_distinguished_from_permanent_ones() {
        for transient in ["08006", "28P01", "40001", "40P01", "53100", "53300", "57P01", "25006"] {
            assert!(is_transient_state(transient), "{transient}");
        }
        for permanent in ["42P01", "23505", "25P02", "22003"] {
            assert!(!is_transient_state(permanent), "{permanent}");
        }
    }
}
