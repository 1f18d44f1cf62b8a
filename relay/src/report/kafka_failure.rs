//! What can go wrong with Kafka, sorted by what the relay does about it.

/// A failure of Kafka. A producer that failed may have failed for good: make another one, which fences
/// it. After [`Refused`](Self::Refused) it can be asked to abort instead, and goes on if it does.
#[derive(Debug, thiserror::Error)]
pub enum KafkaFailure {
    /// Nobody answers, or not to us: brokers away, too few replicas, no permission, a producer that has
    /// failed for good. Nothing is in doubt. Wait and begin again.
    #[error("cannot {action}: {reason}")]
    Outage {
        /// What was tried: verb and object.
        action: &'static str,
        /// What Kafka's client says, and what it last heard of the brokers.
        reason: String,
    },
    /// Kafka will not take a record, however often it is sent: its stream has to wait for a person.
    #[error("kafka refuses {}: {reason}", named(suspects))]
    Refused {
        /// The records of the refused batch, the first ones if there are very many. With a single one
        /// that is the culprit; a batch that is too large does not say which record made it so.
        suspects: Vec<RecordId>,
        /// What the broker says.
        reason: String,
    },
    /// The topic is not there, or lacks the partition.
    #[error("topic {topic} cannot be written to: {reason}")]
    TopicMissing {
        /// The topic.
        topic: String,
        /// What the broker says; if the relay may not create it, the command that does.
        reason: String,
    },
    /// The topic is there, and not as the relay needs it: only a person can change that.
    #[error("topic {topic} cannot be used: {reason}")]
    TopicUnfit {
        /// The topic.
        topic: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The relay's user may not do this with the topic.
    #[error("cannot {action}{}: {reason}", of(topic))]
    Forbidden {
        /// What was tried.
        action: &'static str,
        /// The topic.
        topic: String,
        /// What the broker says.
        reason: String,
    },
    /// Another producer has taken over the transactional id. Look who holds the lease.
    #[error("cannot {action}: another producer has taken over: {reason}")]
    Fenced {
        /// What was tried.
        action: &'static str,
        /// What Kafka's client says.
        reason: String,
    },
    /// The broker may have done it or not. Make the producer again, then read the checkpoints.
    #[error("no telling whether it was done to {action}: {reason}")]
    UnknownOutcome {
        /// What was tried.
        action: &'static str,
        /// What Kafka's client says.
        reason: String,
    },
    /// The settings are wrong, by librdkafka or by the broker.
    #[error("the settings in [kafka] cannot be used: {reason}")]
    Settings {
        /// Which one and why.
        reason: String,
    },
}

impl KafkaFailure {
    /// Whether waiting is all that can be done.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Outage { .. })
    }

    /// The same failure of a call that may have had its effect all the same. Whoever is fenced finds out
    /// anyway.
    pub(crate) fn in_doubt(self, action: &'static str) -> Self {
        match self {
            Self::Fenced { action, reason } => Self::Fenced { action, reason },
            other @ (Self::Outage { .. }
            | Self::Refused { .. }
            | Self::TopicMissing { .. }
            | Self::TopicUnfit { .. }
            | Self::Forbidden { .. }
            | Self::UnknownOutcome { .. }
            | Self::Settings { .. }) => Self::UnknownOutcome { action, reason: other.to_string() },
        }
    }

    /// The same failure, with the topic and the records that it is about.
    pub(crate) fn about(self, of: &str, records: Vec<RecordId>) -> Self {
        match self {
            Self::Refused { reason, .. } => Self::Refused { suspects: records, reason },
            Self::TopicMissing { reason, .. } => {
                Self::TopicMissing { topic: of.to_owned(), reason }
            }
            Self::TopicUnfit { reason, .. } => Self::TopicUnfit { topic: of.to_owned(), reason },
            Self::Forbidden { action, reason, .. } => {
                Self::Forbidden { action, topic: of.to_owned(), reason }
            }
            other @ (Self::Outage { .. }
            | Self::Fenced { .. }
            | Self::UnknownOutcome { .. }
            | Self::Settings { .. }) => other,
        }
    }
}

/// Which record: enough to find its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordId {
    /// Its topic.
    pub topic: String,
    /// Its key: the stream.
    pub key: String,
    /// The event's position.
    pub position: i64,
}

fn of(topic: &str) -> String {
    if topic.is_empty() { String::new() } else { format!(" {topic}") }
}

fn named(suspects: &[RecordId]) -> String {
    match suspects {
        [] => "a record".to_owned(),
        [record] => format!("the event at position {} of stream {}", record.position, record.key),
        [first, .., last] => format!(
            "a batch of {} events of topic {}, positions {} to {}",
            suspects.len(),
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
        RecordId { topic: "flight".to_owned(), key: "flight-1".to_owned(), position }
    }

    #[test]
    fn a_refusal_names_the_event_or_the_batch() {
        let refused = |suspects| KafkaFailure::Refused { suspects, reason: "too large".to_owned() };
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
