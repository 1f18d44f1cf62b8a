//! Attempts of an append in its own transaction, until its outcome is known or no attempt can help.

use std::time::Instant;

use crate::append::call::{AppendReply, Traced};
use crate::append::request::Appended;
use crate::connections::reuse::ReusableConnection;
use crate::error::AppendError;
use crate::outbox::OUTBOX_POSITIONS_LEFT_MIN;
use crate::sqlstate::{has_session_ended, is_inside_a_transaction, is_read_only};
use crate::store::Store;

impl Store {
    /// Appends with further attempts on other connections. An attempt that loses its connection, or
    /// finds it inside a transaction that another user began and dropped, removes the connection
    /// from the pool. At most all connections are removed, and then the pool opens a new one.
    ///
    /// The append is validated and its schemas are registered. `unknown` is the error of an earlier
    /// attempt that left the outcome unknown. The deadline counts from `started_at`.
    pub(crate) async fn append_with_retries(
        &self,
        append: Traced<'_>,
        unknown: Option<sqlx::Error>,
        started_at: Instant,
    ) -> Result<Appended, AppendError> {
        let mut attempts = Attempts { unknown, ..Attempts::default() };
        for _ in 0..=self.pool().options().get_max_connections() {
            if started_at.elapsed() >= self.options().deadline {
                break;
            }
            let mut reusable = match self.connection_reuse().acquire(self.pool()).await {
                Ok(reusable) => reusable,
                Err(error) => return Err(attempts.result(AppendError::Failed(error))),
            };
            let failed = match self.append_once(&mut reusable, append).await {
                Ok(appended) => {
                    self.connection_reuse().offer(reusable);
                    return Ok(appended);
                }
                Err(failed) => failed,
            };
            close_if_unusable(reusable, &failed);
            let failed = self.expire_read_only_sessions(failed);
            if attempts.is_final(&failed) {
                return Err(attempts.result(failed));
            }
            attempts.add(failed);
        }
        Err(attempts.exhausted())
    }

    /// Appends on a connection of the pool, and extends the outbox if necessary.
    async fn append_once(
        &self,
        reusable: &mut ReusableConnection,
        append: Traced<'_>,
    ) -> Result<Appended, AppendError> {
        let reply = self.append_and_commit(reusable, append).await?;
        // The transaction is committed, even if the reply is unreadable.
        let reply = reply.map_err(AppendError::Unknown)?;
        let connection = &mut *reusable.connection;
        let appended = self.result_of(connection, append.append, reply).await?;
        if self.outbox_positions_left(appended.last_position()) < OUTBOX_POSITIONS_LEFT_MIN {
            self.extend_outbox_on(connection).await;
        }
        Ok(appended)
    }

    /// Appends by a plain statement if the connection is known to be outside a transaction block,
    /// and else by the procedure that commits, which costs more. The inner error is an unreadable
    /// reply.
    async fn append_and_commit(
        &self,
        reusable: &mut ReusableConnection,
        append: Traced<'_>,
    ) -> Result<Result<AppendReply, sqlx::Error>, sqlx::Error> {
        let statements = self.statements();
        let (plain, call) = match append.append.has_tags() {
            true => (&statements.append_tagged_outside_a_transaction, &statements.append_tagged),
            false => (&statements.append_outside_a_transaction, &statements.append),
        };
        if reusable.is_outside_a_transaction() {
            match self.execute_append(&mut reusable.connection, plain.clone(), append).await {
                // The session has another isolation level.
                Err(sqlx::Error::RowNotFound) => {}
                replied => return replied,
            }
        }
        self.execute_append(&mut reusable.connection, call.clone(), append).await
    }

    /// Returns the same error. If this session is read-only, all sessions of the pool are expired:
    /// they can have begun in the same read-only state of the database, and would keep it.
    pub(crate) fn expire_read_only_sessions(&self, failed: AppendError) -> AppendError {
        if matches!(&failed, AppendError::Failed(error) if is_read_only(error)) {
            self.session_expiry().expire_all(self.pool());
        }
        failed
    }
}

/// The failed attempts of one append.
#[derive(Debug, Default)]
struct Attempts {
    /// The first unknown outcome. A later failure does not settle it.
    unknown: Option<sqlx::Error>,
    lost_race: Option<AppendError>,
    was_read_only: bool,
}

impl Attempts {
    /// Whether another attempt cannot help.
    fn is_final(&mut self, failed: &AppendError) -> bool {
        match failed {
            // A concurrent append recorded the same event id: the next attempt finds it.
            AppendError::LostRace(_) => false,
            AppendError::Unknown(error) | AppendError::Failed(error)
                if is_of_one_connection(error) =>
            {
                false
            }
            // The session can be older than the end of the read-only state.
            AppendError::Failed(error) if is_read_only(error) => {
                std::mem::replace(&mut self.was_read_only, true)
            }
            AppendError::Refused(_)
            | AppendError::Unknown(_)
            | AppendError::Failed(_)
            | AppendError::Inconsistent { .. }
            | AppendError::QueueFull { .. }
            | AppendError::Closed
            | AppendError::Interrupted => true,
        }
    }

    fn add(&mut self, failed: AppendError) {
        match failed {
            AppendError::Unknown(error) => {
                self.unknown.get_or_insert(error);
            }
            AppendError::LostRace(_) => self.lost_race = Some(failed),
            AppendError::Failed(_)
            | AppendError::Refused(_)
            | AppendError::Inconsistent { .. }
            | AppendError::QueueFull { .. }
            | AppendError::Closed
            | AppendError::Interrupted => {}
        }
    }

    /// The result after the last attempt: an unknown outcome stays unknown until the store answers.
    fn result(self, last: AppendError) -> AppendError {
        match (last, self.unknown) {
            (refused @ AppendError::Refused(_), _) => refused,
            (_, Some(unknown)) => AppendError::Unknown(unknown),
            (failed, None) => failed,
        }
    }

    /// The result after attempts on all connections.
    fn exhausted(mut self) -> AppendError {
        let lost_race = self.lost_race.take();
        self.result(lost_race.unwrap_or(AppendError::Failed(sqlx::Error::PoolTimedOut)))
    }
}

/// Whether the connection must not be used again.
fn is_unusable_after(failed: &AppendError) -> bool {
    match failed {
        AppendError::Unknown(error) | AppendError::Failed(error) => {
            is_of_one_connection(error) || is_read_only(error)
        }
        AppendError::Refused(_)
        | AppendError::LostRace(_)
        | AppendError::Inconsistent { .. }
        | AppendError::QueueFull { .. }
        | AppendError::Closed
        | AppendError::Interrupted => false,
    }
}

/// Removes a connection from the pool if the error makes it unusable.
pub(crate) fn close_if_unusable(reusable: ReusableConnection, failed: &AppendError) {
    if !is_unusable_after(failed) {
        return;
    }
    drop(reusable.connection.detach());
    if matches!(failed, AppendError::Failed(error) if is_inside_a_transaction(error)) {
        tracing::warn!("closed a connection that the pool had returned inside a transaction");
    }
}

/// Whether the error concerns one connection, so that another one can succeed.
fn is_of_one_connection(error: &sqlx::Error) -> bool {
    has_session_ended(error) || is_inside_a_transaction(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> sqlx::Error {
        sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())
    }

    fn failures() -> [AppendError; 3] {
        [
            AppendError::Failed(sqlx::Error::PoolTimedOut),
            AppendError::LostRace(None),
            AppendError::Unknown(sqlx::Error::PoolTimedOut),
        ]
    }

    #[test]
    fn an_unknown_outcome_stays_unknown_after_later_failures() {
        for failed in failures() {
            let mut attempts = Attempts::default();
            attempts.add(AppendError::Unknown(lost()));
            attempts.add(failed);
            assert!(matches!(attempts.exhausted(), AppendError::Unknown(sqlx::Error::Io(_))));
        }
        for failed in failures() {
            let mut attempts = Attempts::default();
            attempts.add(AppendError::Unknown(lost()));
            assert!(matches!(attempts.result(failed), AppendError::Unknown(sqlx::Error::Io(_))));
        }
    }

    #[test]
    fn a_refusal_settles_an_unknown_outcome() {
        let mut attempts = Attempts::default();
        attempts.add(AppendError::Unknown(lost()));
        let refused = attempts.result(AppendError::Refused(Vec::new()));
        assert!(matches!(refused, AppendError::Refused(_)));
    }

    #[test]
    fn without_an_unknown_outcome_the_last_failure_is_the_result() {
        let mut attempts = Attempts::default();
        attempts.add(AppendError::LostRace(None));
        let failed = attempts.result(AppendError::Failed(lost()));
        assert!(matches!(failed, AppendError::Failed(sqlx::Error::Io(_))));
        let mut attempts = Attempts::default();
        attempts.add(AppendError::LostRace(None));
        assert!(matches!(attempts.exhausted(), AppendError::LostRace(None)));
    }
}
