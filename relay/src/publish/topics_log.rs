//! Logs of topics: each difference once.

use crate::kafka::topic_plan::TopicFacts;
use crate::publish::topics::CategoryTopics;
use crate::report::failure::Failure;
use crate::report::threads::locked;

impl CategoryTopics {
    /// Logs once that a topic has lost records.
    pub(super) fn log_lost(&self, failure: &Failure) {
        let Failure::TopicLost { topic, exists, lost } = failure else { return };
        if locked(&self.state).reported.insert(failure.to_string()) {
            let (topic, lost) = (topic.as_str(), *lost);
            tracing::error!(event = "topic_lost", topic, exists, lost, "{failure}");
        }
    }

    /// Logs once that a topic has more partitions than are written to.
    pub(super) fn log_added(&self, topic: &str, recorded: i32, found: i32) {
        if found > recorded && locked(&self.state).reported.insert(format!("{topic}: {found}")) {
            tracing::warn!(
                event = "partitions_added",
                topic,
                found,
                recorded,
                "the topic has more partitions than when it was first published to: streams stay in the first \
                 {recorded}, the others stay empty"
            );
        }
    }

    pub(super) fn log(&self, topic: &str, facts: &TopicFacts) {
        if facts.created {
            tracing::info!(
                event = "topic_created",
                topic,
                partitions = facts.partitions,
                "created topic"
            );
        }
        for difference in &facts.differences {
            if locked(&self.state).reported.insert(format!("{topic}: {difference}")) {
                tracing::warn!(
                    event = "topic_differs",
                    topic,
                    setting = difference.setting,
                    found = difference.found,
                    planned = difference.planned,
                    "a setting of the topic differs from the plan: {}",
                    difference.consequence
                );
            }
        }
        for risk in &facts.risks {
            // Once for all topics with this value: most clusters have it for each of them.
            if locked(&self.state).reported.insert(format!("{}={}", risk.setting, risk.found)) {
                tracing::warn!(
                    event = "topic_at_risk",
                    topic,
                    setting = risk.setting,
                    found = risk.found,
                    safe = risk.safe,
                    "a setting of the topic loses or refuses events: {}",
                    risk.consequence
                );
            }
        }
    }
}
