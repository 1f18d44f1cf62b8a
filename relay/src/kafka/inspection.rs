//! Reads a cluster and its topics without changing anything.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::client::{BULK_TIMEOUT, EventContext, Result, create};
use crate::config::Config;
use crate::kafka::properties;
use crate::kafka::topic_plan::TopicPlan;
use crate::report::kafka_failure::KafkaFailure;

/// A cluster, as its brokers describe it.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    pub(crate) brokers: usize,
    /// The settings of one broker; empty if it does not return them.
    pub(crate) broker: BTreeMap<String, String>,
    /// Existing topics of those that are wanted.
    pub(crate) topics: BTreeMap<String, InspectedTopic>,
    /// The names of all topics that the login may describe.
    pub(crate) names: Vec<String>,
}

/// An existing topic.
#[derive(Debug, Default)]
pub(crate) struct InspectedTopic {
    pub(crate) partitions: usize,
    /// The fewest replicas of a partition.
    pub(crate) replicas: usize,
    /// The fewest replicas in sync, of the partitions that have a leader.
    pub(crate) in_sync: Option<usize>,
    /// Partitions without a leader.
    pub(crate) leaderless: usize,
    /// Its settings; empty if the broker does not return them.
    pub(crate) settings: BTreeMap<String, String>,
}

impl Inspection {
    /// The number that a setting of the broker has.
    pub(crate) fn number(&self, setting: &str) -> Option<i64> {
        self.broker.get(setting).and_then(|value| value.parse().ok())
    }
}

impl InspectedTopic {
    /// Whether all its partitions can be written to now.
    pub(crate) fn is_writable(&self) -> bool {
        let needed = self.number("min.insync.replicas").unwrap_or(1);
        let has_enough = |replicas| i64::try_from(replicas).is_ok_and(|of| of >= needed);
        self.leaderless == 0 && self.in_sync.is_some_and(has_enough)
    }

    /// The number that a setting has.
    pub(crate) fn number(&self, setting: &str) -> Option<i64> {
        self.settings.get(setting).and_then(|value| value.parse().ok())
    }
}

/// The answer of brokers to the request for a topic.
#[derive(Debug)]
pub(crate) enum Creation {
    /// They would create it, or have it.
    Possible,
    /// The cluster has fewer brokers than the topic is to have replicas. Brokers that are away
    /// count.
    TooFewBrokers,
    /// They refuse it for another reason.
    Refused(KafkaFailure),
}

/// Inspects the cluster and the topics that are wanted. Blocks.
pub(crate) fn inspect(config: &Config, is_wanted: impl Fn(&str) -> bool) -> Result<Inspection> {
    let client: BaseConsumer<EventContext> = create(properties::metadata(&config.kafka))?;
    let failed = |error: KafkaError| {
        // Errors of brokers, such as a refused login, are queued until the next poll.
        let context = client.context();
        context.events.poll_until_quiet(|| drop(client.poll(Duration::ZERO)));
        context.failure("describe the cluster", &error)
    };
    let metadata = client.fetch_metadata(None, BULK_TIMEOUT).map_err(failed)?;
    let mut inspection = Inspection { brokers: metadata.brokers().len(), ..Inspection::default() };
    inspection.names = metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
    for topic in metadata.topics().iter().filter(|topic| is_wanted(topic.name())) {
        let partitions = topic.partitions();
        let led = partitions.iter().filter(|of| of.leader() >= 0);
        let found = InspectedTopic {
            partitions: partitions.len(),
            replicas: partitions.iter().map(|of| of.replicas().len()).min().unwrap_or_default(),
            in_sync: led.clone().map(|of| of.isr().len()).min(),
            leaderless: partitions.len() - led.count(),
            settings: BTreeMap::new(),
        };
        inspection.topics.insert(topic.name().to_owned(), found);
    }
    let admin: AdminClient<EventContext> = create(properties::admin(&config.kafka))?;
    let names: Vec<String> = inspection.topics.keys().cloned().collect();
    let broker = metadata.brokers().first().map(|broker| ResourceSpecifier::Broker(broker.id()));
    let asked: Vec<_> =
        names.iter().map(|name| ResourceSpecifier::Topic(name)).chain(broker).collect();
    let described = wait(admin.describe_configs(&asked, &options())).map_err(failed)?;
    for resource in described.into_iter().flatten() {
        let entries = resource.entries.into_iter();
        let settings = entries.filter_map(|entry| Some((entry.name, entry.value?))).collect();
        match resource.specifier {
            OwnedResourceSpecifier::Topic(name) => {
                if let Some(topic) = inspection.topics.get_mut(&name) {
                    topic.settings = settings;
                }
            }
            OwnedResourceSpecifier::Broker(_) => inspection.broker = settings,
            OwnedResourceSpecifier::Group(_) => {}
        }
    }
    Ok(inspection)
}

/// Asks whether a topic could be created by its plan; the broker only validates the request.
/// Blocks.
pub(crate) fn try_creation(config: &Config, plan: &TopicPlan) -> Result<Creation> {
    let admin: AdminClient<EventContext> = create(properties::admin(&config.kafka))?;
    let failed = |error: KafkaError| {
        let failure = admin.inner().context().failure("create a topic", &error);
        plan.refused(failure.about(&plan.name, Vec::new()))
    };
    let replication = TopicReplication::Fixed(plan.replication_factor);
    let mut topic = NewTopic::new(&plan.name, plan.partitions, replication);
    topic.config = plan.settings.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let made =
        wait(admin.create_topics([&topic], &options().validate_only(true))).map_err(failed)?;
    for result in made {
        match result {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, Code::InvalidReplicationFactor)) => return Ok(Creation::TooFewBrokers),
            Err((_, code)) => return Ok(Creation::Refused(failed(KafkaError::AdminOp(code)))),
        }
    }
    Ok(Creation::Possible)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(BULK_TIMEOUT)).operation_timeout(Some(BULK_TIMEOUT))
}

/// Waits for an answer from a thread of librdkafka, which reports a time-out itself.
fn wait<T>(answer: impl Future<Output = Result<T, KafkaError>>) -> Result<T, KafkaError> {
    let mut answer = std::pin::pin!(answer);
    loop {
        match answer.as_mut().now_or_never() {
            Some(answer) => return answer,
            None => thread::sleep(Duration::from_millis(2)),
        }
    }
}
