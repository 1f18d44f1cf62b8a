//! Records without a database: one after the other, as they lie in their partitions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::envelope::{Delivered, EnvelopeError};
use crate::kafka::{Counts, Fetched, KafkaFailure, Reader};
use crate::position::Place;
use crate::settings::Settings;
use crate::topics::Topics;

/// The group under which partitions assigned by hand are fetched; nothing is ever committed to it.
const NO_GROUP: &str = "annals-consumer-without-group";
/// How often to look whether the end is reached while no record comes.
const END_CHECK: Duration = Duration::from_millis(5);

/// Hands out the committed records of topics, in the order of each partition.
///
/// ```no_run
/// # use annals_consumer::{Consumer, Settings};
/// # async fn print() -> Result<(), annals_consumer::ConsumeError> {
/// let kafka = Settings::new("127.0.0.1:9092");
/// let mut consumer = Consumer::connect(kafka).read_to_end(&["demo-flight"]).await?;
/// while let Some(delivered) = consumer.next().await? {
///     println!("{} {} {}", delivered.stream, delivered.version, delivered.event_type);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    reader: Reader,
    topics: Topics,
    mode: Mode,
}

/// A consumer that does not know yet what to read. Made by [`Consumer::connect`].
#[derive(Debug, Clone)]
pub struct Connect {
    settings: Settings,
}

/// Why records cannot be consumed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// A record is not an event of Annals. The next call goes on behind it.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The partitions of a topic are not as many as they were, so that the events of one stream lie
    /// in two partitions, and their order is lost.
    #[error(
        "topic {topic} has {found} partitions and had {known}: the order of its streams is lost; \
         write its events to a new topic with the wanted number of partitions, and consume that"
    )]
    Repartitioned {
        /// The topic.
        topic: Arc<str>,
        /// How many partitions it had.
        known: i32,
        /// How many it has.
        found: i32,
    },
    /// Kafka refused something that waiting does not mend.
    #[error(transparent)]
    Kafka(#[from] KafkaFailure),
}

enum Mode {
    /// All partitions, by hand; those named start at the given offset.
    Assigned(HashMap<(Arc<str>, i32), i64>),
    /// By hand, up to the end that each partition had at the start; those passed are removed.
    Bounded(HashMap<(Arc<str>, i32), i64>),
    /// By a consumer group.
    Subscribed,
}

impl Connect {
    /// Reads all partitions of these topics from their beginning, and goes on with what comes. Topics
    /// that do not exist yet are waited for while the others are read.
    ///
    /// # Errors
    /// [`ConsumeError::Kafka`] if librdkafka refuses the settings.
    pub fn assign_from_beginning(self, topics: &[&str]) -> Result<Consumer, ConsumeError> {
        self.consumer(NO_GROUP, topics, Mode::Assigned(HashMap::new()))
    }

    /// Like [`assign_from_beginning`](Self::assign_from_beginning), but each partition named starts at its
    /// offset.
    ///
    /// # Errors
    /// [`ConsumeError::Kafka`] if librdkafka refuses the settings.
    pub fn assign_from(self, starts: &[Place]) -> Result<Consumer, ConsumeError> {
        let topics: Vec<&str> = starts.iter().map(|start| start.topic.as_ref()).collect();
        let offsets = starts.iter().map(|s| ((Arc::clone(&s.topic), s.partition), s.offset));
        self.consumer(NO_GROUP, &topics, Mode::Assigned(offsets.collect()))
    }

    /// Shares the partitions of these topics with the other members of a consumer group, from the offsets
    /// last [committed](Consumer::commit), else from the beginning.
    ///
    /// # Errors
    /// [`ConsumeError::Kafka`] if librdkafka refuses the settings.
    pub fn subscribe(self, group: &str, topics: &[&str]) -> Result<Consumer, ConsumeError> {
        self.consumer(group, topics, Mode::Subscribed)
    }

    /// Reads all partitions of these topics from their beginning to the end they have now, everything
    /// included that was committed before this call. A topic that does not exist is empty.
    ///
    /// Where a producer's transaction is still open, its end is waited for.
    ///
    /// # Errors
    /// [`ConsumeError::Kafka`] if librdkafka refuses the settings.
    pub async fn read_to_end(self, topics: &[&str]) -> Result<Consumer, ConsumeError> {
        let mut consumer = self.consumer(NO_GROUP, topics, Mode::Bounded(HashMap::new()))?;
        let extents = loop {
            consumer.topics.check(&mut consumer.reader).await?;
            if consumer.reader.is_away() {
                tokio::time::sleep_until(consumer.topics.due()).await;
                continue;
            }
            if let Some(extents) = consumer.reader.extents(consumer.topics.known()).await {
                break extents;
            }
        };
        let mut starts = Vec::new();
        let mut ends = HashMap::new();
        for extent in extents.into_iter().filter(|extent| extent.low < extent.high) {
            ends.insert((Arc::clone(&extent.topic), extent.partition), extent.high);
            let (topic, partition) = (extent.topic, extent.partition);
            starts.push(Place { topic, partition, offset: extent.low });
        }
        consumer.reader.assign(&starts)?;
        consumer.mode = Mode::Bounded(ends);
        Ok(consumer)
    }

    fn consumer(self, group: &str, topics: &[&str], mode: Mode) -> Result<Consumer, ConsumeError> {
        Ok(Consumer {
            reader: Reader::open(&self.settings, group)?,
            topics: Topics::new(topics, self.settings.topic_check_interval),
            mode,
        })
    }
}

impl Consumer {
    /// Begins to make a consumer; nothing is sent yet.
    #[must_use]
    pub fn connect(settings: Settings) -> Connect {
        Connect { settings }
    }

    /// Waits for the next record. `None` comes only after [`read_to_end`](Connect::read_to_end), at
    /// the end. Can be cancelled without losing a record.
    ///
    /// While topics are missing or brokers are away it waits, and logs what for.
    ///
    /// # Errors
    /// [`ConsumeError`]; after [`Envelope`](ConsumeError::Envelope) the next call goes on with the record
    /// behind it.
    pub async fn next(&mut self) -> Result<Option<Delivered>, ConsumeError> {
        if matches!(self.mode, Mode::Bounded(_)) {
            return self.next_before_end().await;
        }
        loop {
            if self.reader.take_doubt() {
                self.topics.hurry();
            }
            if self.topics.due() <= Instant::now() {
                self.look().await?;
            }
            if let Some(record) = self.reader.ready()? {
                return Ok(Some(record?));
            }
            match tokio::time::timeout_at(self.topics.due(), self.reader.next()).await {
                Ok(Ok(Some(record))) => return Ok(Some(record?)),
                Ok(Err(failure)) => return Err(failure.into()),
                Ok(Ok(None)) | Err(_) => {}
            }
        }
    }

    /// All records that are left before the end. For [`read_to_end`](Connect::read_to_end): any other
    /// consumer has no end, and this would never return.
    ///
    /// # Errors
    /// [`ConsumeError`] at the first record that is not an event; what was read before it is lost.
    pub async fn rest(&mut self) -> Result<Vec<Delivered>, ConsumeError> {
        let mut all = Vec::new();
        while let Some(delivered) = self.next().await? {
            all.push(delivered);
        }
        Ok(all)
    }

    /// Stores in the consumer group that this record, and all before it in its partition, are done with.
    /// Waits until the broker has it.
    ///
    /// # Errors
    /// [`ConsumeError::Kafka`] if the broker refuses, for one because the group has given the partition to
    /// another member: then that member gets the record too.
    pub async fn commit(&self, delivered: &Delivered) -> Result<(), ConsumeError> {
        let Place { topic, partition, offset } = delivered.place();
        Ok(self.reader.commit(Place { topic, partition, offset: offset + 1 }).await?)
    }

    /// Leaves the group and closes the connections; dropping the consumer does the same, but blocks.
    pub async fn close(self) {
        self.reader.close().await;
    }

    /// A topic that was gone and is back is read on where it was, or from its beginning if it has
    /// become shorter than that.
    async fn look(&mut self) -> Result<(), ConsumeError> {
        let appeared = self.topics.check(&mut self.reader).await?.first;
        if appeared.is_empty() {
            return Ok(());
        }
        match &self.mode {
            Mode::Assigned(offsets) => self.reader.assign(&starts(&appeared, offsets))?,
            Mode::Subscribed => {
                let known: Vec<Arc<str>> = self.topics.known().keys().cloned().collect();
                self.reader.subscribe(&known)?;
            }
            Mode::Bounded(_) => {}
        }
        Ok(())
    }

    async fn next_before_end(&mut self) -> Result<Option<Delivered>, ConsumeError> {
        while self.is_before_end() {
            let record = match self.reader.ready()? {
                Some(record) => Some(record),
                None => self.next_soon().await?,
            };
            let Some(delivered) = record.transpose()? else { continue };
            if self.pass(&delivered) {
                return Ok(Some(delivered));
            }
        }
        Ok(None)
    }

    async fn next_soon(&mut self) -> Result<Option<Fetched>, ConsumeError> {
        for position in self.reader.positions()? {
            self.pass_up_to(position);
        }
        if self.reader.take_doubt() {
            self.topics.hurry();
        }
        if self.topics.due() <= Instant::now() {
            self.topics.check(&mut self.reader).await?;
        }
        let next = tokio::time::timeout(END_CHECK, self.reader.next()).await;
        Ok(next.unwrap_or(Ok(None))?)
    }

    fn is_before_end(&self) -> bool {
        matches!(&self.mode, Mode::Bounded(ends) if !ends.is_empty())
    }

    /// Notes that a record was passed, and tells whether it lies before the end.
    fn pass(&mut self, delivered: &Delivered) -> bool {
        let Place { topic, partition, offset } = delivered.place();
        let Mode::Bounded(ends) = &self.mode else { return false };
        let wanted = ends.get(&(Arc::clone(&topic), partition)).is_some_and(|end| offset < *end);
        self.pass_up_to(Place { topic, partition, offset: offset + 1 });
        wanted
    }

    /// Transaction markers lie behind the last record: only positions tell that they were passed.
    fn pass_up_to(&mut self, Place { topic, partition, offset }: Place) {
        let Mode::Bounded(ends) = &mut self.mode else { return };
        let key = (topic, partition);
        if ends.get(&key).is_some_and(|end| offset >= *end) {
            ends.remove(&key);
        }
    }
}

fn starts(appeared: &Counts, offsets: &HashMap<(Arc<str>, i32), i64>) -> Vec<Place> {
    let all = appeared.iter().flat_map(|(topic, count)| (0..*count).map(move |p| (topic, p)));
    all.map(|(topic, partition)| {
        let topic = Arc::clone(topic);
        let offset = offsets.get(&(Arc::clone(&topic), partition)).copied().unwrap_or(0);
        Place { topic, partition, offset }
    })
    .collect()
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("topics", &self.topics).finish_non_exhaustive()
    }
}
