//! Declares a projection: its name, topics and limits.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use annals_schemas::UnknownEvents;
use sqlx::{PgConnection, PgPool};

use crate::dead_letter::FailurePolicy;
use crate::error::ConsumeError;
use crate::filter_error::Gap;
use crate::projection_error::{NAME_BYTES_MAX, ProjectionError};
use crate::projection_store::{ProjectionStore, TransactionSettings, needs_no_quotes};
use crate::read_model::ReadModel;
use crate::version_filter::{FirstVersion, log_accepted};

/// A read model in PostgreSQL, and the topics that it is built from.
///
/// [Prepare](Self::prepare) it once, then [run](Self::runner) it in one process at a time: a second
/// runner of the same name takes over, and the first one ends with
/// [`RunError::Superseded`](crate::RunError::Superseded). Several processes share a
/// [shared](Self::shared) projection.
///
/// ```
/// use annals_consumer::{FailurePolicy, Projection};
///
/// let projection = Projection::new("turnover", &["shop-order"])?
///     .unreadable_records(FailurePolicy::DeadLetter)
///     .shared();
/// # Ok::<(), annals_consumer::ProjectionError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Projection {
    pub(crate) name: Arc<str>,
    pub(crate) topics: Vec<String>,
    pub(crate) limits: ProjectionLimits,
    pub(crate) first_version: FirstVersion,
    pub(crate) policies: RecordPolicies,
    pub(crate) sharing: Sharing,
    pub(crate) store: ProjectionStore,
    /// None: the application creates the tables, and switches between versions, itself.
    pub(crate) read_model: Option<ReadModel>,
}

/// The response to records that are not applied.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecordPolicies {
    pub(crate) unknown_events: UnknownEvents,
    pub(crate) unreadable: FailurePolicy,
    pub(crate) rejected: FailurePolicy,
}

/// Whether several processes run a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// One runner reads all partitions; a second one supersedes it.
    Exclusive,
    /// The runners are a consumer group.
    Group,
}

/// The limits of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProjectionLimits {
    pub(crate) batch_events_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) batch_deadline: Duration,
    pub(crate) cached_streams_max: usize,
}

impl Projection {
    /// Declares a projection. Its progress is stored under its name.
    ///
    /// # Errors
    /// [`ProjectionError`] if the name is empty or longer than 200 bytes, or there is no topic.
    pub fn new(name: &str, topics: &[&str]) -> Result<Self, ProjectionError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(ProjectionError::Name { name: name.to_owned() });
        }
        if topics.is_empty() {
            return Err(ProjectionError::NoTopics { name: name.to_owned() });
        }
        Ok(Self {
            name: Arc::from(name),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            limits: ProjectionLimits {
                batch_events_max: 1_000,
                batch_bytes_max: 16 * 1024 * 1024,
                batch_deadline: Duration::from_secs(120),
                cached_streams_max: 100_000,
            },
            first_version: FirstVersion::Zero,
            policies: RecordPolicies::default(),
            sharing: Sharing::Exclusive,
            store: ProjectionStore::new(name, "annals_projections"),
            read_model: None,
        })
    }

    /// Keeps the read model in tables of this version's own, so that a new version can be built
    /// beside the present one. `tables` are the statements that create them, without the name of a
    /// schema; the handler names them without one, too.
    ///
    /// The tables are in the schema `<name>_v<version>`; the progress is stored under that name,
    /// which is also the projection's in metrics, and a shared one's consumer group. Readers use
    /// the views in the schema `<name>`: they show the tables of the first version that was
    /// prepared, until a [`switch`](Self::switch). **Take a new version whenever topics, tables or
    /// the handler change**, and run it beside the present one: it reads the topics from their
    /// beginning. Gaps that were [accepted](Self::accept_gap) for the version shown are accepted
    /// for it.
    ///
    /// # Errors
    /// [`ProjectionError::Version`] if a name would need quotes in SQL or is reserved, or the
    /// version is 0.
    pub fn version(mut self, version: u32, tables: &'static str) -> Result<Self, ProjectionError> {
        let model = ReadModel::new(&self.name, version, tables, self.store.schema())?;
        self.store = ProjectionStore::new(&model.tables.schema, self.store.schema());
        self.name = Arc::clone(&model.tables.schema);
        self.read_model = Some(model);
        Ok(self)
    }

    /// Applies at most this many events in one transaction (1,000 by default). A batch holds the
    /// events already fetched: it does not wait for more. It also ends at 16 MiB of payload.
    #[must_use]
    pub fn batch_events_max(mut self, events: NonZeroUsize) -> Self {
        self.limits.batch_events_max = events.get();
        self
    }

    /// Aborts a transaction after this time (120 s by default), and retries it with half as many
    /// events on another connection: this also ends a wait for a host that no longer answers. The
    /// run ends with [`RunError::LimitExceeded`](crate::RunError::LimitExceeded) when one event
    /// alone takes longer, three times. Limits of PostgreSQL, such as `statement_timeout`, have the
    /// same effect.
    ///
    /// PostgreSQL ends a transaction that is idle for this time, unless it has a limit of its own:
    /// a stopped process would keep its locks.
    #[must_use]
    pub fn batch_deadline(mut self, deadline: Duration) -> Self {
        self.limits.batch_deadline = deadline;
        self
    }

    /// Shares the projection among all runners of its name: they are the consumer group
    /// `annals-projection-<name>`, which gives each partition to one of them. A runner without a
    /// partition waits, and takes over when another one ends.
    ///
    /// Offsets and versions stay in the read model's transaction. A partition has an owner with an
    /// epoch there: a runner that was stopped, or that the group has given up, commits nothing more
    /// once another one owns the partition; it asks the group for a new share. After a crash the
    /// group waits for `session.timeout.ms` (45 s unless set otherwise) before it gives the
    /// partitions to others.
    ///
    /// Handlers of different partitions run at the same time: they must not depend on the order of
    /// events of different streams, and rows that several streams write can deadlock, which is
    /// retried.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.sharing = Sharing::Group;
        self
    }

    /// Stores the progress in tables of this database schema (`annals_projections` by default).
    /// Call it before [`version`](Self::version).
    ///
    /// # Errors
    /// [`ProjectionError::Schema`] if the name would need quotes in SQL.
    pub fn schema(mut self, name: &str) -> Result<Self, ProjectionError> {
        if !needs_no_quotes(name) || self.read_model.is_some() {
            return Err(ProjectionError::Schema { name: name.to_owned() });
        }
        self.store = ProjectionStore::new(&self.name, name);
        Ok(self)
    }

    /// Sets which version the first event of a stream may have ([`FirstVersion::Zero`] by default).
    #[must_use]
    pub fn first_version(mut self, first: FirstVersion) -> Self {
        self.first_version = first;
        self
    }

    /// Sets how to treat undeclared event types ([`UnknownEvents::Refuse`] by default).
    #[must_use]
    pub fn unknown_events(mut self, unknown: UnknownEvents) -> Self {
        self.policies.unknown_events = unknown;
        self
    }

    /// Sets the policy for a record that is no event, and with an event that cannot be decoded
    /// ([`FailurePolicy::Stop`] by default).
    #[must_use]
    pub fn unreadable_records(mut self, policy: FailurePolicy) -> Self {
        self.policies.unreadable = policy;
        self
    }

    /// Sets the policy for an event for which the handler returns an error
    /// ([`FailurePolicy::Stop`] by default). The handler's writes for it are rolled back.
    #[must_use]
    pub fn rejected_events(mut self, policy: FailurePolicy) -> Self {
        self.policies.rejected = policy;
        self
    }

    pub(crate) fn transaction_settings(&self) -> TransactionSettings<'_> {
        TransactionSettings {
            deadline: self.limits.batch_deadline,
            tables: self.read_model.as_ref().map(|model| &*model.tables.schema),
        }
    }

    /// Creates the schema and tables for the progress of projections, unless they exist, and the
    /// tables of a [version](Self::version).
    ///
    /// # Errors
    /// [`ProjectionError::OtherTables`] if the version was prepared with others;
    /// [`ProjectionError::Database`].
    pub async fn prepare(&self, pool: &PgPool) -> Result<(), ProjectionError> {
        let failed = |source| ProjectionError::Database {
            action: "create the tables for the progress of projections",
            source,
        };
        let mut connection = pool.acquire().await.map_err(failed)?;
        self.store.prepare(&mut connection).await.map_err(failed)?;
        drop(connection);
        match &self.read_model {
            None => Ok(()),
            Some(model) => model.register(pool).await,
        }
    }

    /// Makes the next run read the topics from their beginning, for a topic that was created and
    /// filled again. Events that were applied are dropped as duplicates.
    ///
    /// # Errors
    /// [`ProjectionError::Database`].
    pub async fn replay(&self, connection: &mut PgConnection) -> Result<(), ProjectionError> {
        self.store.replay(connection).await.map_err(|source| ProjectionError::Database {
            action: "reset the offsets of the projection",
            source,
        })
    }

    /// Lets the projection go on behind a gap of [`RunError::Gap`](crate::RunError::Gap): the
    /// events between are lost for its read model. For the loss of records in Kafka; events that
    /// the relay never publishes are no gap. The table `annals_projection_gaps` records the reason,
    /// with the role and the time. Takes effect with the next run.
    ///
    /// # Errors
    /// [`ProjectionError::Database`], also if the reason is empty.
    pub async fn accept_gap(
        &self,
        connection: &mut PgConnection,
        gap: &Gap,
        reason: &str,
    ) -> Result<(), ProjectionError> {
        let accepted = self.store.accept_gap(connection, gap, reason).await;
        accepted.map_err(|source| ProjectionError::Database { action: "accept a gap", source })?;
        log_accepted(gap, reason);
        Ok(())
    }

    /// Lets the projection continue behind removed records, after
    /// [`ConsumeError::RecordsRemoved`]: they are lost for its read model. The table
    /// `annals_projection_removals` records the reason, with the role and the time. Streams whose
    /// events were removed then end the run with a gap each, unless
    /// [`FirstVersion::Any`](crate::FirstVersion::Any) allows it.
    ///
    /// Returns false if the projection has continued since. Any other error is left as it is.
    ///
    /// # Errors
    /// [`ProjectionError::Database`], also if the reason is empty.
    pub async fn accept_removal(
        &self,
        connection: &mut PgConnection,
        removed: &ConsumeError,
        reason: &str,
    ) -> Result<bool, ProjectionError> {
        let ConsumeError::RecordsRemoved { next, low } = removed else { return Ok(false) };
        let accepted = self.store.accept_removal(connection, next, *low, reason).await;
        accepted.map_err(|source| ProjectionError::Database { action: "accept a removal", source })
    }

    /// Makes the next run apply all events again. Call it in the transaction that empties the read
    /// model. After [`RunError::Forked`](crate::RunError::Forked) publish the topics anew first:
    /// the fork comes again in topics with both histories.
    ///
    /// # Errors
    /// [`ProjectionError::Database`].
    pub async fn forget(&self, connection: &mut PgConnection) -> Result<(), ProjectionError> {
        self.replay(connection).await?;
        self.store.forget_versions(connection).await.map_err(|source| ProjectionError::Database {
            action: "reset the versions of the projection",
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_name_that_could_change_a_statement_is_refused() {
        for name in ["", "1st", "a.b", "a b", "Flights", "x\"; drop table y", &"a".repeat(64)] {
            let refused = Projection::new("p", &["t"]).unwrap().schema(name);
            assert!(matches!(refused, Err(ProjectionError::Schema { .. })), "{name}");
        }
        assert!(Projection::new("p", &["t"]).unwrap().schema("read_models_2").is_ok());
    }

    #[test]
    fn version_without_a_schema_of_its_own_is_refused() {
        for (name, version) in [
            ("Orders", 1),
            ("a b", 1),
            ("orders", 0),
            ("public", 1),
            ("pg_orders", 1),
            (&"a".repeat(61), 1),
        ] {
            let refused = Projection::new(name, &["t"]).unwrap().version(version, "");
            assert!(matches!(refused, Err(ProjectionError::Version { .. })), "{name} {version}");
        }
        let own = Projection::new("orders", &["t"]).unwrap().schema("orders_v2").unwrap();
        assert!(own.clone().version(2, "").is_err());
        assert!(own.version(1, "").unwrap().schema("late").is_err());
    }

    #[test]
    fn projection_without_name_or_topics_is_refused() {
        assert!(matches!(Projection::new("", &["t"]), Err(ProjectionError::Name { .. })));
        assert!(matches!(Projection::new("p", &[]), Err(ProjectionError::NoTopics { .. })));
    }
}
