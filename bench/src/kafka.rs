//! Topics of the benchmarks, and their ends.

use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Time limit for one request to the brokers.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The settings of the relay's own topics, so that it logs no warning.
const TOPIC_SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("message.timestamp.type", "CreateTime"),
];

/// The properties of every client here.
pub(crate) fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("allow.auto.create.topics", "false");
    config
}

/// Creates a topic, and waits until the broker has all of it.
pub(crate) async fn create_topic(
    brokers: &str,
    topic: &str,
    partitions: i32,
) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create()?;
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    for (name, value) in TOPIC_SETTINGS {
        new = new.set(name, value);
    }
    for result in admin.create_topics([&new], &options()).await? {
        result
            .map_err(|(_, code)| KafkaError::AdminOp(code))
            .with_context(|| format!("create topic {topic}"))?;
    }
    let ends = Ends::connect(brokers, topic, partitions)?;
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    tokio::task::spawn_blocking(move || ends.wait_until_led(deadline)).await?
}

/// Deletes a topic, so that its records are not on the disk in the next round.
pub(crate) async fn delete_topic(brokers: &str, topic: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create()?;
    for result in admin.delete_topics(&[topic], &options()).await? {
        result
            .map_err(|(_, code)| KafkaError::AdminOp(code))
            .with_context(|| format!("delete topic {topic}"))?;
    }
    Ok(())
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(REQUEST_TIMEOUT))
        .request_timeout(Some(REQUEST_TIMEOUT))
}

/// Requests the end of a topic, in one small request for all of its partitions.
pub(crate) struct Ends {
    consumer: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl Ends {
    /// Connects.
    pub(crate) fn connect(brokers: &str, topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let mut config = client(brokers);
        // Otherwise the broker would answer with the end of the committed records.
        config.set("group.id", "annals-bench").set("isolation.level", "read_uncommitted");
        Ok(Self { consumer: config.create()?, topic: topic.to_owned(), partitions })
    }

    /// Waits until each partition has a leader: the broker answers the creation earlier.
    fn wait_until_led(&self, deadline: Instant) -> anyhow::Result<()> {
        while let Err(error) = self.total() {
            anyhow::ensure!(Instant::now() < deadline, error.context("wait for the leaders"));
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The sum of all partitions' ends: records, and transaction markers.
    pub(crate) fn total(&self) -> anyhow::Result<i64> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions {
            asked.add_partition_offset(&self.topic, partition, Offset::End)?;
        }
        let answer =
            self.consumer.offsets_for_times(asked, REQUEST_TIMEOUT).context("ask for the ends")?;
        let mut total = 0;
        for element in answer.elements() {
            element.error()?;
            // An empty partition has no offset.
            if let Offset::Offset(end) = element.offset() {
                total += end;
            }
        }
        Ok(total)
    }
}
