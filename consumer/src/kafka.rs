//! The Kafka client. No other file of this crate names rdkafka.
//!
//! Two clients a consumer: one fetches, always `read_committed`; the other asks for partition counts and
//! ends of partitions, and fetches nothing. The second one is needed because a `read_committed` client is told the last
//! stable offset instead of the end: the broker answers a producer's commit before the offset moves,
//! so what is already committed could lie beyond it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::envelope::{Delivered, EnvelopeError, Record};
use crate::outage::Outage;
use crate::position::Place;
use crate::settings::Settings;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// What librdkafka may fetch ahead, over all partitions.
const FETCHED_AHEAD_KBYTES_MAX: &str = "32768";

/// Kafka refused something that waiting does not mend.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct KafkaFailure {
    action: String,
    source: KafkaError,
}

/// Fetches records, and asks about topics.
pub(crate) struct Reader {
    fetcher: Arc<StreamConsumer<Quiet>>,
    desk: Arc<BaseConsumer<Quiet>>,
    assigned: HashSet<(Arc<str>, i32)>,
    outage: Outage,
    names: Vec<Arc<str>>,
}

/// The ends of one partition at some moment.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The offset of the first record that is still there.
    pub(crate) low: i64,
    /// The offset that the next record will get.
    pub(crate) high: i64,
}

/// What one look into the queue gave.
type Polled = Result<Result<Delivered, EnvelopeError>, KafkaError>;

impl Reader {
    /// Makes the clients; connects in the background.
    pub(crate) fn open(settings: &Settings, group: &str) -> Result<Self, KafkaFailure> {
        let desk = settings.client("read_uncommitted");
        let mut fetcher = settings.client("read_committed");
        fetcher
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A topic that was created again starts over; the version filter drops what is known.
            .set("auto.offset.reset", "earliest");
        Ok(Self {
            fetcher: Arc::new(create(&fetcher)?),
            desk: Arc::new(create(&desk)?),
            assigned: HashSet::new(),
            outage: Outage::of(format!("Kafka at {}", settings.brokers)),
            names: Vec::new(),
        })
    }

    pub(crate) fn subscribe(&self, topics: &[Arc<str>]) -> Result<(), KafkaFailure> {
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        self.fetcher.subscribe(&topics).map_err(failure(|| format!("subscribe to {topics:?}")))
    }

    /// Adds partitions to those that are fetched, each from the offset given. Those that are fetched
    /// already start again there.
    pub(crate) fn assign(&mut self, starts: &[Place]) -> Result<(), KafkaFailure> {
        let mut old = TopicPartitionList::new();
        let mut new = TopicPartitionList::with_capacity(starts.len());
        for Place { topic, partition, offset } in starts {
            if !self.assigned.insert((Arc::clone(topic), *partition)) {
                old.add_partition(topic, *partition);
            }
            new.add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .map_err(failure(|| format!("start {topic}[{partition}] at {offset}")))?;
        }
        let failed = || "assign partitions".to_owned();
        if old.count() > 0 {
            self.fetcher.incremental_unassign(&old).map_err(failure(failed))?;
        }
        self.fetcher.incremental_assign(&new).map_err(failure(failed))
    }

    /// Waits for the next record. Outages are waited through, and logged.
    pub(crate) async fn next(&mut self) -> Result<Result<Delivered, EnvelopeError>, KafkaFailure> {
        loop {
            let polled = match self.fetcher.recv().await {
                Ok(message) => Ok(read(&mut self.names, &message)),
                Err(error) => Err(error),
            };
            if let Some(record) = self.judge(polled)? {
                return Ok(record);
            }
        }
    }

    /// A record that is already here, if there is one.
    pub(crate) fn ready(
        &mut self,
    ) -> Result<Option<Result<Delivered, EnvelopeError>>, KafkaFailure> {
        let polled = match self.fetcher.recv().now_or_never() {
            None => return Ok(None),
            Some(Ok(message)) => Ok(read(&mut self.names, &message)),
            Some(Err(error)) => Err(error),
        };
        self.judge(polled)
    }

    fn judge(
        &mut self,
        polled: Polled,
    ) -> Result<Option<Result<Delivered, EnvelopeError>>, KafkaFailure> {
        match polled {
            Ok(record) => {
                self.outage.over();
                Ok(Some(record))
            }
            Err(error @ KafkaError::MessageConsumptionFatal(_)) => {
                Err(KafkaFailure { action: "fetch records".to_owned(), source: error })
            }
            // Whether a topic exists is looked at, and reported, by itself.
            Err(KafkaError::MessageConsumption(code)) if is_topic_gone(code) => Ok(None),
            // librdkafka goes on by itself after every other error, at its own pace.
            Err(error) => {
                self.outage.failed(&error);
                Ok(None)
            }
        }
    }

    /// Whether the last that was heard from Kafka is an error.
    pub(crate) fn is_away(&self) -> bool {
        self.outage.lasts()
    }

    /// How many partitions each of these topics has; topics that do not exist are left out. `None`
    /// while Kafka does not answer.
    pub(crate) async fn partition_counts(
        &mut self,
        topics: &[Arc<str>],
    ) -> Option<BTreeMap<Arc<str>, i32>> {
        let topics = topics.to_vec();
        let answer = self.ask(move |desk| partition_counts(desk, topics)).await;
        self.heard(answer)
    }

    /// The ends of these partitions now. `None` while Kafka does not answer.
    pub(crate) async fn extents(
        &mut self,
        counts: &BTreeMap<Arc<str>, i32>,
    ) -> Option<Vec<Extent>> {
        let counts = counts.clone();
        let answer = self.ask(move |desk| extents(desk, &counts)).await;
        self.heard(answer)
    }

    /// The offset behind the last record handed out, or behind the transaction markers that followed
    /// it; nothing for partitions that gave none yet.
    pub(crate) fn positions(&self) -> Result<Vec<Place>, KafkaFailure> {
        let list = self.fetcher.position().map_err(failure(|| "read positions".to_owned()))?;
        let places = list.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => {
                let topic = Arc::from(element.topic());
                Some(Place { topic, partition: element.partition(), offset })
            }
            Offset::Beginning
            | Offset::End
            | Offset::Stored
            | Offset::Invalid
            | Offset::OffsetTail(_) => None,
        });
        Ok(places.collect())
    }

    /// Stores the group's next offset of a partition, and waits until the broker has it.
    pub(crate) async fn commit(&self, next: Place) -> Result<(), KafkaFailure> {
        let Place { topic, partition, offset } = next;
        let fetcher = Arc::clone(&self.fetcher);
        let committed = blocking(move || {
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
            fetcher.commit(&list, CommitMode::Sync)
        });
        committed.await.map_err(failure(|| "commit the group's offset".to_owned()))
    }

    /// Leaves the group and closes the connections.
    pub(crate) async fn close(self) {
        let _closed = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    fn heard<T>(&mut self, answer: Result<T, KafkaError>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.outage.over();
                Some(answer)
            }
            Err(error) => {
                self.outage.failed(&error);
                None
            }
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Quiet>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let desk = Arc::clone(&self.desk);
        blocking(move || question(&desk)).await
    }
}

/// librdkafka's requests block: they run where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(KafkaError::Canceled))
}

fn partition_counts(
    desk: &BaseConsumer<Quiet>,
    topics: Vec<Arc<str>>,
) -> Result<BTreeMap<Arc<str>, i32>, KafkaError> {
    let mut counts = BTreeMap::new();
    for topic in topics {
        if let Some(count) = partition_count(desk, &topic)? {
            counts.insert(topic, count);
        }
    }
    Ok(counts)
}

fn partition_count(desk: &BaseConsumer<Quiet>, topic: &str) -> Result<Option<i32>, KafkaError> {
    // Asked by name: an answer for all topics leaves out why one is not there.
    let metadata = desk.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let Some(found) = metadata.topics().first() else { return Ok(None) };
    let code = found.error().map(RDKafkaErrorCode::from);
    match code {
        None => Ok(i32::try_from(found.partitions().len()).ok().filter(|count| *count > 0)),
        Some(code) if is_topic_gone(code) => Ok(None),
        Some(other) => Err(KafkaError::MetadataFetch(other)),
    }
}

fn is_topic_gone(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
    )
}

fn extents(
    desk: &BaseConsumer<Quiet>,
    counts: &BTreeMap<Arc<str>, i32>,
) -> Result<Vec<Extent>, KafkaError> {
    let lows = offsets_at(desk, counts, Offset::Beginning)?;
    let highs = offsets_at(desk, counts, Offset::End)?;
    let all = counts.iter().flat_map(|(topic, count)| (0..*count).map(move |p| (topic, p)));
    let extents = all.zip(lows.into_iter().zip(highs)).map(|((topic, partition), (low, high))| {
        Extent { topic: Arc::clone(topic), partition, low, high }
    });
    Ok(extents.collect())
}

/// One end of each partition, by topic and partition. One request a broker.
fn offsets_at(
    desk: &BaseConsumer<Quiet>,
    counts: &BTreeMap<Arc<str>, i32>,
    end: Offset,
) -> Result<Vec<i64>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (topic, count) in counts {
        for partition in 0..*count {
            list.add_partition_offset(topic, partition, end)?;
        }
    }
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let answered = desk.offsets_for_times(list, REQUEST_TIMEOUT)?;
    let offsets = answered.elements().into_iter().map(|element| {
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) => Ok(offset),
            Offset::Beginning
            | Offset::End
            | Offset::Stored
            | Offset::Invalid
            | Offset::OffsetTail(_) => {
                Err(KafkaError::OffsetFetch(RDKafkaErrorCode::InvalidArgument))
            }
        }
    });
    offsets.collect()
}

fn read(
    names: &mut Vec<Arc<str>>,
    message: &BorrowedMessage<'_>,
) -> Result<Delivered, EnvelopeError> {
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key, header.value)).collect());
    Delivered::from_record(&Record {
        topic: shared(names, message.topic()),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key(),
        value: message.payload(),
        headers: headers.unwrap_or_default(),
    })
}

/// One copy of each topic's name, not one a record.
fn shared(names: &mut Vec<Arc<str>>, topic: &str) -> Arc<str> {
    if let Some(name) = names.iter().find(|name| name.as_ref() == topic) {
        return Arc::clone(name);
    }
    let name: Arc<str> = Arc::from(topic);
    names.push(Arc::clone(&name));
    name
}

impl Settings {
    fn client(&self, isolation: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("queued.max.messages.kbytes", FETCHED_AHEAD_KBYTES_MAX);
        for (name, value) in &self.options {
            config.set(name, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("isolation.level", isolation)
            .set("allow.auto.create.topics", "false");
        config
    }
}

fn create<T: FromClientConfigAndContext<Quiet>>(config: &ClientConfig) -> Result<T, KafkaFailure> {
    config
        .create_with_context(Quiet)
        .map_err(failure(|| "make a Kafka consumer: check the options in its settings".to_owned()))
}

fn failure(action: impl FnOnce() -> String) -> impl FnOnce(KafkaError) -> KafkaFailure {
    |source| KafkaFailure { action: action(), source }
}

/// Keeps librdkafka's own lines at debug level: what matters of them is logged once, by [`Outage`].
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "librdkafka: {reason}");
    }
}

impl ConsumerContext for Quiet {}
