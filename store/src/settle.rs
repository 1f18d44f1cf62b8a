//! An append in a transaction of its own, tried until its outcome is known or cannot be learned here.

use sqlx::PgConnection;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::append::{Answer, Append, Appended};
use crate::error::{AppendError, code_of, is_read_only};
use crate::handover::Borrowed;
use crate::outbox::OUTBOX_LEFT_MIN;
use crate::store::Store;

impl Store {
    /// Each try that loses its connection, or finds it inside a transaction that somebody else had begun and dropped, takes
    /// one out of the pool for good. At most all are like that, and then there is a new one.
    pub(crate) async fn append_settled(&self, append: &Append) -> Result<Appended, AppendError> {
        append.check(self.event_bytes_max())?;
        self.register_schemas(append).await?;
        let mut tries = Tries::default();
        for _ in 0..=self.pool().options().get_max_connections() {
            let mut borrowed = match self.handover().acquire(self.pool()).await {
                Ok(borrowed) => borrowed,
                Err(error) => return Err(tries.answer(AppendError::Failed(error))),
            };
            let failed = match self.try_append(&mut borrowed.connection, append).await {
                Ok(appended) => {
                    self.handover().leave(borrowed);
                    return Ok(appended);
                }
                Err(failed) => failed,
            };
            if is_spent(&failed) {
                close(borrowed, &failed);
            }
            let failed = self.noted(failed);
            if tries.are_over_with(&failed) {
                return Err(tries.answer(failed));
            }
            tries.remember(failed);
        }
        Err(tries.exhausted())
    }

    /// Appends on a connection of the pool, with what has to be done afterwards.
    async fn try_append(
        &self,
        connection: &mut PgConnection,
        append: &Append,
    ) -> Result<Appended, AppendError> {
        let statement = &self.statements().append;
        let row = self.call(connection, statement.clone(), append).await?;
        // It is committed, whatever it says.
        let answer = Answer::read(&row).map_err(AppendError::Unknown)?;
        let appended = self.answered(connection, append, answer).await?;
        if self.outbox_left(&appended) < OUTBOX_LEFT_MIN {
            self.extend_outbox_on(connection).await;
        }
        Ok(appended)
    }

    /// The same error. Where the database does not let this session write, the others of the pool are not used any more: they
    /// can have begun at the same time, and would stay as they are when it lets new ones write again.
    pub(crate) fn noted(&self, failed: AppendError) -> AppendError {
        if matches!(&failed, AppendError::Failed(error) if is_read_only(error)) {
            self.sessions().end(self.pool());
        }
        failed
    }
}

/// What the tries of one append have shown.
#[derive(Debug, Default)]
struct Tries {
    /// The first outcome that is not known. A later failure says nothing about it.
    unknown: Option<sqlx::Error>,
    lost_race: Option<AppendError>,
    was_read_only: bool,
}

impl Tries {
    /// Whether another connection would make no difference.
    fn are_over_with(&mut self, failed: &AppendError) -> bool {
        match failed {
            // Somebody appended an event of the same id at this moment: by now it is known.
            AppendError::LostRace(_) => false,
            AppendError::Unknown(error) | AppendError::Failed(error)
                if is_of_one_connection(error) =>
            {
                false
            }
            // The session may be older than the database's right to write.
            AppendError::Failed(error) if is_read_only(error) => {
                std::mem::replace(&mut self.was_read_only, true)
            }
            AppendError::Refused(_) | AppendError::Unknown(_) | AppendError::Failed(_) => true,
        }
    }

    fn remember(&mut self, failed: AppendError) {
        match failed {
            AppendError::Unknown(error) => {
                self.unknown.get_or_insert(error);
            }
            AppendError::LostRace(_) => self.lost_race = Some(failed),
            AppendError::Failed(_) | AppendError::Refused(_) => {}
        }
    }

    /// What the caller learns when the last try has failed: what was unknown stays so until the store answers.
    fn answer(self, last: AppendError) -> AppendError {
        match (last, self.unknown) {
            (refused @ AppendError::Refused(_), _) => refused,
            (_, Some(unknown)) => AppendError::Unknown(unknown),
            (failed, None) => failed,
        }
    }

    /// The same when every connection was tried.
    fn exhausted(mut self) -> AppendError {
        let lost_race = self.lost_race.take();
        self.answer(lost_race.unwrap_or(AppendError::Failed(sqlx::Error::PoolTimedOut)))
    }
}

/// Whether the connection must not be used again.
fn is_spent(failed: &AppendError) -> bool {
    match failed {
        AppendError::Unknown(error) | AppendError::Failed(error) => {
            is_of_one_connection(error) || is_read_only(error)
        }
        AppendError::Refused(_) | AppendError::LostRace(_) => false,
    }
}

/// Takes a connection out of the pool.
fn close(borrowed: Borrowed, failed: &AppendError) {
    drop(borrowed.connection.detach());
    if matches!(failed, AppendError::Failed(error) if is_inside_a_transaction(error)) {
        tracing::warn!("closed a connection that had come from the pool inside a transaction");
    }
}

/// Whether another connection can do what this one could not.
fn is_of_one_connection(error: &sqlx::Error) -> bool {
    has_ended(error) || is_inside_a_transaction(error)
}

/// Whether the server refused to commit because the connection was inside a transaction block already.
fn is_inside_a_transaction(error: &sqlx::Error) -> bool {
    // 2D000: invalid transaction termination. 25P02: that transaction had failed before.
    code_of(error).is_some_and(|code| code == "2D000" || code == "25P02")
}

/// Whether the session has ended, or the connection to it.
fn has_ended(error: &sqlx::Error) -> bool {
    let Some(answer) = error.as_database_error() else {
        // The others are about an answer that came.
        return matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed
        );
    };
    let postgres = answer.try_downcast_ref::<PgDatabaseError>();
    let severity = postgres.map(PgDatabaseError::severity);
    // 08 and 57P: from a pooler, too, which need not call them fatal.
    matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic))
        || code_of(error).is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
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
    fn what_was_unknown_stays_unknown_whatever_fails_later() {
        for failed in failures() {
            let mut tries = Tries::default();
            tries.remember(AppendError::Unknown(lost()));
            tries.remember(failed);
            assert!(matches!(tries.exhausted(), AppendError::Unknown(sqlx::Error::Io(_))));
        }
        for failed in failures() {
            let mut tries = Tries::default();
            tries.remember(AppendError::Unknown(lost()));
            assert!(matches!(tries.answer(failed), AppendError::Unknown(sqlx::Error::Io(_))));
        }
    }

    #[test]
    fn a_refusal_settles_what_was_unknown() {
        let mut tries = Tries::default();
        tries.remember(AppendError::Unknown(lost()));
        let refused = tries.answer(AppendError::Refused(Vec::new()));
        assert!(matches!(refused, AppendError::Refused(_)));
    }

    #[test]
    fn without_an_unknown_outcome_the_last_failure_is_the_answer() {
        let mut tries = Tries::default();
        tries.remember(AppendError::LostRace(None));
        let failed = tries.answer(AppendError::Failed(lost()));
        assert!(matches!(failed, AppendError::Failed(sqlx::Error::Io(_))));
        let mut tries = Tries::default();
        tries.remember(AppendError::LostRace(None));
        assert!(matches!(tries.exhausted(), AppendError::LostRace(None)));
    }
}
