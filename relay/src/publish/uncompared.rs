//! Topics whose records could not be compared with the store, since they could not be read: their
//! categories wait in quarantine until they are.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::kafka::topic_admin::ByTopic;
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;
use crate::report::threads::locked;

/// The topics to which nothing is published yet. All readers of a process share them.
#[derive(Debug, Default)]
pub(crate) struct UncomparedTopics(Mutex<UncomparedState>);

#[derive(Debug, Default)]
struct UncomparedState {
    /// The topics, with the reason why they could not be read.
    topics: ByTopic<KafkaFailure>,
    /// The result of a later comparison, if it ends the publication.
    refusal: Option<Failure>,
}

impl UncomparedTopics {
    /// Replaces them after a comparison.
    pub(crate) fn replace(&self, topics: ByTopic<KafkaFailure>) {
        *locked(&self.0) = UncomparedState { topics, refusal: None };
    }

    /// A later comparison has found that nothing may be published any more.
    pub(crate) fn refuse(&self, refusal: Failure) {
        locked(&self.0).refusal = Some(refusal);
    }

    /// Why nothing may be published any more. Returned once.
    pub(super) fn refused(&self) -> Option<Failure> {
        locked(&self.0).refusal.take()
    }

    /// Why nothing may be published to a topic.
    pub(super) fn failure(&self, topic: &str) -> Option<Failure> {
        locked(&self.0).topics.get(topic).cloned().map(Failure::Kafka)
    }

    /// Their names.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        locked(&self.0).topics.keys().cloned().collect()
    }
}
