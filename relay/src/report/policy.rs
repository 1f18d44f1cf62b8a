//! The response of the relay to each failure: one table.

use std::collections::BTreeSet;

use annals_relay_machine::FailureClass;
use annals_store::Position;

use crate::model::quarantine::{Cause, Kind, NewEntry};
use crate::report::failure::{Component, Failure};
use crate::report::kafka_failure::{KafkaFailure, RecordId};

/// The response of the relay to a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The consequence for the machine.
    pub(crate) class: FailureClass,
    /// Why an event is quarantined that meets this failure on its way to a message; `None` if all
    /// events wait.
    pub(crate) quarantines: Option<Cause>,
    /// The id of the component or topic that the relay waits for; it begins with the
    /// kind.
    pub(crate) waiting_for: String,
    /// The success that ends the wait.
    pub(crate) recovered_by: Recovered,
}

/// A success that ends some waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// The database has answered.
    Database,
    /// A page of the outbox was read.
    OutboxRead,
    /// Kafka has answered.
    Kafka,
    /// Events were published: no topic and no schema is in the way.
    Published,
}

/// The topic that was refused when records were sent: its category is quarantined, all others are
/// published.
#[derive(Debug)]
pub(crate) enum RefusedTopic<'a> {
    /// None: the failure is another one.
    None,
    /// One of several: each is sent on its own next.
    Unknown,
    /// This one, with the failure.
    Named(&'a str, &'a KafkaFailure),
}

impl Policy {
    fn wait(waiting_for: impl Into<String>, recovered_by: Recovered) -> Self {
        let class = FailureClass::Unavailable;
        Self { class, quarantines: None, waiting_for: waiting_for.into(), recovered_by }
    }

    fn halt(class: FailureClass) -> Self {
        Self { class, ..Self::wait("operator", Recovered::Database) }
    }

    fn class(self, class: FailureClass) -> Self {
        Self { class, ..self }
    }

    fn quarantining(self, cause: Cause) -> Self {
        Self { quarantines: Some(cause), ..self }
    }
}

impl Failure {
    /// The response of the relay to this failure.
    #[must_use]
    pub(crate) fn policy(&self) -> Policy {
        use FailureClass::{DivergedHistory, Fatal, Fenced, Resync};
        match self {
            Self::Outage { of, .. } => of_component(*of),
            Self::InstanceTaken { instance, .. } => {
                Policy::wait(format!("instance {instance}"), Recovered::Database)
            }
            Self::Fenced => Policy::wait("lease", Recovered::Database).class(Fenced),
            Self::DatabaseChanged => Policy::wait("database", Recovered::Database).class(Resync),
            Self::Quarantine(_) => Policy::wait("quarantine", Recovered::Published).class(Resync),
            Self::Repartitioned { topic, .. } | Self::TopicLost { topic, .. } => of_topic(topic),
            Self::TopicClaimed(claimed) => of_topic(&claimed.by.topic),
            // Nothing else is done with Kafka before something is published.
            Self::Claims { topic, .. } => Policy::wait(format!("topic {topic}"), Recovered::Kafka),
            Self::Schema { schema, .. } => {
                Policy::wait(format!("schema {schema}"), Recovered::Published)
                    .quarantining(Cause::Schema)
            }
            Self::Kafka(failure) => of_kafka(failure),
            // The definition of a schema: no event that was written with it can be read.
            Self::Store(annals_store::Error::Unreadable { .. }) => {
                Policy::halt(Fatal).quarantining(Cause::Event)
            }
            Self::Diverged { .. } | Self::OtherStore { .. } => Policy::halt(DivergedHistory),
            Self::PublicationRefused(_)
            | Self::Checkpoint(_)
            | Self::Store(_)
            | Self::Shards(_)
            | Self::Delivery { .. }
            | Self::LaterGeneration { .. }
            | Self::NewGeneration
            | Self::CheckpointsLost { .. }
            | Self::CheckpointsOlder { .. }
            | Self::QuarantineLost { .. }
            | Self::Thread(_)
            | Self::Http(_)
            | Self::Stalled
            | Self::Panicked(_) => Policy::halt(Fatal),
        }
    }

    /// The topic that was refused when records were sent.
    pub(crate) fn refused_topic(&self) -> RefusedTopic<'_> {
        let Self::Kafka(failure) = self else { return RefusedTopic::None };
        match failure {
            KafkaFailure::Forbidden { topic, .. } if topic.is_empty() => RefusedTopic::Unknown,
            KafkaFailure::Forbidden { topic, .. } => RefusedTopic::Named(topic, failure),
            KafkaFailure::TopicMissing { .. }
            | KafkaFailure::TopicUnavailable { .. }
            | KafkaFailure::TopicUnfit { .. }
            | KafkaFailure::Outage { .. }
            | KafkaFailure::Refused { .. }
            | KafkaFailure::Fenced { .. }
            | KafkaFailure::Busy { .. }
            | KafkaFailure::Slow { .. }
            | KafkaFailure::UnknownOutcome { .. }
            | KafkaFailure::Settings { .. } => RefusedTopic::None,
        }
    }

    /// The consequence of this failure for the machine.
    pub(crate) fn class(&self) -> FailureClass {
        self.policy().class
    }

    /// The entries to quarantine after a failure of class [`FailureClass::Resync`]; or the topics
    /// of records of which Kafka refused one without saying which.
    pub(crate) fn new_entries(self) -> Result<Vec<NewEntry>, BTreeSet<String>> {
        if let Self::Quarantine(entries) = self {
            return Ok(entries);
        }
        let Self::Kafka(failure) = self else { return Ok(Vec::new()) };
        match failure.refused() {
            Some(Refused::Event(entry)) => Ok(vec![entry]),
            Some(Refused::OneOf(topics)) => Err(topics),
            None => Ok(Vec::new()),
        }
    }
}

/// What Kafka refuses.
pub(crate) enum Refused {
    /// An event, which is to be quarantined.
    Event(NewEntry),
    /// One of several events, of these topics.
    OneOf(BTreeSet<String>),
}

impl KafkaFailure {
    /// The refused event or events, if it refuses any.
    pub(crate) fn refused(&self) -> Option<Refused> {
        let Self::Refused { records, reason } = self else { return None };
        if !are_events(records) {
            return None;
        }
        let [record] = &records[..] else {
            return Some(Refused::OneOf(records.iter().map(|of| of.topic.clone()).collect()));
        };
        Some(Refused::Event(NewEntry {
            kind: Kind::Stream,
            name: record.key.clone(),
            cause: Cause::Record,
            reason: reason.clone(),
            position: Some(record.position),
        }))
    }
}

/// The response to a failure of Kafka.
fn of_kafka(failure: &KafkaFailure) -> Policy {
    use FailureClass::{Fatal, Fenced, Resync, UnknownOutcome};
    match failure {
        KafkaFailure::TopicMissing { topic, .. }
        | KafkaFailure::TopicUnavailable { topic, .. }
        | KafkaFailure::TopicUnfit { topic, .. } => of_topic(topic),
        KafkaFailure::Forbidden { .. } => {
            Policy::wait("kafka", Recovered::Kafka).quarantining(Cause::Topic)
        }
        KafkaFailure::Outage { .. } | KafkaFailure::Busy { .. } | KafkaFailure::Slow { .. } => {
            Policy::wait("kafka", Recovered::Kafka)
        }
        // A refused checkpoint cannot be left out.
        KafkaFailure::Refused { records, .. } => Policy::wait("record", Recovered::Published)
            .class(if are_events(records) { Resync } else { FailureClass::Unavailable }),
        KafkaFailure::Fenced { .. } => Policy::wait("lease", Recovered::Kafka).class(Fenced),
        KafkaFailure::UnknownOutcome { .. } => {
            Policy::wait("kafka", Recovered::Kafka).class(UnknownOutcome)
        }
        KafkaFailure::Settings { .. } => Policy::wait("kafka", Recovered::Kafka).class(Fatal),
    }
}

fn of_component(of: Component) -> Policy {
    let policy = Policy::wait(of.to_string(), recovery_of(of));
    match of {
        Component::Registry => policy.quarantining(Cause::Registry),
        Component::Database | Component::Kafka | Component::Standby => policy,
    }
}

fn of_topic(topic: &str) -> Policy {
    Policy::wait(format!("topic {topic}"), Recovered::Published).quarantining(Cause::Topic)
}

fn recovery_of(component: Component) -> Recovered {
    match component {
        Component::Database => Recovered::Database,
        Component::Kafka => Recovered::Kafka,
        Component::Registry => Recovered::Published,
        Component::Standby => Recovered::OutboxRead,
    }
}

/// Whether all of these records are events.
fn are_events(records: &[RecordId]) -> bool {
    !records.is_empty() && records.iter().all(|record| record.position > Position::ORIGIN)
}
