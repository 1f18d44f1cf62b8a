//! The relay's connections to PostgreSQL, and its errors as text.

use std::error::Error;
use std::time::Duration;

use annals_store::{
    DatabaseUrlError, SchemaName, Store, StoreOptions, connect_options, refuses_session_options,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use crate::config::Config;
use crate::report::lacks_store;

/// Maximum time for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The pause after a server that was not reached.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The URL of the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("database.url")]
pub(super) struct UrlError(#[source] DatabaseUrlError);

/// Checks the URL of the database, without a connection.
pub(super) fn check_url(config: &Config) -> Result<(), UrlError> {
    options_of(config).map(drop)
}

pub(super) fn options_of(config: &Config) -> Result<PgConnectOptions, UrlError> {
    let options =
        connect_options(config.database.url.expose(), "annals-relay").map_err(UrlError)?;
    Ok(match &config.database.password {
        Some(password) => options.password(password.expose()),
        None => options,
    })
}

/// The store, with a pool of a few connections that are opened when they are needed.
pub(super) async fn store(config: &Config, options: StoreOptions) -> Result<Store, UrlError> {
    let plain = options_of(config)?;
    // Windows are read by key. A plan that was made while the tables were small must not scan them
    // later, and compiling a query of microseconds takes longer than running it.
    let planning = plain.clone().options([("enable_seqscan", "off"), ("jit", "off")]);
    let pool = PgPoolOptions::new()
        .max_connections(config.database.connections_max.get())
        .acquire_timeout(CONNECT_MAX)
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(may_write(connection)))
        .connect_lazy_with(planning.clone());
    let negotiation = Negotiation { pool: pool.clone(), planning, plain };
    if negotiation.attempt().await == Negotiated::Unreached {
        drop(tokio::spawn(negotiation.run()));
    }
    Ok(options.schema(config.database.schema.clone()).with_pool(pool))
}

/// Finds out whether the server, or a pooler before it, accepts options at the start of a session.
/// PgBouncer and RDS Proxy refuse them.
struct Negotiation {
    pool: PgPool,
    planning: PgConnectOptions,
    plain: PgConnectOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Negotiated {
    Done,
    Unreached,
}

impl Negotiation {
    async fn run(self) {
        while !self.pool.is_closed() && self.attempt().await == Negotiated::Unreached {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(&self) -> Negotiated {
        let connecting = PgConnection::connect_with(&self.planning);
        match tokio::time::timeout(CONNECT_MAX, connecting).await {
            Ok(Ok(connection)) => {
                drop(connection.close().await);
                Negotiated::Done
            }
            Ok(Err(error)) if refuses_session_options(&error) => {
                self.pool.set_connect_options(self.plain.clone());
                tracing::info!(
                    event = "session_options_refused",
                    "a connection pooler refuses the options of the relay's sessions: continuing \
                     without them; set them for the relay's login instead: alter role ... set \
                     enable_seqscan = off; alter role ... set jit = off"
                );
                Negotiated::Done
            }
            // Also a login that is refused: the relay reports it.
            Ok(Err(_)) | Err(_) => Negotiated::Unreached,
        }
    }
}

/// Whether a connection is alive, and its session may write: a session that began while the
/// database was read-only stays read-only, and is replaced. A new connection is not checked.
async fn may_write(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(include_str!("../../sql/may_write.sql")).fetch_one(connection).await
}

/// The database lacks what the relay asks for.
#[derive(Debug, thiserror::Error)]
#[error(
    "schema {schema} has no event store, or one of an earlier release: run `annals-relay migrate`, or set \
     database.schema"
)]
struct NotMigrated {
    schema: SchemaName,
    #[source]
    cause: Box<dyn Error>,
}

/// An error of a subcommand. PostgreSQL alone would say only which relation or function is missing.
pub(super) fn with_remedy(error: Box<dyn Error>, schema: SchemaName) -> Box<dyn Error> {
    if lacks_store(&*error) { Box::new(NotMigrated { schema, cause: error }) } else { error }
}

/// An error of the database: what it says, with its hint.
pub(super) fn refusal(error: sqlx::Error) -> Box<dyn Error> {
    if lacks_store(&error) {
        return error.into();
    }
    let said = error.as_database_error().map(|error| {
        let postgres = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>();
        match postgres.and_then(|error| error.hint()) {
            Some(hint) => format!("{}. {hint}", error.message()),
            None => error.message().to_owned(),
        }
    });
    said.map_or_else(|| error.into(), Into::into)
}
