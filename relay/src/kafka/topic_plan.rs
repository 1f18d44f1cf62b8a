//! How topics should be: what they are created with, and what is wrong with those found.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{self, Config};
use crate::kafka::{ByTopic, Desk};
use crate::kafka_failure::KafkaFailure;

/// What keeps a topic of events whole, whatever the broker's defaults are.
const EVENTS: [(&str, &str, &str); 4] = [
    ("cleanup.policy", "delete", "compaction keeps only the last event of each stream"),
    (
        "retention.ms",
        "-1",
        "events have their own time: old ones are deleted as soon as they arrive",
    ),
    ("retention.bytes", "-1", "the oldest events are deleted when the topic grows"),
    (
        "message.timestamp.type",
        "CreateTime",
        "records lose the time at which their event was recorded",
    ),
];

/// Checkpoints: the last one of each shard is kept; small segments, so that the others do go.
const CHECKPOINTS: [(&str, &str, &str); 2] = [
    (
        "cleanup.policy",
        "compact",
        "a checkpoint can be deleted, and then everything is published again",
    ),
    ("segment.bytes", "16777216", "old checkpoints are kept for long"),
];

/// Claims: the last record of each key is kept.
const CLAIMS: [(&str, &str, &str); 2] = [
    (
        "cleanup.policy",
        "compact",
        "a claim can be deleted, and then two stores can publish into one topic",
    ),
    ("segment.bytes", "16777216", "old claims are kept for long"),
];

/// Brokers hear of a new topic one after the other, the last one after so long.
const NEWS_DELAY_MAX: Duration = Duration::from_secs(5);

/// How one topic should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// How many partitions it is created with.
    pub partitions: i32,
    /// On how many brokers; -1 is the brokers' default.
    pub replication_factor: i32,
    /// Its settings.
    pub settings: BTreeMap<String, String>,
    /// Whether it may be created.
    pub create: bool,
}

/// A setting of a topic that is not as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The setting.
    pub setting: String,
    /// How it is.
    pub found: String,
    /// How it should be.
    pub planned: String,
    /// What comes of it.
    pub consequence: &'static str,
}

/// A topic as it was found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFacts {
    /// How many partitions it has: a stream's order stands on their number.
    pub partitions: i32,
    /// The largest batch it takes, in bytes, if the broker lets us know.
    pub batch_bytes_max: Option<usize>,
    /// What is not as planned. Empty as well where the broker does not show its settings.
    pub differences: Vec<Difference>,
    /// Whether it was not there before.
    pub created: bool,
}

impl TopicPlan {
    /// A topic of events by the declared policy.
    #[must_use]
    pub fn events(topics: &config::Topics, name: &str) -> Self {
        let mut settings = settings(&EVENTS);
        settings.extend(topics.config.clone());
        Self {
            name: name.to_owned(),
            partitions: topics.partitions.get().into(),
            replication_factor: topics.replication_factor,
            settings,
            create: topics.create,
        }
    }

    /// The topic of a deployment's checkpoints: one partition for each shard, so that nobody else's
    /// open transaction can hide one.
    #[must_use]
    pub fn checkpoints(topics: &config::Topics, name: &str, shards: u16) -> Self {
        Self {
            name: name.to_owned(),
            partitions: shards.into(),
            replication_factor: topics.replication_factor,
            settings: settings(&CHECKPOINTS),
            create: topics.create,
        }
    }

    /// The topic of claims: one partition, so that of two claims all readers see the same one first.
    #[must_use]
    pub fn claims(topics: &config::Topics) -> Self {
        Self {
            name: topics.claims.clone(),
            partitions: 1,
            replication_factor: topics.replication_factor,
            settings: settings(&CLAIMS),
            create: topics.create,
        }
    }

    /// What is not as planned in the settings that were found. Those not found are not judged.
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

    /// What is known of the topic, from its settings.
    pub(crate) fn facts(
        &self,
        partitions: i32,
        found: &BTreeMap<String, String>,
        created: bool,
    ) -> TopicFacts {
        let batch_bytes_max = found.get("max.message.bytes").and_then(|bytes| bytes.parse().ok());
        TopicFacts { partitions, batch_bytes_max, differences: self.differences(found), created }
    }

    /// Refuses a topic that checkpoints could get lost in.
    pub(crate) fn fits(&self, facts: &TopicFacts) -> Result<(), KafkaFailure> {
        let unfit = |reason| Err(KafkaFailure::TopicUnfit { topic: self.name.clone(), reason });
        if facts.partitions != self.partitions {
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

    /// What to say when the topic is not there and may not be created.
    pub(crate) fn missing(&self, bootstrap_servers: &str) -> KafkaFailure {
        let command = self.command(bootstrap_servers);
        let reason =
            format!("it does not exist, and topics.create is off; this creates it: {command}");
        KafkaFailure::TopicMissing { topic: self.name.clone(), reason }
    }

    fn consequence(&self, setting: &str) -> &'static str {
        let planned = self.settings.get(setting).map(String::as_str);
        let known = EVENTS.iter().chain(&CHECKPOINTS).chain(&CLAIMS);
        known
            .filter(|(name, value, _)| *name == setting && planned == Some(*value))
            .map(|(_, _, consequence)| *consequence)
            .next()
            .unwrap_or("it is not as declared in [topics] config")
    }
}

/// Makes sure that a topic is there, by its plan, and says how it is. Blocks.
///
/// # Errors
/// [`KafkaFailure::TopicMissing`] with the command that creates it, when the relay may not;
/// [`KafkaFailure::TopicUnfit`] when Kafka will not create it so; [`KafkaFailure::Outage`].
pub fn ensure_topic(config: &Config, plan: &TopicPlan) -> Result<TopicFacts, KafkaFailure> {
    ensure_topic_at(&Desk::open(config)?, config, plan)
}

/// The same over connections that are there.
pub(crate) fn ensure_topic_at(
    desk: &Desk,
    config: &Config,
    plan: &TopicPlan,
) -> Result<TopicFacts, KafkaFailure> {
    let found = desk.partitions_of(&[&plan.name])?;
    let plans = std::slice::from_ref(plan);
    let mut made = ensure_topics(desk, &config.kafka.bootstrap_servers, plans, &found)?;
    made.remove(&plan.name).unwrap_or_else(|| Err(unheard_of(&plan.name)))
}

/// Makes sure of many topics at once, by what was found of them; each on its own succeeds or not. A request for each of:
/// making, looking whether every broker knows, and reading the settings. Blocks.
///
/// # Errors
/// [`KafkaFailure`] where Kafka does not answer: what was made until then is there.
pub(crate) fn ensure_topics(
    desk: &Desk,
    bootstrap_servers: &str,
    plans: &[TopicPlan],
    found: &ByTopic<Result<i32, KafkaFailure>>,
) -> Result<ByTopic<Result<TopicFacts, KafkaFailure>>, KafkaFailure> {
    let (mut there, mut refused) = (ByTopic::new(), ByTopic::new());
    let mut missing: Vec<&TopicPlan> = Vec::new();
    for plan in plans {
        match found.get(&plan.name) {
            Some(Ok(partitions)) => drop(there.insert(plan.name.clone(), *partitions)),
            Some(Err(_)) | None if !plan.create || found.contains_key(&plan.name) => {
                // What is not among many may be there and not shown: asked for by name, the broker says so.
                match desk.partitions(&plan.name) {
                    Ok(Some(partitions)) => drop(there.insert(plan.name.clone(), partitions)),
                    Ok(None) => {
                        refused.insert(plan.name.clone(), plan.missing(bootstrap_servers));
                    }
                    Err(failure) if failure.is_outage() => return Err(failure),
                    Err(failure) => drop(refused.insert(plan.name.clone(), failure)),
                }
            }
            Some(Err(_)) | None => missing.push(plan),
        }
    }
    let made = make(desk, &missing)?;
    for (topic, made) in made {
        match made {
            Ok(partitions) => drop(there.insert(topic, partitions)),
            Err(failure) => drop(refused.insert(topic, failure)),
        }
    }
    let names: Vec<&str> = there.keys().map(String::as_str).collect();
    let mut settings = if names.is_empty() { ByTopic::new() } else { desk.describe(&names)? };
    let is_new = |name: &str| missing.iter().any(|plan| plan.name == name);
    let facts = plans.iter().filter_map(|plan| {
        let partitions = *there.get(&plan.name)?;
        let settings = settings.remove(&plan.name).unwrap_or_default();
        Some((plan.name.clone(), Ok(plan.facts(partitions, &settings, is_new(&plan.name)))))
    });
    let mut all: ByTopic<_> = facts.collect();
    all.extend(refused.into_iter().map(|(topic, failure)| (topic, Err(failure))));
    Ok(all)
}

/// Makes topics, and waits until the brokers know them; how many partitions each has.
fn make(
    desk: &Desk,
    plans: &[&TopicPlan],
) -> Result<ByTopic<Result<i32, KafkaFailure>>, KafkaFailure> {
    if plans.is_empty() {
        return Ok(ByTopic::new());
    }
    let mut made = ByTopic::new();
    let mut open: Vec<String> = Vec::new();
    for (topic, result) in desk.create(plans)? {
        match result {
            Ok(()) => open.push(topic),
            Err(failure) => drop(made.insert(topic, Err(failure))),
        }
    }
    let deadline = Instant::now() + NEWS_DELAY_MAX;
    while !open.is_empty() {
        let names: Vec<&str> = open.iter().map(String::as_str).collect();
        let is_late = Instant::now() >= deadline;
        for (topic, found) in desk.partitions_of(&names)? {
            // A leader may still be chosen.
            if found.is_ok() || is_late {
                made.insert(topic, found);
            }
        }
        open.retain(|topic| !made.contains_key(topic));
        if is_late {
            made.extend(open.drain(..).map(|topic| (topic.clone(), Err(unheard_of(&topic)))));
        }
        if !open.is_empty() {
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(made)
}

fn unheard_of(topic: &str) -> KafkaFailure {
    let reason = format!("{topic} was created, and no broker knows of it yet");
    KafkaFailure::Outage { action: "create a topic", reason }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, found, planned, consequence } = self;
        write!(f, "{setting} is {found}, not {planned}: {consequence}")
    }
}

fn settings(known: &[(&str, &str, &str)]) -> BTreeMap<String, String> {
    known.iter().map(|(name, value, _)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
                "retention.ms is 604800000, not -1: events have their own time: old ones are deleted as soon as they arrive",
            ]
        );
    }

    #[test]
    fn the_command_creates_what_the_relay_would() {
        let plan = TopicPlan::checkpoints(&topics(), "annals.checkpoints", 8);
        assert_eq!(
            plan.command("kafka:9092"),
            "kafka-topics.sh --bootstrap-server kafka:9092 --create --topic annals.checkpoints --partitions 8 \
             --config cleanup.policy=compact --config segment.bytes=16777216"
        );
    }
}
