//! The handle that an application holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use annals_schemas::{Fingerprint, Schema};
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use crate::error::Error;
use crate::handover::Handover;
use crate::hints::Hints;
use crate::migrate;
use crate::sessions::Sessions;
use crate::sql::{SchemaName, Statements};
use crate::trace::{TraceContext, TraceSource};

/// Most bytes of one event's payload, unless set otherwise: what fits into a Kafka topic with its
/// default `max.message.bytes` of 1 MiB, with room for key and headers.
pub const EVENT_BYTES_MAX: usize = 1_000_000 - 32 * 1024;

/// For how long an idle connection is taken to be alive.
const IDLE_TRUSTED_MAX: Duration = Duration::from_secs(5);

/// How to connect a [`Store`].
#[derive(Debug, Clone)]
pub struct StoreOptions {
    schema: SchemaName,
    connections_max: u32,
    event_bytes_max: usize,
    hints: bool,
    allow_fsync_off: bool,
    trace: Option<TraceSource>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            schema: SchemaName::default(),
            connections_max: 10,
            event_bytes_max: EVENT_BYTES_MAX,
            hints: true,
            allow_fsync_off: false,
            trace: None,
        }
    }
}

impl StoreOptions {
    /// The database schema that the tables live in; `annals` unless set.
    #[must_use]
    pub fn schema(mut self, schema: SchemaName) -> Self {
        self.schema = schema;
        self
    }

    /// Most connections of the pool that [`connect`](Self::connect) opens; 10 unless set.
    #[must_use]
    pub const fn connections_max(mut self, connections_max: u32) -> Self {
        self.connections_max = connections_max;
        self
    }

    /// Most bytes of one event's payload; [`EVENT_BYTES_MAX`] unless set. Keep it some 32 KiB below the
    /// `max.message.bytes` of the topics.
    #[must_use]
    pub const fn event_bytes_max(mut self, event_bytes_max: usize) -> Self {
        self.event_bytes_max = event_bytes_max;
        self
    }

    /// Whether appends wake followers, and followers listen; on unless set. Costs a connection beside the pool and at most a
    /// hundred tiny transactions a second. Off, followers find events when they next look. Turn it off behind a pooler
    /// that hands out connections by transaction, where nobody can listen.
    #[must_use]
    pub const fn hints(mut self, hints: bool) -> Self {
        self.hints = hints;
        self
    }

    /// Where appends take the trace context from, for events that carry none of their own: called in each append, inside
    /// its span. With `tracing-opentelemetry`, which this crate does not depend on, so that this is not compiled here:
    ///
    /// ```ignore
    /// use opentelemetry::trace::TraceContextExt;
    /// use tracing_opentelemetry::OpenTelemetrySpanExt;
    ///
    /// options.trace_context(|| {
    ///     let context = tracing::Span::current().context();
    ///     let span = context.span().span_context().clone();
    ///     span.is_valid().then(|| TraceContext {
    ///         traceparent: format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags()),
    ///         tracestate: Some(span.trace_state().header()).filter(|state| !state.is_empty()),
    ///     })
    /// })
    /// ```
    #[must_use]
    pub fn trace_context(
        mut self,
        current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static,
    ) -> Self {
        self.trace = Some(TraceSource::new(current));
        self
    }

    /// Lets [`connect`](Self::connect) and [`Store::migrate`] accept a server that runs with `fsync = off`, which loses what it
    /// has confirmed when its machine crashes: for tests and data that can be made again.
    #[must_use]
    pub const fn allow_fsync_off(mut self) -> Self {
        self.allow_fsync_off = true;
        self
    }

    /// Opens a pool of connections to the database of `url` (`postgres://user:password@host/database`).
    ///
    /// # Errors
    /// [`Error::Database`] when the URL cannot be read or the server not be reached; [`Error::NotDurable`] when the
    /// server runs with `fsync = off`.
    pub async fn connect(self, url: &str) -> Result<Store, Error> {
        let options: PgConnectOptions =
            url.parse().map_err(Error::database("read the database URL"))?;
        let sessions = Sessions::default();
        let used = sessions.clone();
        let pool = PgPoolOptions::new()
            .max_connections(self.connections_max)
            // The pool would ask each connection whether it is alive before each use: a round trip more
            // for every append. Those that were idle for long are asked; an append takes another
            // connection by itself when one turns out to be dead.
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let is_stale = used.are_stale_at(meta.age);
                Box::pin(async move { Ok(!is_stale && is_alive(connection, meta).await?) })
            })
            .connect_with(options.application_name("annals"))
            .await
            .map_err(Error::database("connect to the store"))?;
        let store = self.over(pool, Handover::new(true), sessions);
        store.check_durable().await?;
        Ok(store)
    }

    /// Uses a pool that the application has. With sqlx's default `test_before_acquire` each append costs a
    /// round trip more.
    ///
    /// A session that began while its database was read-only stays so, and the pool of [`connect`](Self::connect) does not
    /// use it again once an append has found that. In a pool of the application's own, a connection whose transaction
    /// failed so (SQLSTATE 25006) is the application's to close.
    #[must_use]
    pub fn with_pool(self, pool: PgPool) -> Store {
        self.over(pool, Handover::new(false), Sessions::default())
    }

    fn over(self, pool: PgPool, handover: Handover, sessions: Sessions) -> Store {
        let statements = Statements::new(&self.schema);
        Store {
            shared: Arc::new(Shared {
                hints: Hints::new(&pool, &self.schema, statements.hint.clone(), self.hints),
                pool,
                handover,
                sessions,
                statements,
                schema: self.schema,
                event_bytes_max: self.event_bytes_max,
                allow_fsync_off: self.allow_fsync_off,
                trace: self.trace,
                schemas: RwLock::default(),
                registered: RwLock::default(),
                outbox_upper: std::sync::atomic::AtomicI64::new(0),
            }),
        }
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

/// The event store: a cheap handle, to be cloned, over a pool of PostgreSQL connections.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    handover: Handover,
    sessions: Sessions,
    schema: SchemaName,
    statements: Statements,
    event_bytes_max: usize,
    allow_fsync_off: bool,
    trace: Option<TraceSource>,
    /// Schemas that are known to be stored. Never held over an await, so a plain lock does.
    schemas: RwLock<BTreeMap<Fingerprint, Schema>>,
    /// The categories that they are known to be registered for.
    registered: RwLock<BTreeMap<Fingerprint, BTreeSet<String>>>,
    /// The first position without a partition of the outbox, as last seen; 0 until asked.
    outbox_upper: std::sync::atomic::AtomicI64,
    hints: Hints,
}

impl Store {
    /// Connects to the database of `url` with the defaults of [`StoreOptions`].
    ///
    /// # Errors
    /// [`Error::Database`] when the URL cannot be read or the server not be reached; [`Error::NotDurable`] when the
    /// server runs with `fsync = off`.
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

    /// Creates or upgrades the store's tables and functions. Safe to call at every start, from every
    /// process: one applies what is missing, all of it in one transaction, and the others wait for it. Works through a
    /// pooler, too.
    ///
    /// # Errors
    /// [`Error::Migrate`] when a statement fails or the database was migrated by a later version;
    /// [`Error::NotDurable`] when the server runs with `fsync = off`.
    pub async fn migrate(&self) -> Result<(), Error> {
        self.check_durable().await?;
        let lock = &self.statements().migrate_lock;
        migrate::migrate(self.pool(), self.schema(), lock).await.map_err(Error::Migrate)
    }

    /// Whether the server's confirmations can be believed. What a session can set, the append sets right by itself.
    async fn check_durable(&self) -> Result<(), Error> {
        if self.shared.allow_fsync_off {
            return Ok(());
        }
        let fsync: String = sqlx::query_scalar(self.statements().fsync.clone())
            .fetch_one(self.pool())
            .await
            .map_err(Error::database("look at the server's settings"))?;
        if fsync == "off" { Err(Error::NotDurable) } else { Ok(()) }
    }

    /// The pool, for transactions of the application's own.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.shared.pool
    }

    /// The database schema that the tables live in.
    #[must_use]
    pub fn schema(&self) -> &SchemaName {
        &self.shared.schema
    }

    pub(crate) fn handover(&self) -> &Handover {
        &self.shared.handover
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.shared.statements
    }

    pub(crate) fn event_bytes_max(&self) -> usize {
        self.shared.event_bytes_max
    }

    pub(crate) fn schemas_known(&self) -> &RwLock<BTreeMap<Fingerprint, Schema>> {
        &self.shared.schemas
    }

    pub(crate) fn schemas_registered(&self) -> &RwLock<BTreeMap<Fingerprint, BTreeSet<String>>> {
        &self.shared.registered
    }

    pub(crate) fn trace_now(&self) -> Option<TraceContext> {
        self.shared.trace.as_ref().and_then(TraceSource::current)
    }

    pub(crate) fn hints_of_store(&self) -> &Hints {
        &self.shared.hints
    }

    /// Partitions of the outbox are asked for anew.
    pub(crate) fn forget_outbox_upper(&self) {
        self.shared.outbox_upper.store(0, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn outbox_upper(&self) -> &std::sync::atomic::AtomicI64 {
        &self.shared.outbox_upper
    }
}
