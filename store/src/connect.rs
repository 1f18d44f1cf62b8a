//! The connection of a store to its database.

use std::io::ErrorKind;
use std::time::Duration;

use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};

use crate::connections::expiry::SessionExpiry;
use crate::connections::reuse::ReusePolicy;
use crate::connections::url::connect_options;
use crate::error::Error;
use crate::options::StoreOptions;
use crate::store::{Connections, Store};

/// Idle connections are pinged before use after this time.
const IDLE_TRUSTED_MAX: Duration = Duration::from_millis(500);

impl StoreOptions {
    /// Opens a pool of connections to the database of `url`
    /// (`postgres://user:password@host/database`).
    ///
    /// # Errors
    /// [`Error::DatabaseUrl`] if the URL cannot be used; [`Error::Database`] if the server is not
    /// reached; [`Error::NotDurable`] if the server runs with `fsync = off`.
    pub async fn connect(self, url: &str) -> Result<Store, Error> {
        let options = connect_options(url, "annals").map_err(Error::DatabaseUrl)?;
        let expiry = SessionExpiry::default();
        let expiry_of_pool = expiry.clone();
        let pool = PgPoolOptions::new()
            .max_connections(self.connections_max)
            .acquire_timeout(self.deadline)
            // By default the pool pings each connection before each use, which costs each append a
            // round trip. Only connections with a long idle time are pinged; an append takes
            // another connection if its connection turns out to be closed.
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let is_expired = expiry_of_pool.is_expired(meta.age);
                Box::pin(async move { Ok(!is_expired && is_alive(connection, meta).await?) })
            })
            .connect_with(options)
            .await
            .map_err(|source| Error::Database { action: connecting(&source), source })?;
        let store = Store::new(self, Connections { pool, reuse: ReusePolicy::Reuse, expiry });
        store.check_durable().await?;
        Ok(store)
    }

    /// Uses a pool of the application. With sqlx's default `test_before_acquire`, each append costs
    /// another round trip.
    ///
    /// A session that began while its database was read-only stays read-only. The pool of
    /// [`connect`](Self::connect) closes such sessions after an append has found one. In a pool of
    /// the application, the application closes a connection whose transaction failed with SQLSTATE
    /// 25006.
    #[must_use]
    pub fn with_pool(self, pool: PgPool) -> Store {
        let (reuse, expiry) = (ReusePolicy::ReturnToPool, SessionExpiry::default());
        Store::new(self, Connections { pool, reuse, expiry })
    }
}

/// What failed, as verb and object.
fn connecting(error: &sqlx::Error) -> &'static str {
    const OVER_TLS: &str =
        "connect to the store over TLS (sslmode, sslrootcert, sslcert and sslkey of the URL)";
    match error {
        sqlx::Error::Tls(_) => OVER_TLS,
        sqlx::Error::Io(error) => match error.kind() {
            // rustls reports a refused certificate so.
            ErrorKind::InvalidData => OVER_TLS,
            // A client of TLS 1.3 may write before it reads why the server refuses its certificate.
            // OpenSSL's own errors have no kind.
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::Other => {
                "connect to the store: the server closed the connection, as it does when it refuses \
                 the certificate of the URL (sslcert); its log has the reason"
            }
            _ => "connect to the store",
        },
        _ => "connect to the store",
    }
}

async fn is_alive(
    connection: &mut PgConnection,
    meta: PoolConnectionMetadata,
) -> Result<bool, sqlx::Error> {
    if meta.idle_for > IDLE_TRUSTED_MAX {
        connection.ping().await?;
    }
    Ok(true)
}

impl Store {
    /// Connects to the database of `url` with the defaults of [`StoreOptions`].
    ///
    /// # Errors
    /// [`Error::DatabaseUrl`] if the URL cannot be used; [`Error::Database`] if the server is not
    /// reached; [`Error::NotDurable`] if the server runs with `fsync = off`.
    ///
    /// ```
    /// # use annals_store::Store;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), annals_store::Error> {
    /// # let bed = annals_testkit::Testbed::new("doc_connect").await;
    /// # let url = bed.database_url();
    /// // postgres://user:password@host/database
    /// let store = Store::connect(&url).await?;
    /// store.migrate().await?;
    /// assert_eq!(store.categories().await?, []);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(url: &str) -> Result<Self, Error> {
        StoreOptions::default().connect(url).await
    }
}
