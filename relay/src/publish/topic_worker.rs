//! The work on topics in Kafka, one piece at a time, over connections that stay open.

use std::sync::{Arc, Mutex};

use crate::config::Config;
use crate::kafka::claims_topic::ClaimsTopic;
use crate::kafka::topic_admin::{ByTopic, TopicAdmin};
use crate::kafka::topic_plan::{TopicFacts, TopicPlan};
use crate::kafka::topic_setup::ensure_topics;
use crate::model::message::Destination;
use crate::model::offsets::{Partitions, RecordOffset, TopicEnds};
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;
use crate::report::threads::{in_a_thread, locked};

/// The connection to Kafka, and the claims.
pub(super) struct Worker(Arc<Mutex<Connected>>);

struct Connected {
    admin: Option<TopicAdmin>,
    claims: ClaimsTopic,
}

/// The topics that have lost records, by the recorded ends of their partitions.
fn lost(
    admin: &TopicAdmin,
    found: &FoundPartitions,
    records: &TopicEnds,
) -> Result<ByTopic<Failure>, Failure> {
    let partitions = records.keys().filter(|(topic, _)| found.contains_key(topic));
    let partitions: Partitions =
        partitions.map(|(topic, number)| (topic.as_str().into(), *number)).collect();
    let ends = admin.end_offsets(&partitions)?;
    let mut lost: ByTopic<(bool, u64)> = ByTopic::new();
    for (partition @ (topic, _), recorded) in records {
        let end = match (ends.get(partition), found.contains_key(topic)) {
            (Some(end), _) => *end,
            // Its end is unknown at the moment.
            (None, true) => continue,
            // A broker leaves out of a list the topics that the relay may not describe.
            (None, false) => match admin.partitions(topic) {
                Ok(None) => RecordOffset::default(),
                Ok(Some(_)) | Err(_) => continue,
            },
        };
        if end < *recorded {
            let (_, records) = lost.entry(topic.clone()).or_insert((found.contains_key(topic), 0));
            *records += recorded.since(end);
        }
    }
    let failure = |(topic, (exists, lost)): (String, (bool, u64))| {
        (topic.clone(), Failure::TopicLost { topic, exists, lost })
    };
    Ok(lost.into_iter().map(failure).collect())
}

/// The partition counts of existing topics.
pub(super) type FoundPartitions = ByTopic<Result<i32, KafkaFailure>>;

impl Worker {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        let claims = ClaimsTopic::new(config);
        Self(Arc::new(Mutex::new(Connected { admin: None, claims })))
    }

    /// Claims topics, and finds which of them exist; also returns those that another publication
    /// claims or that have lost records, with the reason.
    pub(super) async fn claim_and_find(
        &self,
        config: &Arc<Config>,
        topics: Vec<String>,
        records: TopicEnds,
    ) -> Result<(FoundPartitions, ByTopic<Failure>), Failure> {
        self.in_a_thread(config, move |admin, claims| {
            let mut refused = claims.claim(admin, &topics)?;
            let free = topics.iter().filter(|topic| !refused.contains_key(*topic));
            let free: Vec<&str> = free.map(String::as_str).collect();
            let found = if free.is_empty() {
                FoundPartitions::new()
            } else {
                admin.partitions_of(&free)?
            };
            refused.extend(lost(admin, &found, &records)?);
            Ok((found, refused))
        })
        .await
    }

    /// Those of these topics that cannot be written to at the moment, with the reason.
    pub(super) async fn unavailable(
        &self,
        config: &Arc<Config>,
        topics: Vec<String>,
    ) -> Result<ByTopic<String>, Failure> {
        self.in_a_thread(config, move |admin, _claims| {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            Ok(admin.unavailable(&topics)?)
        })
        .await
    }

    /// Creates missing topics, and reads the settings of all of them.
    pub(super) async fn make(
        &self,
        config: &Arc<Config>,
        topics: Vec<String>,
        found: Arc<FoundPartitions>,
    ) -> Result<ByTopic<Result<TopicFacts, KafkaFailure>>, Failure> {
        let of = Arc::clone(config);
        self.in_a_thread(config, move |admin, _claims| {
            let plan = |topic: &String| TopicPlan::events(&of.topics, topic);
            let plans: Vec<TopicPlan> = topics.iter().map(plan).collect();
            Ok(ensure_topics(admin, &of.kafka.bootstrap_servers, &plans, &found)?)
        })
        .await
    }

    async fn in_a_thread<T: Send + 'static>(
        &self,
        config: &Arc<Config>,
        work: impl FnOnce(&TopicAdmin, &mut ClaimsTopic) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (connected, config) = (Arc::clone(&self.0), Arc::clone(config));
        in_a_thread("topics", move || {
            let mut connected = locked(&connected);
            let Connected { admin, claims } = &mut *connected;
            let kept = match admin.take() {
                Some(admin) => admin,
                None => TopicAdmin::open(&config)?,
            };
            let done = work(&kept, claims);
            // After a failure, the connections are replaced.
            *admin = done.is_ok().then_some(kept);
            done
        })
        .await
    }
}

/// The destination of a topic, unless it has lost partitions. Those that were added are not used:
/// each stream stays where it is.
pub(super) fn destination(
    topic: &str,
    recorded: i32,
    facts: &TopicFacts,
) -> Result<Destination, Failure> {
    let found = facts.partitions;
    if recorded > found {
        return Err(Failure::Repartitioned { topic: topic.to_owned(), recorded, found });
    }
    let batch_bytes_max = facts.batch_bytes_max;
    Ok(Destination { topic: topic.into(), partitions: recorded, batch_bytes_max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fewer_partitions_than_recorded_refuse_a_topic_and_added_ones_are_not_used() {
        let with = |partitions| {
            let (differences, risks) = (Vec::new(), Vec::new());
            let facts = TopicFacts {
                partitions,
                batch_bytes_max: None,
                differences,
                risks,
                created: false,
            };
            destination("account", 4, &facts).map(|to| to.partitions)
        };
        assert!(matches!(with(3), Err(Failure::Repartitioned { recorded: 4, found: 3, .. })));
        assert_eq!([4, 8].map(|partitions| with(partitions).unwrap()), [4, 4]);
    }
}
