//! Every kind of failure. `policy` has the response to each.

use std::sync::Arc;
use std::time::Duration;

use annals_store::Position;
use annals_store::outbox::History;
use jiff::Timestamp;

use crate::model::checkpoint::CheckpointError;
use crate::model::claim::{PublicationRefused, TopicClaimed};
use crate::model::quarantine::NewEntry;
use crate::report::kafka_failure::KafkaFailure;
use crate::report::lacks_store;
use crate::report::registry_failure::RegistryFailure;

/// How a database gets an event store.
const MIGRATE: &str = "run `annals-relay migrate`, or set database.schema";

/// A component that can be unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// PostgreSQL.
    Database,
    /// Kafka.
    Kafka,
    /// The schema registry.
    Registry,
    /// A standby of the database, if `relay.durability` is `standby`.
    Standby,
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Database => "database",
            Self::Kafka => "kafka",
            Self::Registry => "registry",
            Self::Standby => "standby",
        })
    }
}

/// Why an operation of the relay has failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A component is unavailable, refuses the credentials, or does not answer in time.
    #[error("{action}")]
    Outage {
        /// The component.
        of: Component,
        /// The action that failed, as verb and object.
        action: &'static str,
        /// The cause.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Another session has acquired the shards or fenced the producer.
    #[error("another session of this deployment publishes the shards")]
    Fenced,
    /// Another process of the same instance lives.
    #[error(
        "relay {instance} of this deployment runs already: {process}, since {since:.0}, its lease last renewed at {seen:.0}. \
         To run both, set relay.instance of one of them to another name; if that process has ended, its lease expires within \
         {} ms, and this one starts", lease.as_millis()
    )]
    InstanceTaken {
        /// The instance.
        instance: String,
        /// Its process and host.
        process: String,
        /// When its session began.
        since: Timestamp,
        /// When it last renewed its lease.
        seen: Timestamp,
        /// The time until its lease expires, unless it is renewed.
        left: Duration,
        /// The duration of a lease.
        lease: Duration,
    },
    /// A failure of Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaFailure),
    /// A topic has lost records that were published to it.
    #[error(
        "topic {topic} {}: {lost} published records are missing, and its consumers will not get them. The events are in \
         the store, and its category waits; publish them again with `annals-relay replay --category`, or delete the topic's row from \
         relay_topics to publish later events without the earlier ones", if *.exists { "was created anew or truncated" } else { "was deleted" }
    )]
    TopicLost {
        /// The topic.
        topic: String,
        /// Whether there is a topic of that name.
        exists: bool,
        /// The number of missing records, those of transactions and of skipped retries included.
        lost: u64,
    },
    /// The topic has fewer partitions than when it was first published to: streams would continue
    /// in other partitions, and lose their order.
    #[error(
        "topic {topic} has {found} partitions and had {recorded} when it was first published to: the order of its \
         streams would break; delete its row from relay_topics once its consumers have processed all records"
    )]
    Repartitioned {
        /// The topic.
        topic: String,
        /// Its partition count when it was first published to.
        recorded: i32,
        /// Its present partition count.
        found: i32,
    },
    /// Another publication claims the topic.
    #[error("{0}")]
    TopicClaimed(Box<TopicClaimed>),
    /// The topic of claims cannot be used: the owner of a topic is unknown.
    #[error("topic {topic}, which has the claims of all topics, cannot be used: {reason}")]
    Claims {
        /// The topic.
        topic: String,
        /// The fault, with the command that corrects it.
        reason: String,
    },
    /// This publication must not run.
    #[error(transparent)]
    PublicationRefused(#[from] PublicationRefused),
    /// The registry does not have a schema, refuses it, or has another one under its id.
    #[error("get the registry id of schema {schema} for topic {topic}")]
    Schema {
        /// The topic.
        topic: Arc<str>,
        /// The schema's full name.
        schema: String,
        /// Why, and what to do.
        #[source]
        source: RegistryFailure,
    },
    /// Some events cannot be published: their streams or categories are quarantined, all others are
    /// published.
    #[error("{}", describe(.0))]
    Quarantine(Vec<NewEntry>),
    /// The database was restarted, or replaced by another one: leases and checkpoints are read
    /// again, and the published events are compared with the store.
    #[error(
        "the database was restarted or replaced: comparing the published events with the store"
    )]
    DatabaseChanged,
    /// Some published events are not in the store: the database has lost a part of its history.
    #[error(
        "{diverging} published versions are missing in the store, or are other events there: the database ({found}) was restored \
         to an earlier state, or a standby was promoted that lacked the last transactions; stop every relay of the \
         deployment, then list the diverging events with `annals-relay rebase --dry-run`. {}", named.join("; ")
    )]
    Diverged {
        /// Their number.
        diverging: usize,
        /// Some of them, one line each.
        named: Vec<String>,
        /// The present history of the database.
        found: Box<History>,
    },
    /// The checkpoints are of another store.
    #[error(
        "the checkpoints in Kafka are of {published}, and the database has {found}: set relay.deployment or topics.prefix to \
         another value, so that each store has a publication of its own"
    )]
    OtherStore {
        /// The history in the checkpoints.
        published: Box<History>,
        /// The history of the database.
        found: Box<History>,
    },
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// This relay cannot read a part of the store.
    #[error("read the store")]
    Store(#[source] annals_store::Error),
    /// The deployment has another delivery.
    #[error(
        "this deployment delivers {found}, and relay.delivery is {configured}: set it to {found}, or stop all of its \
         relays and run `annals-relay deliver {configured}`"
    )]
    Delivery {
        /// The configured delivery.
        configured: &'static str,
        /// The delivery of the deployment.
        found: String,
    },
    /// The deployment has a new generation since this process started.
    #[error(
        "the deployment has a new generation (it was resharded or rebased): restart this relay"
    )]
    NewGeneration,
    /// Kafka has checkpoints of a generation that the database does not know.
    #[error(
        "Kafka has checkpoints of generation {found} of this deployment, and the database has generation {known}: the database \
         was restored to a state before the deployment was rebased; stop all of its relays, then run `annals-relay rebase`, \
         which reads from the topics which events are published"
    )]
    LaterGeneration {
        /// The latest generation in Kafka.
        found: u32,
        /// The generation in the database.
        known: u32,
    },
    /// Kafka has lost a checkpoint.
    #[error(
        "the topic of checkpoints has no checkpoint of shard {shard}, and its copy in the database is at position {position}: \
         the topic was deleted or created anew; stop all relays of the deployment, then run `annals-relay rebase`, which \
         reads from the topics which events are published"
    )]
    CheckpointsLost {
        /// The shard.
        shard: u16,
        /// The position of the copied checkpoint.
        position: Position,
    },
    /// Kafka has an earlier checkpoint than its copy in PostgreSQL: it has lost the later ones.
    #[error(
        "the checkpoint of shard {shard} in Kafka is at position {found}, and its copy in the database at {copied}: Kafka \
         has lost later checkpoints, and possibly events; stop all relays of the deployment, then run `annals-relay rebase`, \
         which reads from the topics which events are published"
    )]
    CheckpointsOlder {
        /// The shard.
        shard: u16,
        /// The position of the checkpoint in Kafka.
        found: Position,
        /// The position of the copied checkpoint.
        copied: Position,
    },
    /// The database has lost quarantine entries that a checkpoint in Kafka has.
    #[error(
        "the database has lost quarantine entries of shard {shard}, whose events are not published: it was restored to an \
         earlier state, or a standby was promoted that lacked the last transactions; stop all relays of the deployment, \
         then run `annals-relay rebase`, which publishes these events again"
    )]
    QuarantineLost {
        /// The shard.
        shard: u16,
    },
    /// The number of shards of the installation is impossible.
    #[error("the installation has {0} shards: annals.shard_count() was replaced")]
    Shards(i16),
    /// A thread could not be started.
    #[error("start the sender")]
    Thread(#[source] std::io::Error),
    /// The HTTP server cannot start.
    #[error("start the HTTP server")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An operation is not answered, also not in a new session.
    #[error(
        "no operation makes progress, also not in a new session; the log names those under way"
    )]
    Stalled,
    /// A thread panicked: a defect of the relay.
    #[error("the {0} thread panicked")]
    Panicked(&'static str),
}

impl Failure {
    /// The failure with its causes and, if the database has no event store, what makes one, in one
    /// line.
    #[must_use]
    pub fn in_full(&self) -> String {
        let full = crate::report::in_full(self);
        if lacks_store(self) { format!("{full}: {MIGRATE}") } else { full }
    }

    /// The id of the kind of failure: the field `cause` of the log event `halted`, and a row of
    /// `ops/runbook.md`.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Outage { .. } => "outage",
            Self::Fenced => "fenced",
            Self::InstanceTaken { .. } => "instance_taken",
            Self::Kafka(_) => "kafka",
            Self::TopicLost { .. } => "topic_lost",
            Self::Repartitioned { .. } => "repartitioned",
            Self::TopicClaimed(_) => "topic_claimed",
            Self::Claims { .. } => "claims",
            Self::PublicationRefused(PublicationRefused::Deployment { .. }) => "other_deployment",
            Self::PublicationRefused(PublicationRefused::Copy { .. }) => "copied_database",
            Self::PublicationRefused(PublicationRefused::Moved { .. }) => "moved_store",
            Self::Schema { .. } => "schema",
            Self::Quarantine(_) => "quarantine",
            Self::DatabaseChanged => "database_changed",
            Self::Diverged { .. } => "diverged",
            Self::OtherStore { .. } => "other_store",
            Self::Checkpoint(CheckpointError::Malformed { .. }) => "malformed_checkpoint",
            Self::Checkpoint(CheckpointError::Format { .. }) => "later_checkpoint_format",
            Self::Store(annals_store::Error::OtherCluster { .. }) => "other_cluster",
            Self::Store(_) => "store",
            Self::Delivery { .. } => "delivery",
            Self::NewGeneration => "new_generation",
            Self::LaterGeneration { .. } => "later_generation",
            Self::CheckpointsLost { .. } => "checkpoints_lost",
            Self::CheckpointsOlder { .. } => "checkpoints_older",
            Self::QuarantineLost { .. } => "quarantine_lost",
            Self::Shards(_) => "shards",
            Self::Thread(_) => "thread",
            Self::Http(_) => "http",
            Self::Stalled => "stalled",
            Self::Panicked(_) => "panicked",
        }
    }

    pub(crate) fn outage(
        of: Component,
        action: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Outage { of, action, source: Arc::new(source) }
    }

    /// A call of the database has exceeded its deadline.
    pub(crate) fn late(action: &'static str, elapsed: tokio::time::error::Elapsed) -> Self {
        Self::outage(Component::Database, action, elapsed)
    }

    pub(crate) fn database(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::outage(Component::Database, action, source)
    }
}

fn describe(entries: &[NewEntry]) -> String {
    match entries {
        [one] => format!("{} {} cannot be published: {}", one.kind, one.name, one.reason),
        several => format!("{} streams or categories cannot be published", several.len()),
    }
}

impl From<annals_store::Error> for Failure {
    fn from(error: annals_store::Error) -> Self {
        match error {
            annals_store::Error::Database { action, source } => Self::database(action)(source),
            standby @ annals_store::Error::Standby => {
                Self::outage(Component::Database, "read the end of the log", standby)
            }
            other => Self::Store(other),
        }
    }
}
