//! The handle of the event store, and the state that its clones share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, RwLock};

use annals_schemas::{Fingerprint, Schema};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::Semaphore;

use crate::aggregate::turns::Turns;
use crate::append::queue::AppendQueue;
use crate::connections::expiry::SessionExpiry;
use crate::connections::notify::{self, Notifications};
use crate::connections::reuse::{ConnectionReuse, ReusePolicy};
use crate::error::Error;
use crate::options::{FsyncPolicy, StoreOptions};
use crate::statements::{SchemaName, Statements};
use crate::trace::{TraceContext, TraceSource};

/// The event store: a cheap handle to clone, over a pool of PostgreSQL connections.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    reuse: ConnectionReuse,
    expiry: SessionExpiry,
    options: StoreOptions,
    statements: Statements,
    /// Schemas known to be registered. The lock is never held across an await.
    schemas: RwLock<BTreeMap<Fingerprint, Schema>>,
    /// The categories that each schema is known to be registered for.
    registered: RwLock<BTreeMap<Fingerprint, BTreeSet<String>>>,
    /// The first position without a partition of the outbox, as last read; 0 until read.
    outbox_upper: AtomicI64,
    notifications: Notifications,
    append_queue: AppendQueue,
    /// At most one snapshot is written at a time.
    snapshot_writes: Arc<Semaphore>,
    decision_turns: Turns,
}

/// The pool of a store, and how its connections are used.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) pool: PgPool,
    pub(crate) reuse: ReusePolicy,
    pub(crate) expiry: SessionExpiry,
}

impl Store {
    pub(crate) fn new(options: StoreOptions, connections: Connections) -> Self {
        let Connections { pool, reuse, expiry } = connections;
        let statements = Statements::new(&options.schema);
        let coalescing = options.coalescing.unwrap_or_default();
        let connections_max = pool.options().get_max_connections();
        let notifications = Notifications::new(&pool, &options.schema, &statements, options.notify);
        Self {
            shared: Arc::new(Shared {
                pool,
                reuse: ConnectionReuse::new(reuse),
                expiry,
                statements,
                options,
                schemas: RwLock::default(),
                registered: RwLock::default(),
                outbox_upper: AtomicI64::new(0),
                notifications,
                append_queue: AppendQueue::new(coalescing, connections_max),
                snapshot_writes: Arc::new(Semaphore::new(1)),
                decision_turns: Turns::default(),
            }),
        }
    }

    /// Checks the setting that a session cannot change. An append sets the others itself.
    pub(crate) async fn check_durable(&self) -> Result<(), Error> {
        if self.shared.options.fsync == FsyncPolicy::Optional {
            return Ok(());
        }
        let fsync = sqlx::query_scalar(self.statements().fsync.clone()).fetch_one(self.pool());
        let fsync: String = self
            .within_deadline(fsync)
            .await
            .map_err(Error::database("read the server's settings"))?;
        if fsync == "off" { Err(Error::NotDurable) } else { Ok(()) }
    }

    /// Closes the store: refuses further appends, waits until all appends in progress have finished
    /// or are dropped, and closes the pool. Clones of the store are closed, too.
    pub async fn close(&self) {
        self.append_queue().close().await;
        self.pool().close().await;
    }

    /// Notifies followers, in this process and in others. Call it after the commit of a transaction
    /// that used [`append_in`](Self::append_in); [`append`](Self::append) calls it itself. It
    /// returns at once and sends at most one notification in 10 ms.
    pub fn notify_followers(&self) {
        self.shared.notifications.notify();
    }

    /// The channel of these notifications, for an application that listens on its own connection.
    #[must_use]
    pub fn notify_channel(&self) -> &str {
        self.shared.notifications.channel()
    }

    /// Connects for `LISTEN`, outside the pool; none if a connection pooler is in between, which
    /// passes no notifications: poll instead.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn connect_listener(&self) -> Result<Option<PgListener>, Error> {
        let has_own_session = self.statements().has_own_session.clone();
        let options = notify::connect_options(self.pool());
        let listener = notify::connect_listener(options, has_own_session);
        let listener = self.within_deadline(listener).await;
        listener.map_err(Error::database("connect for notifications"))
    }

    /// The pool, for transactions of the application.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.shared.pool
    }

    /// The database schema that contains the tables.
    #[must_use]
    pub fn schema(&self) -> &SchemaName {
        &self.shared.options.schema
    }

    pub(crate) fn notifications(&self) -> &Notifications {
        &self.shared.notifications
    }

    pub(crate) fn decision_turns(&self) -> &Turns {
        &self.shared.decision_turns
    }

    pub(crate) fn snapshot_permits(&self) -> &Arc<Semaphore> {
        &self.shared.snapshot_writes
    }

    pub(crate) fn append_queue(&self) -> &AppendQueue {
        &self.shared.append_queue
    }

    pub(crate) fn connection_reuse(&self) -> &ConnectionReuse {
        &self.shared.reuse
    }

    pub(crate) fn session_expiry(&self) -> &SessionExpiry {
        &self.shared.expiry
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.shared.statements
    }

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.shared.options
    }

    pub(crate) fn known_schemas(&self) -> &RwLock<BTreeMap<Fingerprint, Schema>> {
        &self.shared.schemas
    }

    pub(crate) fn registered_schemas(&self) -> &RwLock<BTreeMap<Fingerprint, BTreeSet<String>>> {
        &self.shared.registered
    }

    pub(crate) fn current_trace(&self) -> Option<TraceContext> {
        self.shared.options.trace.as_ref().and_then(TraceSource::current)
    }

    /// Forgets which positions have a partition of the outbox, so that the next append reads it.
    pub(crate) fn forget_outbox_upper(&self) {
        self.shared.outbox_upper.store(0, Ordering::Relaxed);
    }

    pub(crate) fn outbox_upper(&self) -> &AtomicI64 {
        &self.shared.outbox_upper
    }
}
