//! Topic plans: the properties with which topics are created, and comparing existing topics with
//! them.

use std::collections::BTreeMap;
use std::fmt;

use crate::config;
use crate::kafka::topic_risks::{Risk, risks};
use crate::report::kafka_failure::KafkaFailure;

/// The settings that keep a topic of events complete under any defaults of the broker.
const EVENTS: [(&str, &str, &str); 4] = [
    ("cleanup.policy", "delete", "compaction keeps only the last event of each stream"),
    (
        "retention.ms",
        "-1",
        "records have the time of their event: old events are deleted as soon as they arrive",
    ),
    ("retention.bytes", "-1", "the oldest events are deleted when the topic grows"),
    (
        "message.timestamp.type",
        "CreateTime",
        "records lose the time at which their event was recorded",
    ),
];

/// The most topics in one request, and the most partitions that they may have in total.
pub(crate) const REQUEST_TOPICS_MAX: usize = 100;
const REQUEST_PARTITIONS_MAX: usize = 1_200;

/// The number of topics that are created in one request.
pub(crate) fn topics_per_request(topics: &config::Topics) -> usize {
    let size = REQUEST_PARTITIONS_MAX / usize::from(topics.partitions.get());
    size.clamp(1, REQUEST_TOPICS_MAX)
}

/// The size of segments of compacted topics: small, so that earlier records are compacted soon.
/// Some services refuse smaller ones (Confluent Cloud: 50 MiB).
const SEGMENT_BYTES: &str = "52428800";

/// Checkpoints: the last one of each shard stays.
const CHECKPOINTS: [(&str, &str, &str); 2] = [
    (
        "cleanup.policy",
        "compact",
        "a checkpoint can be deleted, and then all events are published again",
    ),
    ("segment.bytes", SEGMENT_BYTES, "old checkpoints are compacted late"),
];

/// Claims: the last record of each key stays.
const CLAIMS: [(&str, &str, &str); 2] = [
    (
        "cleanup.policy",
        "compact",
        "a claim can be deleted, and then two stores can publish to one topic",
    ),
    ("segment.bytes", SEGMENT_BYTES, "old claims are compacted late"),
];

/// The properties of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// Its partition count at creation.
    pub partitions: i32,
    /// Its replication factor; -1 is the brokers' default.
    pub replication_factor: i32,
    /// Its settings.
    pub settings: BTreeMap<String, String>,
    /// Whether it may be created.
    pub create: bool,
}

/// A setting of a topic that differs from the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The setting.
    pub setting: String,
    /// Its value.
    pub found: String,
    /// Its planned value.
    pub planned: String,
    /// The consequence.
    pub consequence: &'static str,
}

/// The properties of an existing topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFacts {
    /// Its partition count: the order of streams depends on it.
    pub partitions: i32,
    /// The largest batch that it takes, in bytes, if the broker returns that.
    pub batch_bytes_max: Option<usize>,
    /// The settings that differ from the plan. Empty as well if the broker does not return the
    /// settings.
    pub differences: Vec<Difference>,
    /// The settings with which Kafka loses or refuses events, and its replicas if it has one.
    pub risks: Vec<Risk>,
    /// Whether the relay has just created it.
    pub created: bool,
}

impl TopicPlan {
    /// A topic of events by the configured policy.
    #[must_use]
    pub fn events(topics: &config::Topics, name: &str) -> Self {
        let mut settings = settings(&EVENTS);
        settings.extend(topics.config.clone());
        let category = name.strip_prefix(&*topics.prefix).unwrap_or(name);
        let own = topics.categories.get(category).cloned().unwrap_or_default();
        settings.extend(own.config);
        Self {
            name: name.to_owned(),
            partitions: own.partitions.unwrap_or(topics.partitions).get().into(),
            replication_factor: own.replication_factor.unwrap_or(topics.replication_factor),
            settings,
            create: topics.create,
        }
    }

    /// The topic of a deployment's checkpoints: one partition for each shard, so that no other
    /// owner's open transaction can hide one.
    #[must_use]
    pub fn checkpoints(topics: &config::Topics, name: &str, shards: u16) -> Self {
        Self {
            name: name.to_owned(),
            partitions: shards.into(),
            replication_factor: topics.replication_factor,
            settings: compacted(&CHECKPOINTS, topics),
            create: topics.create,
        }
    }

    /// The topic of claims: one partition, so that all readers see the claims in the same order.
    #[must_use]
    pub fn claims(topics: &config::Topics) -> Self {
        Self {
            name: topics.claims.clone(),
            partitions: 1,
            replication_factor: topics.replication_factor,
            settings: compacted(&CLAIMS, topics),
            create: topics.create,
        }
    }

    /// The topic with the progress of a deployment's replays: one partition.
    #[must_use]
    pub(crate) fn replays(topics: &config::Topics, name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::claims(topics) }
    }

    /// The settings returned by the broker that differ from the plan.
    #[must_use]
    pub fn differences(&self, found: &BTreeMap<String, String>) -> Vec<Difference> {
        let differs = |(setting, planned): (&String, &String)| {
            let found = found.get(setting)?;
            (found != planned).then(|| Difference {
                setting: setting.clone(),
                found: found.clone(),
                planned: planned.clone(),
                consequence: self.consequence(setting),
            })
        };
        self.settings.iter().filter_map(differs).collect()
    }

    /// The properties of the topic, from its metadata and its settings.
    pub(crate) fn facts(
        &self,
        partitions: i32,
        replicas: Option<usize>,
        found: &BTreeMap<String, String>,
    ) -> TopicFacts {
        let batch_bytes_max = found.get("max.message.bytes").and_then(|bytes| bytes.parse().ok());
        let differences = self.differences(found);
        let risks = risks(replicas, found);
        TopicFacts { partitions, batch_bytes_max, differences, risks, created: false }
    }

    /// Refuses a topic in which checkpoints could be lost.
    pub(crate) fn fits(&self, facts: &TopicFacts) -> Result<(), KafkaFailure> {
        let unfit = |reason| Err(KafkaFailure::TopicUnfit { topic: self.name.clone(), reason });
        // Those that were added stay empty.
        if facts.partitions < self.partitions {
            let (found, shards) = (facts.partitions, self.partitions);
            return unfit(format!(
                "it has {found} partitions, and must have one for each of the {shards} shards"
            ));
        }
        match facts.differences.iter().find(|difference| difference.setting == "cleanup.policy") {
            Some(difference) => unfit(difference.to_string()),
            None => Ok(()),
        }
    }

    /// The command that creates the topic.
    #[must_use]
    pub fn command(&self, bootstrap_servers: &str) -> String {
        let settings: String =
            self.settings.iter().map(|(name, value)| format!(" --config {name}={value}")).collect();
        let replication = match self.replication_factor {
            -1 => String::new(),
            factor => format!(" --replication-factor {factor}"),
        };
        format!(
            "kafka-topics.sh --bootstrap-server {bootstrap_servers} --create --topic {} --partitions {}{replication}{settings}",
            self.name, self.partitions
        )
    }

    /// The failure of a topic that does not exist and may not be created.
    pub(crate) fn missing(&self, bootstrap_servers: &str) -> KafkaFailure {
        let command = self.command(bootstrap_servers);
        let reason = format!("it does not exist, and topics.create is off; create it: {command}");
        KafkaFailure::TopicMissing { topic: self.name.clone(), reason }
    }

    /// The same failure; if the brokers refuse the topic's properties, with these.
    pub(crate) fn refused(&self, failure: KafkaFailure) -> KafkaFailure {
        let KafkaFailure::TopicUnfit { topic, reason } = failure else { return failure };
        let settings: String =
            self.settings.iter().map(|(name, value)| format!("{name}={value}, ")).collect();
        let factor = self.replication_factor;
        let reason = format!(
            "{reason}: asked for {settings}replication factor {factor}; \
             [topics] config and replication_factor can say otherwise"
        );
        KafkaFailure::TopicUnfit { topic, reason }
    }

    fn consequence(&self, setting: &str) -> &'static str {
        let planned = self.settings.get(setting).map(String::as_str);
        let known = EVENTS.iter().chain(&CHECKPOINTS).chain(&CLAIMS);
        known
            .filter(|(name, value, _)| *name == setting && planned == Some(*value))
            .map(|(_, _, consequence)| *consequence)
            .next()
            .unwrap_or("it differs from [topics] config")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, found, planned, consequence } = self;
        write!(f, "{setting} is {found}, not {planned}: {consequence}")
    }
}

/// The settings of a compacted topic: the configured ones of topics of events, without those that
/// say how long these keep events.
fn compacted(known: &[(&str, &str, &str)], topics: &config::Topics) -> BTreeMap<String, String> {
    let mut planned = settings(known);
    let is_kept =
        |name: &str| name != "cleanup.policy" && !EVENTS.iter().any(|(of, _, _)| *of == name);
    let configured = topics.config.iter().filter(|(name, _)| is_kept(name));
    planned.extend(configured.map(|(name, value)| (name.clone(), value.clone())));
    planned
}

fn settings(known: &[(&str, &str, &str)]) -> BTreeMap<String, String> {
    known.iter().map(|(name, value, _)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn topics() -> config::Topics {
        Config::example().topics
    }

    #[test]
    fn what_was_declared_wins_over_the_defaults() {
        let declared = [("retention.ms".to_owned(), "1000".to_owned())].into();
        let plan = TopicPlan::events(&config::Topics { config: declared, ..topics() }, "flight");
        assert_eq!(plan.settings["retention.ms"], "1000");
        assert_eq!(plan.settings["cleanup.policy"], "delete");
        assert!(plan.differences(&plan.settings).is_empty());
    }

    #[test]
    fn topics_of_checkpoints_and_claims_have_what_was_declared_and_stay_compacted() {
        let declared = [
            ("min.insync.replicas", "2"),
            ("segment.bytes", "104857600"),
            ("cleanup.policy", "compact,delete"),
            ("retention.ms", "1000"),
        ];
        let declared = declared.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let topics = config::Topics { config: declared, ..topics() };
        for plan in [TopicPlan::checkpoints(&topics, "checkpoints", 8), TopicPlan::claims(&topics)]
        {
            let expected = [
                ("cleanup.policy", "compact"),
                ("min.insync.replicas", "2"),
                ("segment.bytes", "104857600"),
            ];
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(plan.settings, expected.into());
        }
    }

    #[test]
    fn a_topic_that_loses_events_is_told_apart_with_what_comes_of_it() {
        let mut found = TopicPlan::events(&topics(), "flight").settings;
        found.insert("retention.ms".to_owned(), "604800000".to_owned());
        found.insert("cleanup.policy".to_owned(), "compact".to_owned());
        let differences = TopicPlan::events(&topics(), "flight").differences(&found);
        let said: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "cleanup.policy is compact, not delete: compaction keeps only the last event of each stream",
                "retention.ms is 604800000, not -1: records have the time of their event: old events are deleted as soon as they arrive",
            ]
        );
    }

    #[test]
    fn the_command_creates_what_the_relay_would() {
        let plan = TopicPlan::checkpoints(&topics(), "annals.checkpoints", 8);
        assert_eq!(
            plan.command("kafka:9092"),
            "kafka-topics.sh --bootstrap-server kafka:9092 --create --topic annals.checkpoints --partitions 8 \
             --config cleanup.policy=compact --config segment.bytes=52428800"
        );
    }
}
