//! Topic administration: metadata, settings, end offsets, creation.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, OwnedResourceSpecifier,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use super::client::{BULK_TIMEOUT, EventContext, REQUEST_TIMEOUT, Result, create};
use crate::config::Config;
use crate::kafka::error::{code, is_of_partition};
use crate::kafka::properties::{self, Properties};
use crate::kafka::topic_plan::TopicPlan;
use crate::model::offsets::{Ends, OffsetRange, Partitions, RecordOffset, TopicEnds};
use crate::report::kafka_failure::KafkaFailure;
use crate::report::threads::locked;

/// Describes and creates topics. Its connections stay open for the next request.
pub(crate) struct TopicAdmin {
    client: BaseConsumer<EventContext>,
    properties: Properties,
    admin: OnceLock<AdminClient<EventContext>>,
    /// The fewest replicas of a partition of each topic that was looked up.
    replicas: Mutex<ByTopic<usize>>,
}

/// The result of a request for each of its topics.
pub(crate) type ByTopic<T> = BTreeMap<String, T>;

/// The offsets of partitions.
#[derive(Debug, Default)]
struct FoundOffsets {
    known: TopicEnds,
    /// The topics with an offset that is unknown at the moment, with the reason.
    unknown: ByTopic<KafkaFailure>,
}

/// The offsets of topics.
#[derive(Debug, Default)]
pub(crate) struct FoundEnds {
    pub(crate) known: ByTopic<Ends>,
    /// The topics whose offsets are unknown at the moment, with the reason.
    pub(crate) unknown: ByTopic<KafkaFailure>,
}

impl FoundEnds {
    /// The offsets of all topics.
    ///
    /// # Errors
    /// The reason why those of a topic are unknown.
    pub(crate) fn all(self) -> Result<ByTopic<Ends>> {
        self.unknown.into_values().next().map_or(Ok(self.known), Err)
    }
}

impl TopicAdmin {
    pub(crate) fn open(config: &Config) -> Result<Self> {
        let client = create(properties::metadata(&config.kafka))?;
        let properties = properties::admin(&config.kafka);
        Ok(Self { client, properties, admin: OnceLock::new(), replicas: Mutex::default() })
    }

    /// The fewest replicas of a partition of a topic, once it was looked up.
    pub(crate) fn replicas(&self, topic: &str) -> Option<usize> {
        locked(&self.replicas).get(topic).copied()
    }

    /// Looks a topic up in the metadata: its partition count, if it exists.
    fn found(&self, topic: &MetadataTopic) -> Option<Result<i32, Code>> {
        let count = partition_count(topic)?;
        if let Some(fewest) = topic.partitions().iter().map(|of| of.replicas().len()).min() {
            locked(&self.replicas).insert(topic.name().to_owned(), fewest);
        }
        Some(count)
    }

    /// The partition count of a topic; `None` if it does not exist.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Option<i32>> {
        let failed = |error| self.failure("look a topic up", &error, topic);
        let metadata = self.client.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(failed)?;
        let found = metadata.topics().first().and_then(|topic| self.found(topic)).transpose();
        found.map_err(|code| failed(KafkaError::MetadataFetch(code)))
    }

    /// The names of all topics that the relay may describe. One request.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let metadata = self.client.fetch_metadata(None, BULK_TIMEOUT);
        let metadata = metadata.map_err(|error| self.failure("list the topics", &error, ""))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// The partition count of each of these topics, or why it is unknown; topics that do not exist,
    /// or that the relay may not describe, are left out. One request.
    pub(crate) fn partitions_of(&self, topics: &[&str]) -> Result<ByTopic<Result<i32>>> {
        if let [topic] = topics {
            let found = match self.partitions(topic) {
                Err(failure) if failure.is_outage() => return Err(failure),
                found => found.transpose(),
            };
            return Ok(found.map(|found| ((*topic).to_owned(), found)).into_iter().collect());
        }
        let failed = |error, topic: &str| self.failure("look topics up", &error, topic);
        let metadata = self.client.fetch_metadata(None, BULK_TIMEOUT);
        let metadata = metadata.map_err(|error| failed(error, ""))?;
        let wanted: BTreeSet<&str> = topics.iter().copied().collect();
        let known = metadata.topics().iter().filter(|topic| wanted.contains(topic.name()));
        let known = known.filter_map(|topic| {
            let failed = |code| failed(KafkaError::MetadataFetch(code), topic.name());
            Some((topic.name().to_owned(), self.found(topic)?.map_err(failed)))
        });
        Ok(known.collect())
    }

    /// Those of these topics with a partition that cannot be written to at the moment, with the
    /// reason. Two requests.
    pub(crate) fn unavailable(&self, topics: &[&str]) -> Result<ByTopic<String>> {
        let failed = |error| self.failure("look topics up", &error, "");
        let settings = self.describe(topics)?;
        let one = if let [topic] = topics { Some(*topic) } else { None };
        let metadata = self.client.fetch_metadata(one, BULK_TIMEOUT).map_err(failed)?;
        let known = metadata.topics().iter().filter(|topic| topics.contains(&topic.name()));
        let unavailable = known.filter_map(|topic| {
            let needed = settings.get(topic.name()).and_then(|of| of.get("min.insync.replicas"));
            let needed = needed.and_then(|replicas| replicas.parse().ok()).unwrap_or(1);
            let reason = topic.partitions().iter().find_map(|partition| lack(partition, needed))?;
            Some((topic.name().to_owned(), reason))
        });
        Ok(unavailable.collect())
    }

    /// The first offset and the end offset of each of these partitions.
    pub(crate) fn ends(&self, topic: &str, partitions: &[u16]) -> Result<Ends> {
        let failed = |error| self.failure("find the ends of a topic", &error, topic);
        let end = |partition: &u16| {
            let number = i32::from(*partition);
            let ends = self.client.fetch_watermarks(topic, number, REQUEST_TIMEOUT);
            let (first, end) = ends.map_err(failed)?;
            let (first, end) = (RecordOffset::new(first), RecordOffset::new(end));
            Ok((*partition, OffsetRange { first, end }))
        };
        partitions.iter().map(end).collect()
    }

    /// The first and the end offset of every partition of these topics; topics that do not exist
    /// are left out. A few requests, for any number of topics.
    pub(crate) fn ends_of(&self, topics: &[&str]) -> Result<FoundEnds> {
        let mut found = self.partitions_of(topics)?;
        for topic in topics {
            if found.contains_key(*topic) {
                continue;
            }
            // A broker leaves out of a list the topics that the relay may not describe. Asked for a
            // topic by its name, it returns an error.
            let named = match self.partitions(topic) {
                Err(failure) if failure.is_outage() => return Err(failure),
                named => named.transpose(),
            };
            found.extend(named.map(|named| ((*topic).to_owned(), named)));
        }
        let mut ends = FoundEnds::default();
        let mut partitions = Partitions::new();
        for (topic, found) in found {
            match found {
                Ok(count) => {
                    let topic = Arc::<str>::from(topic);
                    partitions.extend((0..count).map(|number| (Arc::clone(&topic), number)));
                }
                Err(failure) => drop(ends.unknown.insert(topic, failure)),
            }
        }
        let firsts = self.offsets(&partitions, Offset::Beginning, BULK_TIMEOUT)?;
        let written = self.offsets(&partitions, Offset::End, BULK_TIMEOUT)?;
        ends.unknown.extend(firsts.unknown);
        ends.unknown.extend(written.unknown);
        for (topic, number) in &partitions {
            let key = (topic.to_string(), *number);
            let range = (firsts.known.get(&key), written.known.get(&key));
            match (u16::try_from(*number), range) {
                (Ok(number), (Some(&first), Some(&end))) => {
                    let range = OffsetRange { first, end };
                    ends.known.entry(key.0).or_default().push((number, range));
                }
                (Err(_), (Some(_), Some(_))) => {}
                (_, (None, _) | (_, None)) => {
                    let failure =
                        unavailable(topic, format!("the end of partition {number} is unknown"));
                    ends.unknown.entry(key.0).or_insert(failure);
                }
            }
        }
        let FoundEnds { known, unknown } = &mut ends;
        known.retain(|topic, _| !unknown.contains_key(topic));
        Ok(ends)
    }

    /// The end offsets of these partitions; those that are unknown at the moment, or do not exist,
    /// are left out.
    pub(crate) fn end_offsets(&self, partitions: &Partitions) -> Result<TopicEnds> {
        Ok(self.offsets(partitions, Offset::End, REQUEST_TIMEOUT)?.known)
    }

    /// The first or the end offset of each of these partitions; those that do not exist are left
    /// out. One request to each broker, and more if a partition is refused: librdkafka returns the
    /// first error in place of all offsets.
    fn offsets(&self, of: &Partitions, end: Offset, timeout: Duration) -> Result<FoundOffsets> {
        let mut found = FoundOffsets::default();
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in of {
            topics.entry(topic).or_default().push(*partition);
        }
        let mut open = vec![topics.into_iter().collect::<Vec<_>>()];
        while let Some(topics) = open.pop() {
            match (self.offsets_at_once(&topics, end, timeout), &topics[..]) {
                (Ok(known), _) => found.known.extend(known),
                (Err(error), [(topic, _)]) if is_of_partition(code(&error)) => {
                    let failure = match self.failure("find the ends of a topic", &error, topic) {
                        KafkaFailure::Outage { reason, .. } => unavailable(topic, reason),
                        failure => failure,
                    };
                    found.unknown.insert((*topic).to_owned(), failure);
                }
                (Err(error), [_, _, ..]) if is_of_partition(code(&error)) => {
                    let (some, others) = topics.split_at(topics.len() / 2);
                    open.extend([some.to_vec(), others.to_vec()]);
                }
                (Err(error), _) => return Err(self.failure("find the ends of topics", &error, "")),
            }
        }
        Ok(found)
    }

    fn offsets_at_once(
        &self,
        topics: &[(&str, Vec<i32>)],
        end: Offset,
        timeout: Duration,
    ) -> Result<TopicEnds, KafkaError> {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in partitions {
                list.add_partition_offset(topic, *partition, end)?;
            }
        }
        if topics.is_empty() {
            return Ok(TopicEnds::new());
        }
        let found = self.client.offsets_for_times(list, timeout)?;
        let offset = |element: TopicPartitionListElem<'_>| match (element.error(), element.offset())
        {
            (Ok(()), Offset::Offset(offset)) => {
                let partition = (element.topic().to_owned(), element.partition());
                Some((partition, RecordOffset::new(offset)))
            }
            _ => None,
        };
        Ok(found.elements().into_iter().filter_map(offset).collect())
    }

    /// The settings of topics; none if the broker does not return them. One request.
    pub(crate) fn describe(&self, topics: &[&str]) -> Result<ByTopic<BTreeMap<String, String>>> {
        let failed = |error| self.failure("read the settings of topics", &error, "");
        let asked: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let answer = wait(self.admin()?.describe_configs(&asked, &admin_options()));
        // rdkafka 0.39 ignores a resource's own error: a refusal comes as no settings at all.
        let resources = answer.map_err(failed)?.into_iter().flatten();
        let settings = resources.filter_map(|resource| match resource.specifier {
            OwnedResourceSpecifier::Topic(topic) => {
                let entries = resource.entries.into_iter();
                Some((topic, entries.filter_map(|e| Some((e.name, e.value?))).collect()))
            }
            OwnedResourceSpecifier::Group(_) | OwnedResourceSpecifier::Broker(_) => None,
        });
        Ok(settings.collect())
    }

    /// Creates topics, those excepted that exist by now; the result for each. One request.
    pub(crate) fn create(&self, plans: &[&TopicPlan]) -> Result<ByTopic<Result<()>>> {
        let action = "create a topic";
        let mut topics: Vec<NewTopic<'_>> = Vec::new();
        for plan in plans {
            let replication = TopicReplication::Fixed(plan.replication_factor);
            let mut topic = NewTopic::new(&plan.name, plan.partitions, replication);
            topic.config = plan.settings.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            topics.push(topic);
        }
        let made = wait(self.admin()?.create_topics(&topics, &admin_options()));
        let made = made.map_err(|error| self.failure(action, &error, ""))?;
        let result = |made: Result<String, (String, Code)>| match made {
            Ok(topic) | Err((topic, Code::TopicAlreadyExists)) => (topic, Ok(())),
            Err((topic, code)) => {
                let failure = self.failure(action, &KafkaError::AdminOp(code), &topic);
                let plan = plans.iter().find(|plan| plan.name == topic);
                let failure = match plan {
                    Some(plan) => plan.refused(failure),
                    None => failure,
                };
                (topic, Err(failure))
            }
        };
        Ok(made.into_iter().map(result).collect())
    }

    /// Changes settings of a topic; its other settings stay as they are.
    pub(crate) fn configure(&self, topic: &str, settings: &BTreeMap<&str, &str>) -> Result<()> {
        let failed = |error| self.failure("change the settings of a topic", &error, topic);
        // The request replaces all settings of the topic: its own ones are sent again.
        let asked = [ResourceSpecifier::Topic(topic)];
        let answer = wait(self.admin()?.describe_configs(&asked, &admin_options()));
        let resources = answer.map_err(failed)?;
        let resource = resources.into_iter().next().transpose();
        let resource = resource.map_err(|code| failed(KafkaError::AdminOp(code)))?;
        let entries = resource.map(|of| of.entries).unwrap_or_default();
        let own = entries.iter().filter(|of| of.source == ConfigSource::DynamicTopic);
        let mut all: BTreeMap<&str, &str> =
            own.filter_map(|of| Some((of.name.as_str(), of.value.as_deref()?))).collect();
        all.extend(settings);
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in all {
            change = change.set(name, value);
        }
        let changed = wait(self.admin()?.alter_configs([&change], &admin_options()));
        for result in changed.map_err(failed)? {
            result.map_err(|(_, code)| failed(KafkaError::AdminOp(code)))?;
        }
        Ok(())
    }

    fn admin(&self) -> Result<&AdminClient<EventContext>> {
        if let Some(admin) = self.admin.get() {
            return Ok(admin);
        }
        let admin = create(self.properties.clone())?;
        Ok(self.admin.get_or_init(|| admin))
    }

    fn failure(&self, action: &'static str, error: &KafkaError, topic: &str) -> KafkaFailure {
        let context = self.client.context();
        // Errors of brokers are queued until the next poll.
        context.events.poll_until_quiet(|| drop(self.client.poll(Duration::ZERO)));
        context.failure(action, error).about(topic, Vec::new())
    }
}

/// The partition count of a topic, if it exists.
fn partition_count(topic: &MetadataTopic) -> Option<Result<i32, Code>> {
    match topic.error().map(Code::from) {
        None => i32::try_from(topic.partitions().len()).ok().map(Ok),
        Some(Code::UnknownTopicOrPartition) => None,
        Some(code) => Some(Err(code)),
    }
}

fn unavailable(topic: &str, reason: String) -> KafkaFailure {
    KafkaFailure::TopicUnavailable { topic: topic.to_owned(), reason }
}

/// Why a partition cannot be written to at the moment.
fn lack(partition: &MetadataPartition, replicas_needed: usize) -> Option<String> {
    let (number, replicas) = (partition.id(), partition.isr().len());
    if partition.leader() < 0 {
        return Some(format!("partition {number} has no leader"));
    }
    // Kafka needs no more than there are.
    let needed = replicas_needed.min(partition.replicas().len());
    (replicas < needed)
        .then(|| format!("partition {number} has {replicas} replicas in sync, and needs {needed}"))
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(BULK_TIMEOUT)).operation_timeout(Some(BULK_TIMEOUT))
}

/// Waits for an answer from a thread of librdkafka, which reports a time-out itself.
fn wait<T>(answer: impl Future<Output = Result<T, KafkaError>>) -> Result<T, KafkaError> {
    let mut answer = pin!(answer);
    loop {
        match answer.as_mut().now_or_never() {
            Some(answer) => return answer,
            None => thread::sleep(Duration::from_millis(2)),
        }
    }
}
