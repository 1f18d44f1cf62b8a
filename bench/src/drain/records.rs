//! The relay's published records: read back, checked, and kept for the bare producer.

use std::collections::HashSet;

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::{REQUEST_TIMEOUT, client};

/// Records in the order in which they were published.
#[derive(Debug)]
pub(crate) struct Records {
    /// The names of the headers; the same for every record.
    pub(crate) header_names: Vec<String>,
    pub(crate) records: Vec<Record>,
}

/// One record, in as few allocations as possible: there are millions.
#[derive(Debug)]
pub(crate) struct Record {
    position: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Box<[u8]>,
    pub(crate) value: Box<[u8]>,
    header_bytes: Box<[u8]>,
    header_ends: Box<[usize]>,
}

impl Record {
    /// The values of the headers.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.header_ends);
        starts.zip(&self.header_ends).map(|(&start, &end)| &self.header_bytes[start..end])
    }
}

impl Records {
    /// Bytes of keys, values and headers.
    pub(crate) fn bytes(&self) -> usize {
        let names: usize = self.header_names.iter().map(String::len).sum();
        let of = |record: &Record| {
            record.key.len() + record.value.len() + record.header_bytes.len() + names
        };
        self.records.iter().map(of).sum()
    }
}

/// Reads every committed record of a topic.
///
/// Fails unless each of the given number of events occurs exactly once.
pub(crate) async fn read(
    brokers: &str,
    topic: &str,
    partitions: i32,
    events: usize,
) -> anyhow::Result<Records> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let records =
        tokio::task::spawn_blocking(move || read_blocking(&brokers, &topic, partitions)).await??;
    let twice = records.records.windows(2).find(|pair| pair[0].position == pair[1].position);
    if let Some([record, _]) = twice {
        anyhow::bail!("the event at position {} was published twice", record.position);
    }
    let found = records.records.len();
    anyhow::ensure!(found == events, "{found} events were published, not {events}");
    Ok(records)
}

/// Fails unless a topic has the given number of committed records.
pub(crate) async fn check_count(
    brokers: &str,
    topic: &str,
    partitions: i32,
    events: usize,
) -> anyhow::Result<()> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let read = move || {
        let mut count = 0;
        each(&brokers, &topic, partitions, |_| {
            count += 1;
            Ok(())
        })?;
        anyhow::Ok(count)
    };
    let count: usize = tokio::task::spawn_blocking(read).await??;
    anyhow::ensure!(count == events, "{count} events were published, not {events}");
    Ok(())
}

/// Fails unless a topic has the given number of committed records of the outbox router, each with
/// another `id` in its headers.
pub(crate) async fn check_ids(
    brokers: &str,
    topic: &str,
    partitions: i32,
    events: usize,
) -> anyhow::Result<()> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let read = move || {
        let (mut ids, mut count) = (HashSet::new(), 0);
        each(&brokers, &topic, partitions, |message| {
            let headers = message.headers().context("a record without headers")?;
            let id = headers.iter().find(|header| header.key == "id").and_then(|id| id.value);
            ids.insert(Box::<[u8]>::from(id.context("a record without id")?));
            count += 1;
            Ok(())
        })?;
        anyhow::Ok((ids.len(), count))
    };
    let (ids, count) = tokio::task::spawn_blocking(read).await??;
    anyhow::ensure!(
        (ids, count) == (events, events),
        "{count} records with {ids} ids were published, not {events}"
    );
    Ok(())
}

fn read_blocking(brokers: &str, topic: &str, partitions: i32) -> anyhow::Result<Records> {
    let mut read = Records { header_names: Vec::new(), records: Vec::new() };
    each(brokers, topic, partitions, |message| read.push(message))?;
    read.records.sort_by_key(|record| record.position);
    Ok(read)
}

/// Calls a function with each committed record that a topic has now.
fn each(
    brokers: &str,
    topic: &str,
    partitions: i32,
    mut take: impl FnMut(&BorrowedMessage<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut config = client(brokers);
    config
        .set("group.id", "annals-bench")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut open = partitions;
    while open > 0 {
        match consumer.poll(REQUEST_TIMEOUT) {
            Some(Ok(message)) => take(&message)?,
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(error).context("read the topic back"),
            None => anyhow::bail!("topic {topic}: no record and no end within {REQUEST_TIMEOUT:?}"),
        }
    }
    Ok(())
}

impl Records {
    fn push(&mut self, message: &BorrowedMessage<'_>) -> anyhow::Result<()> {
        let headers = message.headers().context("a record without headers")?;
        if self.records.is_empty() {
            self.header_names = headers.iter().map(|header| header.key.to_owned()).collect();
        }
        let same = headers.iter().map(|header| header.key).eq(&self.header_names);
        anyhow::ensure!(same, "the records do not all have the same headers");
        let mut header_bytes = Vec::new();
        let mut header_ends = Vec::with_capacity(headers.count());
        for header in headers.iter() {
            header_bytes.extend_from_slice(header.value.unwrap_or_default());
            header_ends.push(header_bytes.len());
        }
        let position = headers.iter().find(|header| header.key == "ce_position");
        let position =
            position.and_then(|header| header.value).context("a record without ce_position")?;
        self.records.push(Record {
            position: std::str::from_utf8(position)?.parse()?,
            timestamp_ms: message.timestamp().to_millis().context("a record without timestamp")?,
            key: message.key().unwrap_or_default().into(),
            value: message.payload().unwrap_or_default().into(),
            header_bytes: header_bytes.into(),
            header_ends: header_ends.into(),
        });
        Ok(())
    }
}
