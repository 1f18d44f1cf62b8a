//! Failures of Kafka, by the response of the relay.

use std::time::Duration;

use annals_store::Position;

/// A failure of Kafka. A producer that failed may have failed for good: make another one, which
/// fences it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KafkaFailure {
    /// Kafka is unavailable: brokers do not answer, replicas are too few, the credentials are
    /// refused, or the producer has failed for good. The operation had no effect.
    #[error("cannot {action}: {reason}")]
    Outage {
        /// The action that failed, as verb and object.
        action: &'static str,
        /// The client's error, with its last error of a broker.
        reason: String,
    },
    /// Kafka refuses a record, however often it is sent: the stream has to wait for an operator.
    #[error("kafka refuses {}: {reason}", named(records))]
    Refused {
        /// The records of the refused batch, the first thousand if there are more. A single one is
        /// the refused record; the broker does not say which record of a batch it refuses.
        records: Vec<RecordId>,
        /// The broker's error.
        reason: String,
    },
    /// The topic or the partition does not exist.
    #[error("topic {topic} cannot be written to: {reason}")]
    TopicMissing {
        /// The topic.
        topic: String,
        /// The broker's error; if the relay may not create it, the command that does.
        reason: String,
    },
    /// Partitions of the topic have no leader or too few replicas, while others can be written to.
    #[error("topic {topic} cannot be written to at the moment: {reason}")]
    TopicUnavailable {
        /// The topic.
        topic: String,
        /// The partition, and the missing replicas or leader.
        reason: String,
    },
    /// The topic does not have the properties that the relay needs: an operator has to change it.
    #[error("topic {topic} cannot be used: {reason}")]
    TopicUnfit {
        /// The topic.
        topic: String,
        /// The wrong property, and the right one.
        reason: String,
    },
    /// The relay's user may not do this with the topic.
    #[error("cannot {action}{}: {reason}", of(topic))]
    Forbidden {
        /// The action that failed.
        action: &'static str,
        /// The topic.
        topic: String,
        /// The broker's error.
        reason: String,
    },
    /// Another producer has taken over the transactional id: read the leases again.
    #[error("cannot {action}: another producer has fenced this one: {reason}")]
    Fenced {
        /// The action that failed.
        action: &'static str,
        /// The client's error.
        reason: String,
    },
    /// An earlier transaction of the transactional id does not end: a partition that it has written
    /// to has too few replicas, or no leader. The operation had no effect.
    #[error(
        "cannot {action}: a partition that its last transaction has written to has too few replicas or no leader, and the \
         transaction ends once it has them: {reason}"
    )]
    Busy {
        /// The action that failed.
        action: &'static str,
        /// The client's error.
        reason: String,
    },
    /// Kafka acknowledges so slowly that it could abort the transaction before it is committed: try
    /// a smaller one. Nothing of it is committed.
    #[error(
        "cannot send records: kafka acknowledged {acknowledged} in {} ms, and not all: trying with fewer",
        after.as_millis()
    )]
    Slow {
        /// The number of records that it has acknowledged.
        acknowledged: usize,
        /// The time since the transaction began.
        after: Duration,
    },
    /// The operation may have taken effect or not: make the producer again, then read the
    /// checkpoints.
    #[error("unknown whether this took effect: {action}: {reason}")]
    UnknownOutcome {
        /// The action that failed.
        action: &'static str,
        /// The client's error.
        reason: String,
    },
    /// librdkafka or the broker refuses the settings.
    #[error("the settings in [kafka] cannot be used: {reason}")]
    Settings {
        /// Which setting, and why.
        reason: String,
    },
}

impl KafkaFailure {
    /// Whether Kafka is unavailable.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Outage { .. })
    }

    /// The same failure of a call that may have taken effect. A fenced producer stays fenced,
    /// with any effect.
    pub(crate) fn in_doubt(self, action: &'static str) -> Self {
        match self {
            Self::Fenced { action, reason } => Self::Fenced { action, reason },
            other @ (Self::Outage { .. }
            | Self::Refused { .. }
            | Self::TopicMissing { .. }
            | Self::TopicUnavailable { .. }
            | Self::TopicUnfit { .. }
            | Self::Forbidden { .. }
            | Self::Busy { .. }
            | Self::Slow { .. }
            | Self::UnknownOutcome { .. }
            | Self::Settings { .. }) => Self::UnknownOutcome { action, reason: other.to_string() },
        }
    }

    /// The same failure, with its topic and its records.
    pub(crate) fn about(self, of: &str, records: Vec<RecordId>) -> Self {
        match self {
            Self::Refused { reason, .. } => Self::Refused { records, reason },
            Self::TopicMissing { reason, .. } => {
                Self::TopicMissing { topic: of.to_owned(), reason }
            }
            Self::TopicUnfit { reason, .. } => Self::TopicUnfit { topic: of.to_owned(), reason },
            Self::Forbidden { action, reason, .. } => {
                Self::Forbidden { action, topic: of.to_owned(), reason }
            }
            other @ (Self::Outage { .. }
            | Self::TopicUnavailable { .. }
            | Self::Fenced { .. }
            | Self::Busy { .. }
            | Self::Slow { .. }
            | Self::UnknownOutcome { .. }
            | Self::Settings { .. }) => other,
        }
    }

    /// The same failure of records of several topics: it is not known which topic was refused.
    pub(crate) fn about_some_topic(self) -> Self {
        match self {
            Self::Forbidden { action, reason, .. } => {
                Self::Forbidden { action, topic: String::new(), reason }
            }
            other => other,
        }
    }
}

/// The id of a record: enough to find its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordId {
    /// Its topic.
    pub topic: String,
    /// Its key: the stream.
    pub key: String,
    /// The event's position.
    pub position: Position,
}

fn of(topic: &str) -> String {
    if topic.is_empty() { String::new() } else { format!(" {topic}") }
}

fn named(records: &[RecordId]) -> String {
    match records {
        [] => "a record".to_owned(),
        [record] => format!("the event at position {} of stream {}", record.position, record.key),
        [first, .., last] => format!(
            "a batch of {} events of topic {}, positions {} to {}",
            records.len(),
            first.topic,
            first.position,
            last.position
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(position: i64) -> RecordId {
        let position = Position::new(position).unwrap_or(Position::ORIGIN);
        RecordId { topic: "flight".to_owned(), key: "flight-1".to_owned(), position }
    }

    #[test]
    fn a_refusal_names_the_event_or_the_batch() {
        let refused = |records| KafkaFailure::Refused { records, reason: "too large".to_owned() };
        assert_eq!(
            refused(vec![record(7)]).to_string(),
            "kafka refuses the event at position 7 of stream flight-1: too large"
        );
        assert_eq!(
            refused(vec![record(7), record(8), record(11)]).to_string(),
            "kafka refuses a batch of 3 events of topic flight, positions 7 to 11: too large"
        );
    }
}
