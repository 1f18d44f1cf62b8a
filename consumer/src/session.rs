//! One connection to PostgreSQL, kept as long as its state is known, and replaced after any doubt.

use std::error::Error;
use std::io;
use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::outage::Outage;

/// A connection of one's own, taken out of the pool: a pooled one could be handed on in the middle of a
/// transaction when a future is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    pool: PgPool,
    connection: Option<PgConnection>,
    outage: Outage,
    deadline: Duration,
    shutdown: CancellationToken,
}

/// Why nothing more is to be done with the database.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The run is to end, and the database is away.
    Shutdown,
    /// Waiting does not mend it.
    Error(sqlx::Error),
}

impl Session {
    pub(crate) fn new(pool: &PgPool, deadline: Duration, shutdown: &CancellationToken) -> Self {
        Self {
            pool: pool.clone(),
            connection: None,
            outage: Outage::of("PostgreSQL"),
            deadline,
            shutdown: shutdown.clone(),
        }
    }

    /// The connection, or a new one; waits while the database is away.
    pub(crate) async fn take(&mut self) -> Result<PgConnection, Refused> {
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

    /// Keeps a connection that is known to be in no transaction.
    pub(crate) fn put_back(&mut self, connection: PgConnection) {
        self.outage.over();
        self.connection = Some(connection);
    }

    /// Ends a wait for a server that will never answer.
    pub(crate) async fn before_deadline<T, E: From<sqlx::Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.deadline, work).await {
            Ok(result) => result,
            Err(_elapsed) => {
                let text = format!("the transaction took longer than {:?}", self.deadline);
                Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text)).into())
            }
        }
    }

    /// Gives the answer to a question asked in no transaction, or waits until it is time to ask again.
    pub(crate) async fn settle<T>(
        &mut self,
        connection: PgConnection,
        answer: Result<T, sqlx::Error>,
    ) -> Result<Option<T>, Refused> {
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

    /// Waits before the next attempt if waiting can help.
    pub(crate) async fn wait_after(&mut self, error: sqlx::Error) -> Result<(), Refused> {
        if !is_outage(&error) {
            return Err(Refused::Error(error));
        }
        let delay = self.delay_after(&error);
        self.wait(delay).await
    }

    /// Notes an outage, and tells how long to wait before the next attempt.
    pub(crate) fn delay_after(&mut self, cause: &(dyn Error + 'static)) -> Duration {
        self.outage.failed(cause)
    }

    pub(crate) async fn wait(&self, delay: Duration) -> Result<(), Refused> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Refused::Shutdown),
            () = tokio::time::sleep(delay) => Ok(()),
        }
    }
}

/// Whether an error, or what caused it, says that the database is away, or that the same transaction
/// may succeed when tried again.
pub(crate) fn caused_by_outage(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<sqlx::Error>().is_some_and(is_outage) {
            return true;
        }
        next = error.source();
    }
    false
}

fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        // A server that dies in the middle of an answer shows as a broken protocol.
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(refused) => refused.code().is_some_and(|code| is_passing(&code)),
        // The enum is open; what it may gain is reported and ends the run, where a person sees it.
        _ => false,
    }
}

/// Classes of SQLSTATE that pass: connection, authorization, rollback (deadlock, serialization), resources,
/// operator intervention (shutdown, starting up, a standby).
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_passing(code: &str) -> bool {
    ["08", "28", "40", "53", "57"].iter().any(|class| code.starts_with(class)) || code == "25006"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("count flights")]
    struct Wrapped(#[source] sqlx::Error);

    #[test]
    fn outage_is_seen_through_the_errors_of_a_handler() {
        let broken = || sqlx::Error::Io(std::io::Error::other("connection reset"));
        assert!(caused_by_outage(&broken()));
        assert!(caused_by_outage(&Wrapped(broken())));
        assert!(!caused_by_outage(&Wrapped(sqlx::Error::RowNotFound)));
    }

    #[test]
    fn states_that_pass_are_told_from_mistakes() {
        for passing in ["08006", "28P01", "40001", "40P01", "53100", "53300", "57P01", "25006"] {
            assert!(is_passing(passing), "{passing}");
        }
        for mistake in ["42P01", "23505", "25P02", "22003"] {
            assert!(!is_passing(mistake), "{mistake}");
        }
    }
}
