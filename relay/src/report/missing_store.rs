//! Errors of a database that has no event store, or one of an earlier release.

use std::error::Error;
use std::sync::Arc;

/// Whether the error, or one of its causes, is a table, a schema, a function or a column that
/// PostgreSQL does not know.
pub(crate) fn lacks_store(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.any(|cause| of_database(cause).is_some_and(lacks_something))
}

fn lacks_something(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["42P01", "3F000", "42883", "42703"].contains(&&*code))
}

fn of_database<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a sqlx::Error> {
    // As a failure of the relay has it: an `Arc` is an error of its own.
    let shared = cause.downcast_ref::<Arc<dyn Error + Send + Sync>>();
    cause.downcast_ref().or_else(|| (**shared?).downcast_ref())
}
