//! The Kafka client. No other file of this crate names rdkafka.
//!
//! Two clients a consumer: one fetches, always `read_committed`; the other asks for partition counts and
//! ends of partitions, and fetches nothing. The second one is needed because a `read_committed` client is told the last
//! stable offset instead of the end: the broker answers a producer's commit before the offset moves,
//! so what is already committed could lie beyond it.

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::task::JoinHandle;

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
    /// A question at the desk whose answer is still awaited.
    asking: Option<JoinHandle<Result<Counts, KafkaError>>>,
    /// Whether the desk is answered.
    outage: Outage,
    /// Whether records are refused while the desk is answered.
    refusal: Outage,
    /// The fetcher has lost a connection: the desk should ask whether the cluster is away.
    doubt: bool,
    /// What librdkafka said last about a failed connection.
    reason: Arc<Mutex<String>>,
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

/// Kafka does not answer: what was asked failed, and what librdkafka said last of its connections.
#[derive(Debug, thiserror::Error)]
#[error("{failed}; {reason}")]
struct Unreachable {
    failed: KafkaError,
    reason: String,
}

/// Topics and how many partitions they have.
pub(crate) type Counts = BTreeMap<Arc<str>, i32>;
/// A record, or what makes it none.
pub(crate) type Fetched = Result<Delivered, EnvelopeError>;

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
        let reason = Arc::default();
        Ok(Self {
            fetcher: Arc::new(create(&fetcher, &reason)?),
            desk: Arc::new(create(&desk, &reason)?),
            assigned: HashSet::new(),
            asking: None,
            outage: Outage::of(format!("Kafka at {}", settings.brokers)),
            refusal: Outage::of(format!("records from Kafka at {}", settings.brokers)),
            doubt: false,
            reason,
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

    /// Waits for the next record. Nothing, when something is to be [asked](Self::take_doubt) instead.
    pub(crate) async fn next(&mut self) -> Result<Option<Fetched>, KafkaFailure> {
        let polled = match self.fetcher.recv().await {
            Ok(message) => Ok(read(&mut self.names, &message)),
            Err(error) => Err(error),
        };
        self.judge(polled)
    }

    /// A record that is already here, if there is one.
    pub(crate) fn ready(&mut self) -> Result<Option<Fetched>, KafkaFailure> {
        let polled = match self.fetcher.recv().now_or_never() {
            None => return Ok(None),
            Some(Ok(message)) => Ok(read(&mut self.names, &message)),
            Some(Err(error)) => Err(error),
        };
        self.judge(polled)
    }

    fn judge(
        &mut self,
        polled: Result<Fetched, KafkaError>,
    ) -> Result<Option<Fetched>, KafkaFailure> {
        match polled {
            Ok(record) => {
                self.refusal.over();
                return Ok(Some(record));
            }
            Err(error @ KafkaError::MessageConsumptionFatal(_)) => {
                return Err(KafkaFailure { action: "fetch records".to_owned(), source: error });
            }
            Err(KafkaError::MessageConsumption(code))
                if is_topic_gone(code) || is_lost_connection(code) =>
            {
                self.doubt = true;
            }
            // librdkafka goes on by itself after every other error, at its own pace.
            Err(error) => drop(self.refusal.failed(&error)),
        }
        Ok(None)
    }

    /// Whether the brokers should be asked how things stand. Once for each reason to.
    pub(crate) fn take_doubt(&mut self) -> bool {
        mem::take(&mut self.doubt)
    }

    /// Whether the brokers did not answer when they were asked last.
    pub(crate) fn is_away(&self) -> bool {
        self.outage.lasts()
    }

    /// How many partitions each of these topics has; topics that do not exist are left out. `None`
    /// while Kafka does not answer. If this is cancelled, the next call waits for the same answer.
    pub(crate) async fn partition_counts(&mut self, topics: &[Arc<str>]) -> Option<Counts> {
        let asking = self.asking.get_or_insert_with(|| {
            let (desk, topics) = (Arc::clone(&self.desk), topics.to_vec());
            tokio::task::spawn_blocking(move || ask(&desk, |desk| partition_counts(desk, topics)))
        });
        let answer = asking.await.unwrap_or(Err(KafkaError::Canceled));
        self.asking = None;
        self.heard(answer)
    }

    /// The ends of these partitions now. `None` while Kafka does not answer.
    pub(crate) async fn extents(&mut self, counts: &Counts) -> Option<Vec<Extent>> {
        let (desk, counts) = (Arc::clone(&self.desk), counts.clone());
        let answer = blocking(move || ask(&desk, |desk| extents(desk, &counts))).await;
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
            Err(error) if error.rdkafka_error_code().is_some_and(is_topic_gone) => None,
            Err(failed) => {
                let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
                self.outage.failed(&Unreachable { failed, reason });
                None
            }
        }
    }
}

/// librdkafka's requests block: they run where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(KafkaError::Canceled))
}

/// Asks, and serves what librdkafka has to say meanwhile: among it is why there is no answer.
fn ask<T>(
    desk: &BaseConsumer<Quiet>,
    question: impl FnOnce(&BaseConsumer<Quiet>) -> Result<T, KafkaError>,
) -> Result<T, KafkaError> {
    let answer = question(desk);
    while desk.poll(Duration::ZERO).is_some() {}
    answer
}

fn partition_counts(
    desk: &BaseConsumer<Quiet>,
    topics: Vec<Arc<str>>,
) -> Result<Counts, KafkaError> {
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

/// Errors of a single connection, and of all of them. Others may still hold, or have come back.
fn is_lost_connection(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::OperationTimedOut
    )
}

fn extents(desk: &BaseConsumer<Quiet>, counts: &Counts) -> Result<Vec<Extent>, KafkaError> {
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
    counts: &Counts,
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
        config
            // Whatever the log crate is set to: the reasons for outages are among the lines.
            .set_log_level(RDKafkaLogLevel::Info)
            .set("queued.max.messages.kbytes", FETCHED_AHEAD_KBYTES_MAX)
            // The default of 10 s would keep a reader waiting that long after the broker is back.
            .set("reconnect.backoff.max.ms", "1000");
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

fn create<T: FromClientConfigAndContext<Quiet>>(
    config: &ClientConfig,
    reason: &Arc<Mutex<String>>,
) -> Result<T, KafkaFailure> {
    config
        .create_with_context(Quiet { reason: Arc::clone(reason) })
        .map_err(failure(|| "make a Kafka consumer: check the options in its settings".to_owned()))
}

fn failure(action: impl FnOnce() -> String) -> impl FnOnce(KafkaError) -> KafkaFailure {
    |source| KafkaFailure { action: action(), source }
}

/// Keeps librdkafka's own lines at debug level: what matters of them is logged once, by [`Outage`].
struct Quiet {
    reason: Arc<Mutex<String>>,
}

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {message}");
        if facility == "FAIL" {
            message.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "librdkafka: {reason}");
    }
}

impl ConsumerContext for Quiet {}
