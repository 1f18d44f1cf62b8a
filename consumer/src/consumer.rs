//! Reads records one after the other, in the order of each partition, without a database.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::Delivered;
use crate::error::ConsumeError;
use crate::fetched_record::FetchedRecord;
use crate::kafka::{FetcherUse, RecordFetcher, Watermarks};
use crate::position::{Offset, RecordLocation, TopicPartition};
use crate::settings::ConsumerSettings;
use crate::topic_watch::{TopicChanges, TopicWatch};

/// The group id of consumers that assign partitions themselves; no offset is committed to it.
const NO_GROUP: &str = "annals-consumer-without-group";
/// Interval of the check for the end while no record arrives.
const END_CHECK: Duration = Duration::from_millis(5);

/// Returns the committed records of topics, in the order of each partition.
///
/// ```no_run
/// # use annals_consumer::{Consumer, ConsumerSettings};
/// # async fn print() -> Result<(), annals_consumer::ConsumeError> {
/// let kafka = ConsumerSettings::new("127.0.0.1:9092");
/// let mut consumer = Consumer::connect(kafka).read_to_end(&["demo-flight"]).await?;
/// while let Some(delivered) = consumer.next().await? {
///     println!("{} {} {}", delivered.stream, delivered.version, delivered.event_type);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    fetcher: RecordFetcher,
    topics: TopicWatch,
    mode: Mode,
}

/// Makes a [`Consumer`] of the topics that it is given. Made by [`Consumer::connect`].
#[derive(Debug, Clone)]
pub struct ConsumerBuilder {
    settings: ConsumerSettings,
}

enum Mode {
    /// Assigns all partitions, from the given offsets or from the beginning.
    Assigned(HashMap<TopicPartition, Offset>),
    /// Assigns all partitions, up to the given end offsets. A partition read to its end is removed.
    Bounded(HashMap<TopicPartition, Offset>),
    /// Joins a consumer group.
    Subscribed,
}

impl ConsumerBuilder {
    /// Reads all partitions of these topics from their beginning, without end. Topics that do not
    /// exist yet are read when they appear.
    ///
    /// # Errors
    /// [`ConsumeError::Kafka`] if librdkafka refuses the settings.
    pub fn assign_from_beginning(self, topics: &[&str]) -> Result<Consumer, ConsumeError> {
        self.consumer(NO_GROUP, topics, Mode::Assigned(HashMap::new()))
    }

    /// Like [`assign_from_beginning`](Self::assign_from_beginning), from these offsets. A record
    /// that was removed is passed: a [`VersionFilter`](crate::VersionFilter) shows the loss.
    ///
    /// # Errors
    /// [`ConsumeError::Kafka`] if librdkafka refuses the settings.
    pub fn assign_from(self, starts: &[RecordLocation]) -> Result<Consumer, ConsumeError> {
        let topics: Vec<&str> = starts.iter().map(|start| start.topic.as_ref()).collect();
        let offsets = starts.iter().map(|start| (start.topic_partition(), start.offset));
        self.consumer(NO_GROUP, &topics, Mode::Assigned(offsets.collect()))
    }

    /// Shares the partitions of these topics with the other members of a consumer group, from the
    /// last [committed](Consumer::commit) offsets, else from the beginning.
    ///
    /// # Errors
    /// [`ConsumeError::Kafka`] if librdkafka refuses the settings.
    pub fn subscribe(self, group: &str, topics: &[&str]) -> Result<Consumer, ConsumeError> {
        self.consumer(group, topics, Mode::Subscribed)
    }

    /// Reads all partitions of these topics from their beginning to their present end, including
    /// every record committed before this call. A topic that does not exist is empty.
    ///
    /// Waits for the end of producers' transactions that are still open.
    ///
    /// # Errors
    /// [`ConsumeError::Kafka`] if librdkafka refuses the settings.
    pub async fn read_to_end(self, topics: &[&str]) -> Result<Consumer, ConsumeError> {
        let mut consumer = self.consumer(NO_GROUP, topics, Mode::Bounded(HashMap::new()))?;
        let watermarks = loop {
            consumer.topics.check_and_wait(&mut consumer.fetcher).await?;
            if consumer.fetcher.is_unavailable() {
                tokio::time::sleep_until(consumer.topics.due(&consumer.fetcher)).await;
                continue;
            }
            if let Some(watermarks) = consumer.fetcher.watermarks(consumer.topics.known()).await {
                break watermarks;
            }
        };
        let mut starts = Vec::new();
        let mut ends = HashMap::new();
        for Watermarks { low, high } in watermarks {
            if low.offset < high {
                ends.insert(low.topic_partition(), high);
                starts.push(low);
            }
        }
        consumer.fetcher.assign(&starts)?;
        consumer.mode = Mode::Bounded(ends);
        Ok(consumer)
    }

    fn consumer(self, group: &str, topics: &[&str], mode: Mode) -> Result<Consumer, ConsumeError> {
        Ok(Consumer {
            fetcher: RecordFetcher::open(&self.settings, group, FetcherUse::Consumer)?,
            topics: TopicWatch::new(topics, self.settings.topic_check_interval),
            mode,
        })
    }
}

impl Consumer {
    /// Starts to make a consumer; sends nothing yet.
    #[must_use]
    pub fn connect(settings: ConsumerSettings) -> ConsumerBuilder {
        ConsumerBuilder { settings }
    }

    /// Waits for the next record. Returns `None` only at the end of
    /// [`read_to_end`](ConsumerBuilder::read_to_end). Cancellation loses no record.
    ///
    /// While topics are missing or brokers are unavailable it waits, and logs the cause.
    ///
    /// # Errors
    /// [`ConsumeError`]; after [`Envelope`](ConsumeError::Envelope) the next call returns the
    /// record behind it.
    pub async fn next(&mut self) -> Result<Option<Delivered>, ConsumeError> {
        if matches!(self.mode, Mode::Bounded(_)) {
            return self.next_before_end().await;
        }
        loop {
            if self.fetcher.take_recheck_request() {
                self.topics.check_now();
            }
            self.check_topics()?;
            if let Some(record) = self.fetcher.ready()? {
                return Ok(Some(record?));
            }
            let due = self.topics.due(&self.fetcher);
            match tokio::time::timeout_at(due, self.fetcher.next()).await {
                Ok(Ok(Some(record))) => return Ok(Some(record?)),
                Ok(Err(failure)) => return Err(failure.into()),
                Ok(Ok(None)) | Err(_) => {}
            }
        }
    }

    /// Returns all remaining records up to the end. For
    /// [`read_to_end`](ConsumerBuilder::read_to_end) only: without an end it never returns.
    ///
    /// # Errors
    /// [`ConsumeError`] at the first record that is not an event; the records before it are lost.
    pub async fn read_remaining(&mut self) -> Result<Vec<Delivered>, ConsumeError> {
        let mut all = Vec::new();
        while let Some(delivered) = self.next().await? {
            all.push(delivered);
        }
        Ok(all)
    }

    /// Commits to the consumer group that this record, and all before it in its partition, are
    /// processed. Waits for the broker's confirmation.
    ///
    /// # Errors
    /// [`ConsumeError::Kafka`] if the broker refuses, for example because the group has assigned
    /// the partition to another member: then that member receives the record too.
    pub async fn commit(&self, delivered: &Delivered) -> Result<(), ConsumeError> {
        Ok(self.fetcher.commit(delivered.location().next()).await?)
    }

    /// The partitions, by topic and number, that the group has given to other members since the
    /// last call. Call it before each record is processed: what this member knows of their streams
    /// is out of date when they come back.
    pub fn take_revoked(&mut self) -> Vec<(Arc<str>, i32)> {
        self.fetcher.take_revoked()
    }

    /// Leaves the group and closes the connections. Dropping the consumer does the same, but
    /// blocks.
    pub async fn close(self) {
        self.fetcher.close().await;
    }

    /// Starts to read topics that have appeared, and partitions that were added. A topic that was
    /// created again continues at its old offset, or from its beginning if it is shorter.
    fn check_topics(&mut self) -> Result<(), ConsumeError> {
        let TopicChanges { created, grown, recreated: _ } = self.topics.check(&mut self.fetcher)?;
        if created.is_empty() && grown.is_empty() {
            return Ok(());
        }
        grown.iter().for_each(|(topic, added)| added.report(topic));
        match &self.mode {
            Mode::Assigned(offsets) => {
                let created = created.iter().map(|(topic, count)| (topic, 0..*count));
                let added = grown.iter().map(|(topic, of)| (topic, of.recorded..of.found));
                self.fetcher.assign(&starts(created.chain(added), offsets))?;
            }
            Mode::Subscribed => {
                let known: Vec<Arc<str>> = self.topics.known().keys().cloned().collect();
                self.fetcher.subscribe(&known)?;
            }
            Mode::Bounded(_) => {}
        }
        Ok(())
    }

    async fn next_before_end(&mut self) -> Result<Option<Delivered>, ConsumeError> {
        while self.is_before_end() {
            let record = match self.fetcher.ready()? {
                Some(record) => Some(record),
                None => self.next_or_position().await?,
            };
            let Some(delivered) = record.transpose()? else { continue };
            if self.mark_read(&delivered) {
                return Ok(Some(delivered));
            }
        }
        Ok(None)
    }

    /// Waits briefly for a record, after it has compared the positions with the end.
    async fn next_or_position(&mut self) -> Result<Option<FetchedRecord>, ConsumeError> {
        for position in self.fetcher.positions()? {
            self.mark_read_up_to(&position);
        }
        if self.fetcher.take_recheck_request() {
            self.topics.check_now();
        }
        self.topics.check(&mut self.fetcher)?;
        let next = tokio::time::timeout(END_CHECK, self.fetcher.next()).await;
        Ok(next.unwrap_or(Ok(None))?)
    }

    fn is_before_end(&self) -> bool {
        matches!(&self.mode, Mode::Bounded(ends) if !ends.is_empty())
    }

    /// Marks a record as read. Returns whether it lies before the end.
    fn mark_read(&mut self, delivered: &Delivered) -> bool {
        let location = delivered.location();
        let Mode::Bounded(ends) = &self.mode else { return false };
        let end = ends.get(&location.topic_partition());
        let is_before_end = end.is_some_and(|end| location.offset < *end);
        self.mark_read_up_to(&location.next());
        is_before_end
    }

    /// Transaction markers follow the last record: only positions show that they were passed.
    fn mark_read_up_to(&mut self, next: &RecordLocation) {
        let Mode::Bounded(ends) = &mut self.mode else { return };
        let key = next.topic_partition();
        if ends.get(&key).is_some_and(|end| next.offset >= *end) {
            ends.remove(&key);
        }
    }
}

fn starts<'a>(
    partitions: impl Iterator<Item = (&'a Arc<str>, Range<i32>)>,
    offsets: &HashMap<TopicPartition, Offset>,
) -> Vec<RecordLocation> {
    let all = partitions.flat_map(|(topic, numbers)| numbers.map(move |number| (topic, number)));
    all.map(|(topic, partition)| {
        let key = (Arc::clone(topic), partition);
        let offset = offsets.get(&key).copied().unwrap_or(Offset::ZERO);
        RecordLocation { topic: key.0, partition, offset }
    })
    .collect()
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("topics", &self.topics).finish_non_exhaustive()
    }
}
