//! What can fail, and what it leads to: decided in one `match`.

use std::sync::Arc;
use std::time::Duration;

use annals_relay_machine::FailureClass;
use annals_store::outbox::History;
use jiff::Timestamp;

use crate::checkpoint::CheckpointError;
use crate::claims::{NotMine, Taken};
use crate::holds::{Cause, Kind, Refusal};
use crate::kafka_failure::{KafkaFailure, RecordId};
use crate::registry::RegistryFailure;
use crate::waiting::Good;

/// Something that an outage can be an outage of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// PostgreSQL.
    Database,
    /// Kafka.
    Kafka,
    /// The schema registry.
    Registry,
    /// A standby of the database, where events have to be on one.
    Standby,
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Database => "the database",
            Self::Kafka => "kafka",
            Self::Registry => "the schema registry",
            Self::Standby => "a standby of the database",
        })
    }
}

/// Why a session ended. Every failure ends it: the producer is destroyed, and what came of its last
/// transaction is read from Kafka when the next session begins.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A component is away, refuses the credentials, or does not answer in time.
    #[error("{action}")]
    Outage {
        /// Of what.
        of: Component,
        /// What was being done.
        action: &'static str,
        /// The cause.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Another session publishes: it took the lease or fenced the producer.
    #[error("another session of this deployment publishes")]
    Fenced,
    /// Another process of the same instance lives.
    #[error(
        "relay {instance} of this deployment runs already, as {process}, since {since:.0}, and last gave a sign at {seen:.0}: if \
         both are wanted, set relay.instance of one of them to another name; if that one has ended, its lease ends within \
         {} ms, and this one goes on", lease.as_millis()
    )]
    InstanceTaken {
        /// The instance.
        instance: String,
        /// Its process, and where that runs.
        process: String,
        /// When its session began.
        since: Timestamp,
        /// When it last prolonged its lease.
        seen: Timestamp,
        /// How long its lease lasts yet, unless it is prolonged.
        left: Duration,
        /// How long a lease lasts.
        lease: Duration,
    },
    /// Kafka, by what the relay does about it.
    #[error(transparent)]
    Kafka(#[from] KafkaFailure),
    /// A topic has another number of partitions than when it was first published to: streams would go on
    /// in other partitions, and their order be lost.
    #[error(
        "topic {topic} has {found} partitions and had {recorded} when it was first published to: the order of its          streams would break; delete its row from relay_topics once its consumers are done with what is there"
    )]
    Repartitioned {
        /// The topic.
        topic: String,
        /// Its partitions when it was first published to.
        recorded: i32,
        /// Its partitions now.
        found: i32,
    },
    /// A topic is another publication's.
    #[error("{0}")]
    Taken(Box<Taken>),
    /// The topic of claims cannot be used: nobody can say whose a topic is.
    #[error("topic {topic}, in which topics are claimed, cannot be used: {reason}")]
    Claims {
        /// The topic.
        topic: String,
        /// What is wrong, with the command that mends it.
        reason: String,
    },
    /// This publication must not run: another one is in its place.
    #[error(transparent)]
    NotMine(#[from] NotMine),
    /// The registry does not have a schema, or refuses it, or has something else under its id.
    #[error("get the registry id of schema {schema} for topic {topic}")]
    Schema {
        /// The topic.
        topic: Arc<str>,
        /// The schema's full name.
        schema: String,
        /// Why, in the registry's words, and what to do.
        #[source]
        source: RegistryFailure,
    },
    /// Something cannot be published: what it concerns is held, and the rest goes on.
    #[error("{}", said(.0))]
    Held(Vec<Refusal>),
    /// The database was restarted, or it is another one by now: leases and checkpoints are read anew, and what is published is
    /// compared with what it has.
    #[error("the database was restarted or changed: comparing what is published with what it has")]
    Moved,
    /// Something that is published is not in the store: the database has lost a part of its history.
    #[error(
        "{diverging} published versions are not in the store, or are other events there: the database ({found}) was restored to an \
         earlier state, or a standby was promoted that had not everything; stop every relay of the deployment, then let \
         `annals-relay rebase --dry-run` list what diverges. {}", named.join("; ")
    )]
    Diverged {
        /// How many.
        diverging: usize,
        /// Some of them, a line each.
        named: Vec<String>,
        /// The history of the database now.
        found: Box<History>,
    },
    /// The checkpoints are of another store.
    #[error(
        "the checkpoints in Kafka are of {published}, and the database has {found}: set relay.deployment or topics.prefix to \
         something else, so that each store publishes by itself"
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
    /// The store has something that this relay cannot read.
    #[error("read the store")]
    Store(#[source] annals_store::Error),
    /// The deployment began with another promise to its consumers.
    #[error(
        "this deployment delivers {found}, and relay.delivery is {configured}: set it to {found}, or stop all of its \
         relays and run `annals-relay deliver {configured}`"
    )]
    Delivery {
        /// What is configured.
        configured: &'static str,
        /// What the deployment began with.
        found: String,
    },
    /// The deployment was begun anew since this process started.
    #[error("the deployment was begun anew meanwhile (resharded, rebased): start this relay again")]
    BegunAnew,
    /// Kafka does not have a checkpoint that it had.
    #[error(
        "the topic of checkpoints has none of shard {shard}, and its copy in the database is at position {position}: \
         the topic was deleted or made anew; stop all relays of the deployment, then run `annals-relay rebase`, which finds \
         out from the topics what is published"
    )]
    CheckpointsLost {
        /// The shard.
        shard: u16,
        /// How far it was published.
        position: i64,
    },
    /// The installation says an impossible number of shards.
    #[error("the installation has {0} shards: annals.shard_count() was replaced by something else")]
    Shards(i16),
    /// A thread could not be started.
    #[error("start the sender")]
    Thread(#[source] std::io::Error),
    /// Operation is not answered any more, and beginning again has not helped.
    #[error(
        "nothing moves, and beginning again has not helped; the log says what is under way since when"
    )]
    Stalled,
    /// A thread ended by a panic: a defect.
    #[error("the {0} thread panicked")]
    Panicked(&'static str),
}

/// What a failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Wait, with growing pauses, and begin a new session: time or an operator mends it elsewhere.
    Wait,
    /// End the process: going on would lose or repeat something, or cannot succeed.
    Halt,
}

impl Failure {
    /// What the failure leads to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.class().halts() { Outcome::Halt } else { Outcome::Wait }
    }

    /// What the failure means to the machine that decides.
    pub(crate) fn class(&self) -> FailureClass {
        match self {
            Self::Outage { .. }
            | Self::InstanceTaken { .. }
            | Self::Repartitioned { .. }
            | Self::Taken(_)
            | Self::Claims { .. }
            | Self::Schema { .. } => FailureClass::Unavailable,
            // Begin again at once, from what is certain.
            Self::Held(_) | Self::Moved => FailureClass::Resync,
            Self::Fenced => FailureClass::Fenced,
            Self::Kafka(failure) => match failure {
                KafkaFailure::Outage { .. }
                | KafkaFailure::Forbidden { .. }
                | KafkaFailure::TopicMissing { .. }
                | KafkaFailure::TopicUnfit { .. } => FailureClass::Unavailable,
                KafkaFailure::Refused { suspects, .. } if are_events(suspects) => {
                    FailureClass::Resync
                }
                // A checkpoint that is refused cannot be left out.
                KafkaFailure::Refused { .. } => FailureClass::Unavailable,
                KafkaFailure::Fenced { .. } => FailureClass::Fenced,
                KafkaFailure::UnknownOutcome { .. } => FailureClass::UnknownOutcome,
                KafkaFailure::Settings { .. } => FailureClass::Fatal,
            },
            Self::Diverged { .. } | Self::OtherStore { .. } => FailureClass::DivergedHistory,
            Self::NotMine(_)
            | Self::Checkpoint(_)
            | Self::Store(_)
            | Self::Shards(_)
            | Self::Delivery { .. }
            | Self::BegunAnew
            | Self::CheckpointsLost { .. }
            | Self::Thread(_)
            | Self::Stalled
            | Self::Panicked(_) => FailureClass::Fatal,
        }
    }

    /// Why an event that meets this failure on its way to a message is held; none where everything waits.
    pub(crate) fn cause_to_hold(&self) -> Option<Cause> {
        match self {
            // A definition that is not there, or is none: no event that was written with it can be read.
            Self::Schema { .. } | Self::Store(annals_store::Error::Unreadable { .. }) => {
                Some(Cause::Schema)
            }
            Self::Repartitioned { .. }
            | Self::Taken(_)
            | Self::Kafka(
                KafkaFailure::TopicMissing { .. }
                | KafkaFailure::TopicUnfit { .. }
                | KafkaFailure::Forbidden { .. },
            ) => Some(Cause::Topic),
            Self::Kafka(
                KafkaFailure::Outage { .. }
                | KafkaFailure::Refused { .. }
                | KafkaFailure::Fenced { .. }
                | KafkaFailure::UnknownOutcome { .. }
                | KafkaFailure::Settings { .. },
            )
            | Self::Outage { .. }
            | Self::Claims { .. }
            | Self::NotMine(_)
            | Self::InstanceTaken { .. }
            | Self::Held(_)
            | Self::Fenced
            | Self::Moved
            | Self::Diverged { .. }
            | Self::OtherStore { .. }
            | Self::Checkpoint(_)
            | Self::Store(_)
            | Self::Shards(_)
            | Self::Delivery { .. }
            | Self::BegunAnew
            | Self::CheckpointsLost { .. }
            | Self::Thread(_)
            | Self::Stalled
            | Self::Panicked(_) => None,
        }
    }

    /// What is to be held, of a failure that is [`FailureClass::Resync`]; or the positions of the events of which one
    /// was refused, and it is not known which.
    pub(crate) fn refusals(self) -> Result<Vec<Refusal>, Vec<i64>> {
        match self {
            Self::Held(refusals) => Ok(refusals),
            Self::Kafka(KafkaFailure::Refused { suspects, reason }) => match &suspects[..] {
                [record] => Ok(vec![Refusal {
                    kind: Kind::Stream,
                    name: record.key.clone(),
                    cause: Cause::Record,
                    reason,
                    position: Some(record.position),
                }]),
                several => Err(several.iter().map(|record| record.position).collect()),
            },
            _ => Ok(Vec::new()),
        }
    }

    /// What is waited for, for people; also tells one wait from the next.
    #[must_use]
    pub fn waits_for(&self) -> String {
        match self {
            Self::Outage { of, .. } => of.to_string(),
            Self::InstanceTaken { instance, .. } => format!("the lease of relay {instance}"),
            Self::Fenced | Self::Kafka(KafkaFailure::Fenced { .. }) => {
                "the lease of this deployment".to_owned()
            }
            Self::Kafka(
                KafkaFailure::TopicMissing { topic, .. } | KafkaFailure::TopicUnfit { topic, .. },
            )
            | Self::Claims { topic, .. }
            | Self::Repartitioned { topic, .. } => format!("topic {topic}"),
            Self::Taken(taken) => format!("topic {}", taken.by.topic),
            Self::Kafka(KafkaFailure::Refused { .. }) => {
                "kafka to take an event that it refuses".to_owned()
            }
            Self::Kafka(
                KafkaFailure::Outage { .. }
                | KafkaFailure::Forbidden { .. }
                | KafkaFailure::UnknownOutcome { .. }
                | KafkaFailure::Settings { .. },
            ) => Component::Kafka.to_string(),
            Self::Schema { schema, .. } => format!("schema {schema} in the registry"),
            Self::Held(_) => "what cannot be published to be held".to_owned(),
            Self::Moved => Component::Database.to_string(),
            Self::Diverged { .. }
            | Self::OtherStore { .. }
            | Self::NotMine(_)
            | Self::Checkpoint(_)
            | Self::Store(_)
            | Self::Shards(_)
            | Self::Delivery { .. }
            | Self::BegunAnew
            | Self::CheckpointsLost { .. }
            | Self::Thread(_)
            | Self::Stalled
            | Self::Panicked(_) => "an operator".to_owned(),
        }
    }

    /// What shows that it is over.
    pub(crate) fn is_over_when(&self) -> Good {
        match self {
            Self::Outage { of: Component::Database, .. }
            | Self::InstanceTaken { .. }
            | Self::Fenced => Good::Database,
            Self::Outage { of: Component::Kafka, .. } => Good::Kafka,
            Self::Outage { of: Component::Standby, .. } => Good::Read,
            Self::Kafka(failure) => match failure {
                KafkaFailure::Refused { .. }
                | KafkaFailure::TopicMissing { .. }
                | KafkaFailure::TopicUnfit { .. } => Good::Published,
                KafkaFailure::Outage { .. }
                | KafkaFailure::Forbidden { .. }
                | KafkaFailure::Fenced { .. }
                | KafkaFailure::UnknownOutcome { .. }
                | KafkaFailure::Settings { .. } => Good::Kafka,
            },
            // Read from it is all that is done before something is published.
            Self::Claims { .. } => Good::Kafka,
            Self::Outage { of: Component::Registry, .. }
            | Self::Repartitioned { .. }
            | Self::Taken(_)
            | Self::Schema { .. }
            | Self::Held(_) => Good::Published,
            Self::Moved
            | Self::Diverged { .. }
            | Self::OtherStore { .. }
            | Self::NotMine(_)
            | Self::Checkpoint(_)
            | Self::Store(_)
            | Self::Shards(_)
            | Self::Delivery { .. }
            | Self::BegunAnew
            | Self::CheckpointsLost { .. }
            | Self::Thread(_)
            | Self::Stalled
            | Self::Panicked(_) => Good::Database,
        }
    }

    /// The failure with its causes, in one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }

    pub(crate) fn outage(
        of: Component,
        action: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Outage { of, action, source: Arc::new(source) }
    }

    /// A call of the database that took longer than it may.
    pub(crate) fn late(action: &'static str, elapsed: tokio::time::error::Elapsed) -> Self {
        Self::outage(Component::Database, action, elapsed)
    }

    pub(crate) fn database(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::outage(Component::Database, action, source)
    }
}

/// Whether all of these records are events.
fn are_events(records: &[RecordId]) -> bool {
    !records.is_empty() && records.iter().all(|record| record.position > 0)
}

fn said(refusals: &[Refusal]) -> String {
    match refusals {
        [one] => format!("{} {} cannot be published: {}", one.kind, one.name, one.reason),
        several => format!("{} streams or categories cannot be published", several.len()),
    }
}

impl From<annals_store::Error> for Failure {
    fn from(error: annals_store::Error) -> Self {
        match error {
            annals_store::Error::Database { action, source } => Self::database(action)(source),
            annals_store::Error::Migrate(_)
            | annals_store::Error::NotDurable
            | annals_store::Error::Unreadable { .. }
            | annals_store::Error::OtherCluster { .. }
            | annals_store::Error::OtherStore { .. }
            | annals_store::Error::UnreadableEvent { .. }
            | annals_store::Error::OtherHistory { .. }
            | annals_store::Error::Decode { .. } => Self::Store(error),
        }
    }
}
