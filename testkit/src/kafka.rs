//! Plain Kafka, without Annals in between. No other file of this crate names rdkafka.

mod known;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DefaultProducerContext, FutureProducer, FutureRecord, Producer, ThreadedProducer,
};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::follow::DEADLINE;
use crate::must::Must;
use crate::until::until;

pub(crate) use known::until_brokers;
pub use known::until_forgotten;
use known::until_known;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval of questions for what the controller has decided, and the broker does not know yet.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A record as it lies in its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// The partition.
    pub partition: i32,
    /// Its offset there, assigned by the broker.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl RawRecord {
    /// The header's value as text, if there is exactly one of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(other, _)| other == name);
        let (Some((_, Some(value))), None) = (found.next(), found.next()) else { return None };
        std::str::from_utf8(value).ok()
    }
}

/// Which records to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions.
    Committed,
    /// All, also those of aborted transactions.
    Uncommitted,
}

/// Reads a topic from its beginning to the end that it has now, partition by partition.
///
/// # Panics
/// If the topic or the broker is not there.
pub async fn read_topic(brokers: &str, topic: &str, isolation: Isolation) -> Vec<RawRecord> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let read = tokio::task::spawn_blocking(move || read_blocking(&brokers, &topic, isolation));
    read.await.must("read a topic").must("read a topic")
}

fn read_blocking(
    brokers: &str,
    topic: &str,
    isolation: Isolation,
) -> anyhow::Result<Vec<RawRecord>> {
    let level = match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    };
    let consumer: BaseConsumer = config(brokers)
        .set("group.id", "annals-testkit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", level)
        .create()?;
    // A partition that is written to meanwhile has more than one end.
    let mut open: BTreeSet<i32> = (0..partition_count(&consumer, topic)?).collect();
    let mut assignment = TopicPartitionList::new();
    for partition in &open {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut records: BTreeMap<(i32, i64), RawRecord> = BTreeMap::new();
    while !open.is_empty() {
        match consumer.poll(REQUEST_TIMEOUT) {
            Some(Ok(message)) => {
                records.insert((message.partition(), message.offset()), raw(&message));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => return Err(error.into()),
            None => anyhow::bail!("topic {topic}: no record and no end within {REQUEST_TIMEOUT:?}"),
        }
    }
    Ok(records.into_values().collect())
}

/// The broker may not know a new topic yet.
fn partition_count(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<i32> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
        let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if count > 0 {
            return Ok(i32::try_from(count)?);
        }
        anyhow::ensure!(Instant::now() < deadline, "there is no topic {topic}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn raw(message: &BorrowedMessage<'_>) -> RawRecord {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
    });
    RawRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.into_iter().flatten().collect(),
    }
}

/// Waits until no transaction is open in a topic: readers of committed records reach its end.
///
/// # Panics
/// If one stays open, or the topic or the broker is not there.
pub async fn until_nothing_is_open(brokers: &str, topic: &str) {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let decided = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if ends(&brokers, &topic, "read_committed")?
                == ends(&brokers, &topic, "read_uncommitted")?
            {
                return Ok(());
            }
        }
        anyhow::bail!("a transaction stays open in topic {topic}")
    });
    decided.await.must("ask for a topic's ends").must("see the end of a transaction");
}

fn ends(brokers: &str, topic: &str, isolation: &str) -> anyhow::Result<Vec<i64>> {
    let mut config = config(brokers);
    let consumer: BaseConsumer =
        config.set("group.id", "annals-testkit").set("isolation.level", isolation).create()?;
    (0..partition_count(&consumer, topic)?)
        .map(|partition| Ok(consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?.1))
        .collect()
}

/// The number of partitions of a topic.
///
/// # Panics
/// If the topic or the broker is not there.
pub async fn partitions(brokers: &str, topic: &str) -> i32 {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let count = tokio::task::spawn_blocking(move || {
        partition_count(&config(&brokers).set("group.id", "annals-testkit").create()?, &topic)
    });
    count.await.must("ask for a topic").must("ask for a topic")
}

/// Writes records one by one, each into its partition, in the given order: a producer without
/// Annals.
///
/// # Panics
/// If the topic or the broker is not there.
pub async fn write_records(brokers: &str, topic: &str, records: &[RawRecord]) {
    let producer: FutureProducer = config(brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create()
        .must("make a producer");
    write_with(&producer, topic, records).await;
}

/// Writes records in a transaction, and aborts it.
///
/// # Panics
/// As [`write_records`].
pub async fn abort_records(brokers: &str, topic: &str, records: &[RawRecord]) {
    let producer: FutureProducer =
        config(brokers).set("transactional.id", topic).create().must("make a producer");
    producer.init_transactions(REQUEST_TIMEOUT).must("begin a transaction");
    producer.begin_transaction().must("begin a transaction");
    write_with(&producer, topic, records).await;
    producer.abort_transaction(REQUEST_TIMEOUT).must("abort a transaction");
}

async fn write_with(producer: &FutureProducer, topic: &str, records: &[RawRecord]) {
    for record in records {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: value.as_ref() })
        });
        let mut produced: FutureRecord<'_, Vec<u8>, Vec<u8>> =
            FutureRecord::to(topic).partition(record.partition).headers(headers);
        produced.key = record.key.as_ref();
        produced.payload = record.value.as_ref();
        produced.timestamp = record.timestamp_ms;
        let sent = producer.send(produced, REQUEST_TIMEOUT).await;
        sent.map_err(|(error, _)| error).must("write a record");
    }
}

/// Leaves a transaction open under each of these ids, with one record in partition 0 of the topic.
///
/// # Panics
/// If the broker refuses or is not there.
pub async fn leave_transactions_open(brokers: &str, topic: &str, transactional_ids: Vec<String>) {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let left = tokio::task::spawn_blocking(move || {
        transactional_ids.iter().try_for_each(|id| leave_open(&brokers, &topic, id))
    });
    left.await.must("leave transactions open").must("leave transactions open");
}

fn leave_open(brokers: &str, topic: &str, transactional_id: &str) -> anyhow::Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> = config(brokers)
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", "600000")
        .create()?;
    producer.init_transactions(REQUEST_TIMEOUT)?;
    producer.begin_transaction()?;
    let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).payload(b"left");
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(REQUEST_TIMEOUT)?;
    Ok(())
}

/// Creates a topic, and waits until the broker knows it, as the other functions here do.
///
/// # Panics
/// If the broker refuses or is not there.
pub async fn create_topic(brokers: &str, topic: &str, partitions: i32) {
    create_replicated_topic(brokers, topic, partitions, 1).await;
}

/// Creates a topic with so many replicas.
///
/// # Panics
/// If the broker refuses or is not there.
pub async fn create_replicated_topic(brokers: &str, topic: &str, partitions: i32, replicas: i32) {
    create(brokers, &NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas))).await;
}

/// Creates a topic with one partition, and one replica of it, on this broker.
///
/// # Panics
/// If the broker refuses or is not there.
pub async fn create_topic_on(brokers: &str, topic: &str, broker: i32) {
    create(brokers, &NewTopic::new(topic, 1, TopicReplication::Variable(&[&[broker]]))).await;
}

async fn create(brokers: &str, topic: &NewTopic<'_>) {
    let made = admin(brokers).must("ask for a topic").create_topics([topic], &options()).await;
    for result in made.must("make a topic") {
        result.map_err(|(_, code)| KafkaError::AdminOp(code)).must("make a topic");
    }
    let partitions = usize::try_from(topic.num_partitions).must("count partitions");
    until_known(brokers, topic.name, partitions).await;
}

/// Changes one setting of a topic, and waits until the broker knows it; every other goes back to
/// the broker's default.
///
/// # Panics
/// If the topic or the broker is not there.
pub async fn configure_topic(brokers: &str, topic: &str, name: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    let admin = admin(brokers).must("ask for a topic");
    for result in admin.alter_configs([&change], &options()).await.must("configure a topic") {
        result.map_err(|(_, code)| KafkaError::AdminOp(code)).must("configure a topic");
    }
    let is_known = async || {
        let known = topic_configuration(brokers, topic).await;
        known.get(name).is_some_and(|known| known == value)
    };
    until("the broker knows the setting of a topic", is_known).await;
}

/// Adds partitions to a topic until it has so many.
///
/// # Panics
/// If the topic or the broker is not there.
pub async fn add_partitions(brokers: &str, topic: &str, partitions: usize) {
    let more = NewPartitions::new(topic, partitions);
    let admin = admin(brokers).must("ask for a topic");
    for result in admin.create_partitions([&more], &options()).await.must("add partitions") {
        result.map_err(|(_, code)| KafkaError::AdminOp(code)).must("add partitions");
    }
    until_known(brokers, topic, partitions).await;
}

/// Deletes the records of a partition before an offset, as retention does.
///
/// # Panics
/// If the topic or the broker is not there.
pub async fn delete_records(brokers: &str, topic: &str, partition: i32, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(topic, partition, Offset::Offset(before))
        .must("name the records to remove");
    let admin = admin(brokers).must("ask for a topic");
    let removed = admin.delete_records(&offsets, &options()).await.must("remove records");
    for element in removed.elements() {
        element.error().must("remove records");
    }
}

/// Deletes a topic.
///
/// # Panics
/// If the topic or the broker is not there.
pub async fn delete_topic(brokers: &str, topic: &str) {
    let admin = admin(brokers).must("ask for a topic");
    for result in admin.delete_topics(&[topic], &options()).await.must("delete a topic") {
        result.map_err(|(_, code)| KafkaError::AdminOp(code)).must("delete a topic");
    }
    until_known(brokers, topic, 0).await;
}

/// Deletes every topic whose name contains `part`.
pub(crate) async fn delete_topics(brokers: String, part: String) -> anyhow::Result<()> {
    let admin = admin(&brokers)?;
    let metadata = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT)?;
    let names = metadata.topics().iter().map(rdkafka::metadata::MetadataTopic::name);
    let names: Vec<&str> = names.filter(|name| name.contains(&part)).collect();
    if !names.is_empty() {
        admin.delete_topics(&names, &options()).await?;
    }
    Ok(())
}

/// The topics whose names contain `part`.
///
/// # Panics
/// If the broker is not there.
#[must_use]
pub fn topics(brokers: &str, part: &str) -> Vec<String> {
    let admin = admin(brokers).must("ask for topics");
    let metadata = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT).must("ask for topics");
    let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
    names.filter(|name| name.contains(part)).collect()
}

/// The configuration of a topic, as the broker applies it.
///
/// # Panics
/// If the topic or the broker is not there.
pub async fn topic_configuration(brokers: &str, topic: &str) -> BTreeMap<String, String> {
    let admin = admin(brokers).must("ask for a topic");
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options()).await;
    let mut described = described.must("describe a topic");
    let resource = described.pop().must("describe a topic");
    let entries = resource.map_err(KafkaError::AdminOp).must("describe a topic").entries;
    entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("log_level", "0");
    // Half of it passes while each client is made.
    config.set("reconnect.backoff.ms", "22");
    config
}

fn admin(brokers: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    Ok(config(brokers).create()?)
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(REQUEST_TIMEOUT))
        .request_timeout(Some(REQUEST_TIMEOUT))
}
