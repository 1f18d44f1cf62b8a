//! Options of a store.

use std::time::Duration;

use annals_schemas::Compatibility;

use crate::append::coalescing::Coalescing;
use crate::connections::notify::NotifyPolicy;
use crate::limits::EVENT_BYTES_MAX;
use crate::statements::SchemaName;
use crate::trace::{TraceContext, TraceSource};

/// Default of [`StoreOptions::deadline`].
const DEADLINE: Duration = Duration::from_secs(30);

/// How to connect a [`Store`](crate::Store).
///
/// ```no_run
/// use std::time::Duration;
///
/// use annals_store::{SchemaName, StoreOptions};
///
/// # async fn connect(url: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let store = StoreOptions::default()
///     .schema(SchemaName::new("ledger")?)
///     .connections_max(20)
///     .deadline(Duration::from_secs(5))
///     .connect(url)
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub(crate) schema: SchemaName,
    pub(crate) connections_max: u32,
    pub(crate) event_bytes_max: usize,
    pub(crate) deadline: Duration,
    pub(crate) notify: NotifyPolicy,
    pub(crate) fsync: FsyncPolicy,
    pub(crate) roles: RolesPolicy,
    pub(crate) compatibility: Compatibility,
    pub(crate) trace: Option<TraceSource>,
    pub(crate) data: DataPolicy,
    /// None: each append makes a call of its own.
    pub(crate) coalescing: Option<Coalescing>,
}

/// Whether a store accepts a server with `fsync = off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FsyncPolicy {
    Required,
    Optional,
}

/// Whether events are recorded as JSON beside their payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataPolicy {
    Recorded,
    Omitted,
}

/// Whether a migration creates the roles of Annals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RolesPolicy {
    Create,
    Leave,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            schema: SchemaName::default(),
            connections_max: 10,
            event_bytes_max: EVENT_BYTES_MAX,
            deadline: DEADLINE,
            notify: NotifyPolicy::Notify,
            fsync: FsyncPolicy::Required,
            roles: RolesPolicy::Create,
            compatibility: Compatibility::default(),
            trace: None,
            data: DataPolicy::Recorded,
            coalescing: Some(Coalescing::default()),
        }
    }
}

impl StoreOptions {
    /// The database schema that contains the tables; `annals` by default.
    #[must_use]
    pub fn schema(mut self, schema: SchemaName) -> Self {
        self.schema = schema;
        self
    }

    /// Maximum number of connections of the pool that [`connect`](Self::connect) opens; 10 by
    /// default. With a single one, an append that waits for the lock of a stream delays all others.
    #[must_use]
    pub const fn connections_max(mut self, connections_max: u32) -> Self {
        self.connections_max = connections_max;
        self
    }

    /// Maximum size of one event's payload; [`EVENT_BYTES_MAX`] by default. Keep it some 32 KiB
    /// below the `max.message.bytes` of the topics.
    #[must_use]
    pub const fn event_bytes_max(mut self, event_bytes_max: usize) -> Self {
        self.event_bytes_max = event_bytes_max;
        self
    }

    /// Maximum time for which the store waits for the answer to a statement, and for a connection
    /// of the pool that [`connect`](Self::connect) opens; 30 seconds by default. After it, a read
    /// fails with [`Error::Database`](crate::Error::Database), and an append with
    /// [`AppendError::Unknown`](crate::AppendError::Unknown): repeat it with the same events. An
    /// append takes at most twice this time. Migrations, and the statements that create the tables
    /// of a projection, have no deadline.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Limits of the coalescing of appends, which is on by default: see [`Coalescing`].
    #[must_use]
    pub const fn coalescing(mut self, coalescing: Coalescing) -> Self {
        self.coalescing = Some(coalescing);
        self
    }

    /// Turns the coalescing of appends off: each append makes a call of its own, on a connection of
    /// its own.
    #[must_use]
    pub const fn without_coalescing(mut self) -> Self {
        self.coalescing = None;
        self
    }

    /// Which programs a new version of a schema may break; an append refuses one that breaks
    /// others. [`Compatibility::Full`] by default, and compared with every version that was ever
    /// stored.
    #[must_use]
    pub const fn compatibility(mut self, compatibility: Compatibility) -> Self {
        self.compatibility = compatibility;
        self
    }

    /// Turns notifications off: appends do not notify followers, and followers find events when
    /// they poll. Use it behind a pooler in transaction mode, where `LISTEN` does not work.
    /// Notifications cost a connection outside the pool and at most a hundred small transactions a
    /// second.
    #[must_use]
    pub const fn without_notifications(mut self) -> Self {
        self.notify = NotifyPolicy::PollOnly;
        self
    }

    /// The source of the trace context of events that have none of their own. Each append calls it
    /// inside its span. With `tracing-opentelemetry`, which is not a dependency of this crate, so
    /// that this example is not compiled:
    ///
    /// ```ignore
    /// use opentelemetry::trace::TraceContextExt;
    /// use tracing_opentelemetry::OpenTelemetrySpanExt;
    ///
    /// options.trace_context(|| {
    ///     let context = tracing::Span::current().context();
    ///     let span = context.span().span_context().clone();
    ///     span.is_valid().then(|| TraceContext {
    ///         traceparent: format!(
    ///             "00-{}-{}-{:02x}",
    ///             span.trace_id(),
    ///             span.span_id(),
    ///             span.trace_flags()
    ///         ),
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

    /// Records events without `data`, their content as JSON: the column `data` of `annals.events`
    /// and `annals.event_log` is null. Annals never reads it; people and SQL do. It takes about
    /// half of the bytes of a small event. Each process decides for the events that it appends.
    #[must_use]
    pub const fn without_data(mut self) -> Self {
        self.data = DataPolicy::Omitted;
        self
    }

    /// Lets [`Store::migrate`](crate::Store::migrate) create no roles: all objects stay with the
    /// login that migrates, and [`Store::grants_for`](crate::Store::grants_for) has the statements
    /// for the roles of the installation. For servers on which the login may not create roles, or
    /// another tool manages them.
    #[must_use]
    pub const fn without_roles(mut self) -> Self {
        self.roles = RolesPolicy::Leave;
        self
    }

    /// Lets [`connect`](Self::connect) and [`Store::migrate`](crate::Store::migrate) accept a
    /// server with `fsync = off`, which loses confirmed commits when its machine crashes: for tests
    /// and reproducible data; and for Neon, which has this setting and keeps its data in another
    /// place, by its own account durably.
    #[must_use]
    pub const fn allow_fsync_off(mut self) -> Self {
        self.fsync = FsyncPolicy::Optional;
        self
    }
}
