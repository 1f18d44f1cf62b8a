//! The relay's connections to PostgreSQL.

use annals_store::{Store, StoreOptions};
use sqlx::PgConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::config::Config;

/// The store, with a pool of a few connections that are opened when they are needed.
pub(super) fn store(config: &Config) -> Result<Store, sqlx::Error> {
    let url: PgConnectOptions = config.database.url.expose().parse()?;
    // Windows are read by key. A plan that was made while the tables were small must not scan them
    // later, and compiling a query of microseconds takes longer than running it.
    let options =
        url.application_name("annals-relay").options([("enable_seqscan", "off"), ("jit", "off")]);
    let pool = PgPoolOptions::new()
        .max_connections(config.database.connections_max.get())
        .acquire_timeout(std::time::Duration::from_secs(5))
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(may_write(connection)))
        .connect_lazy_with(options);
    Ok(StoreOptions::default().schema(config.database.schema.clone()).with_pool(pool))
}

/// Whether a connection is alive, and its session may write: a session that began while the
/// database was read-only stays read-only, and is replaced. A new connection is not checked.
async fn may_write(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(include_str!("../../sql/may_write.sql")).fetch_one(connection).await
}
