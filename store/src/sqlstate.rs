//! Classes of PostgreSQL errors, by SQLSTATE.

use std::borrow::Cow;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// The SQLSTATE of an error that the server reported.
pub(crate) fn code_of(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code)
}

/// Serialization failure, deadlock, or an event id that a concurrent transaction recorded.
pub(crate) fn is_lost_race(error: &sqlx::Error) -> bool {
    match code_of(error).as_deref() {
        Some("40001" | "40P01") => true,
        Some("23505") => constraint_of(error) == Some("events_event_id"),
        Some(_) | None => false,
    }
}

/// The constraint by which an append met a position that is recorded already: the sequence of
/// positions is behind the events.
pub(crate) fn recorded_already(error: &sqlx::Error) -> Option<&str> {
    constraint_of(error).filter(|constraint| *constraint == "events_pkey")
}

fn constraint_of(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::constraint)
}

/// Whether an error can only be raised before the transaction commits.
///
/// These can also be raised after the commit: a cancelled statement (57014), because a `COMMIT`
/// inside a procedure does not disarm `statement_timeout`; a lock timeout (55P03), lack of memory
/// or disk (53) and internal errors (58, XX), because the server takes a snapshot and reads its
/// catalogs between the commit and the reply; and the end of the session (25P04, 57P, 08).
pub(crate) fn is_before_commit(code: &str) -> bool {
    // 0A: not supported. 22: data. 23: constraints, including deferred ones. 25: transaction
    // state. 28: login. 2D: commit inside a transaction block. 3D, 3F: no such database or schema.
    // 40: rolled back. 42: names and rights. 44: check option. 54: program limits. P0: raised by a
    // function.
    const CLASSES: [&str; 12] =
        ["0A", "22", "23", "25", "28", "2D", "3D", "3F", "42", "44", "54", "P0"];
    // 25P04: transaction timeout. 40: except 40003, completion unknown.
    let is_of_a_class = CLASSES.iter().any(|class| code.starts_with(class)) && code != "25P04";
    is_of_a_class || (code.starts_with("40") && code != "40003")
}

/// Whether a table, a schema, a function or a column is undefined.
pub(crate) fn is_undefined(error: &sqlx::Error) -> bool {
    code_of(error).is_some_and(|code| ["42P01", "3F000", "42883", "42703"].contains(&&*code))
}

/// Whether the session is read-only: a standby, or a read-only server, database or login.
pub(crate) fn is_read_only(error: &sqlx::Error) -> bool {
    code_of(error).as_deref() == Some("25006")
}

/// Whether the server is a standby, and the statement needs a primary.
pub(crate) fn is_recovery_in_progress(error: &sqlx::Error) -> bool {
    code_of(error).as_deref() == Some("55000")
}

/// Whether the server rejected a commit because the session was already in a transaction block.
pub(crate) fn is_inside_a_transaction(error: &sqlx::Error) -> bool {
    // 2D000: invalid transaction termination. 25P02: that transaction had failed before.
    code_of(error).is_some_and(|code| code == "2D000" || code == "25P02")
}

/// Whether the session or its connection has ended.
pub(crate) fn has_session_ended(error: &sqlx::Error) -> bool {
    let Some(reported) = error.as_database_error() else {
        // All other variants concern a reply that arrived.
        return matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed
        );
    };
    let postgres = reported.try_downcast_ref::<PgDatabaseError>();
    let severity = postgres.map(PgDatabaseError::severity);
    // A connection pooler can report 08 and 57P without marking them fatal.
    matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic))
        || code_of(error).is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
}

/// Whether a limit of time of the session ended a statement or a transaction: `statement_timeout`
/// or `transaction_timeout`. An administrator who cancels a statement is not told apart.
pub(crate) fn exceeded_time(error: &sqlx::Error) -> bool {
    code_of(error).is_some_and(|code| code == "57014" || code == "25P04")
}

/// Whether the same statement can succeed later: no connection, a lost race, a restarting server, a
/// limit of time.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match code_of(error) {
        // 25006: read-only, until a standby is promoted. 25P04: transaction timeout. 40:
        // serialization failure, deadlock. 53: resources. 55P03: lock timeout. 57014: cancelled.
        // 57P0x: shutdown.
        Some(code) => ["25006", "25P04", "40001", "40P01", "53", "55P03", "57014", "57P", "08"]
            .iter()
            .any(|class| code.starts_with(class)),
        None => matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed
        ),
    }
}
