//! Creation of topics by their plans.

use std::thread;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::kafka::topic_admin::{ByTopic, TopicAdmin};
use crate::kafka::topic_plan::{TopicFacts, TopicPlan};
use crate::model::offsets::Ends;
use crate::report::kafka_failure::KafkaFailure;

/// The longest time until every broker has the metadata of a new topic.
const NEWS_DELAY_MAX: Duration = Duration::from_secs(5);
/// The pause between two questions for it.
const PAUSE: Duration = Duration::from_millis(20);

/// Creates a topic by its plan unless it exists, and returns its properties. Blocks.
///
/// # Errors
/// [`KafkaFailure::TopicMissing`] with the command that creates it, when the relay may not;
/// [`KafkaFailure::TopicUnfit`] when Kafka will not create it so; [`KafkaFailure::Outage`].
pub fn ensure_topic(config: &Config, plan: &TopicPlan) -> Result<TopicFacts, KafkaFailure> {
    ensure_topic_at(&TopicAdmin::open(config)?, config, plan)
}

/// The same over existing connections.
pub(crate) fn ensure_topic_at(
    admin: &TopicAdmin,
    config: &Config,
    plan: &TopicPlan,
) -> Result<TopicFacts, KafkaFailure> {
    let found = admin.partitions_of(&[&plan.name])?;
    let plans = std::slice::from_ref(plan);
    let mut made = ensure_topics(admin, &config.kafka.bootstrap_servers, plans, &found)?;
    made.remove(&plan.name).unwrap_or_else(|| Err(without_metadata(&plan.name)))
}

/// Creates many topics by their plans, those excepted that exist (`found`), and returns the result
/// for each. One request for the creation, one for the metadata, one for the settings. Blocks.
///
/// # Errors
/// [`KafkaFailure`] when Kafka does not answer: some topics may have been created.
pub(crate) fn ensure_topics(
    admin: &TopicAdmin,
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
                // A topic may exist and not be listed: asked for it by name, the broker returns its
                // error.
                match admin.partitions(&plan.name) {
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
    let made = make(admin, &missing)?;
    for (topic, made) in made {
        match made {
            Ok(partitions) => drop(there.insert(topic, partitions)),
            Err(failure) => drop(refused.insert(topic, failure)),
        }
    }
    let names: Vec<&str> = there.keys().map(String::as_str).collect();
    let mut settings = if names.is_empty() { ByTopic::new() } else { admin.describe(&names)? };
    let is_new = |name: &str| missing.iter().any(|plan| plan.name == name);
    let facts = plans.iter().filter_map(|plan| {
        let partitions = *there.get(&plan.name)?;
        let settings = settings.remove(&plan.name).unwrap_or_default();
        let facts = plan.facts(partitions, admin.replicas(&plan.name), &settings);
        let facts = TopicFacts { created: is_new(&plan.name), ..facts };
        Some((plan.name.clone(), Ok(facts)))
    });
    let mut all: ByTopic<_> = facts.collect();
    all.extend(refused.into_iter().map(|(topic, failure)| (topic, Err(failure))));
    Ok(all)
}

/// Creates topics, and waits until the brokers have their metadata; returns the partition count of
/// each.
fn make(
    admin: &TopicAdmin,
    plans: &[&TopicPlan],
) -> Result<ByTopic<Result<i32, KafkaFailure>>, KafkaFailure> {
    if plans.is_empty() {
        return Ok(ByTopic::new());
    }
    let mut made = ByTopic::new();
    let mut open: Vec<String> = Vec::new();
    for (topic, result) in admin.create(plans)? {
        match result {
            Ok(()) => open.push(topic),
            Err(failure) => drop(made.insert(topic, Err(failure))),
        }
    }
    let deadline = Instant::now() + NEWS_DELAY_MAX;
    while !open.is_empty() {
        let names: Vec<&str> = open.iter().map(String::as_str).collect();
        let is_late = Instant::now() >= deadline;
        for (topic, found) in admin.partitions_of(&names)? {
            // The leader may not be elected yet.
            if found.is_ok() || is_late {
                made.insert(topic, found);
            }
        }
        open.retain(|topic| !made.contains_key(topic));
        if is_late {
            made.extend(open.drain(..).map(|topic| (topic.clone(), Err(without_metadata(&topic)))));
        }
        if !open.is_empty() {
            thread::sleep(PAUSE);
        }
    }
    Ok(made)
}

/// The first and the end offset of each of these partitions, once they have leaders: those of a new
/// topic have none at first, or none that knows of it.
pub(crate) fn ends_once_led(
    admin: &TopicAdmin,
    topic: &str,
    partitions: &[u16],
) -> Result<Ends, KafkaFailure> {
    let deadline = Instant::now() + NEWS_DELAY_MAX;
    loop {
        match admin.ends(topic, partitions) {
            Err(failure) if failure.is_outage() && Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            ends => return ends,
        }
    }
}

fn without_metadata(topic: &str) -> KafkaFailure {
    let reason = format!("{topic} was created, and no broker has its metadata yet");
    KafkaFailure::Outage { action: "create a topic", reason }
}
