//! The Kafka client: publishing, asking about topics, reading the ends of partitions. No other file of
//! the relay names rdkafka.
//!
//! Everything here blocks, each call up to a deadline: it is for threads of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use crate::config::Config;
use crate::heard::{Heard, locked};
use crate::kafka_failure::{KafkaFailure, RecordId};
use crate::kafka_properties::{self as properties, Properties};
use crate::message::Message;
use crate::tails::{Last, Tails};
use crate::topic_policy::TopicPlan;

pub use crate::checkpoint_topic::{ensure_checkpoint_topic, read_checkpoints};
pub use crate::topic_policy::ensure_topic;

/// How long one question to the brokers may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a question about many topics.
const BULK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the sending thread sleeps between looks for acknowledgements, at first and at most. rdkafka's
/// `poll` spins instead.
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(1);
/// librdkafka waits for so long in an abort before it lets go, for reports that only `poll` takes.
const ABORT_SLICE: Duration = Duration::from_millis(20);
/// A topic that is read whole must give something so often; the broker looks every 10 s for transactions that are over
/// their time.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// So many partitions, or those of one topic, are read by one client: its statistics tell of each of them every time.
const PARTITIONS_OF_A_READER_MAX: usize = 500;
/// So many records of a refused batch are named at most.
const SUSPECTS_MAX: usize = 1_000;

type Result<T, E = KafkaFailure> = std::result::Result<T, E>;

/// Writes records: in Kafka transactions, when it has a transactional id, or without. There is one producer for a
/// transactional id: making another one fences this one.
#[expect(missing_debug_implementations, reason = "rdkafka's producer has none")]
pub struct Producer {
    client: BaseProducer<Listener>,
    deadline: Duration,
    is_transactional: bool,
}

impl Producer {
    /// Makes the producer of a transactional id; connects in the background.
    ///
    /// # Errors
    /// [`KafkaFailure::Settings`] when the settings in `[kafka]` cannot be used.
    pub fn connect(config: &Config, transactional_id: &str) -> Result<Self> {
        Self::with(config, Some(transactional_id))
    }

    /// Makes a producer without transactions, which keeps the order of each partition: after its first failure it
    /// sends nothing more. To begin, to commit and to take over nothing is needed then.
    ///
    /// # Errors
    /// [`KafkaFailure::Settings`] when the settings in `[kafka]` cannot be used.
    pub fn without_transactions(config: &Config) -> Result<Self> {
        Self::with(config, None)
    }

    fn with(config: &Config, transactional_id: Option<&str>) -> Result<Self> {
        let client = create(properties::producer(config, transactional_id))?;
        let is_transactional = transactional_id.is_some();
        Ok(Self { client, deadline: config.kafka.transaction_timeout, is_transactional })
    }

    /// Fences whoever used the transactional id before, and aborts what they left open. To be called
    /// once, before everything else.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; nothing was published. Drop the producer then, before making another:
    /// it would go on trying, and fence that one.
    pub fn init(&self) -> Result<()> {
        if !self.is_transactional {
            return Ok(());
        }
        let done = self.client.init_transactions(self.deadline + REQUEST_TIMEOUT);
        done.map_err(|error| self.failure("take over the transactional id", &error))
    }

    /// Begins a transaction; the broker hears of it with its first record.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; nothing was published.
    pub fn begin(&self) -> Result<()> {
        if !self.is_transactional {
            return Ok(());
        }
        self.client.begin_transaction().map_err(|error| self.failure("begin a transaction", &error))
    }

    /// Hands a message over; returns before it is sent. What becomes of it is for [`drain`](Self::drain)
    /// to say.
    ///
    /// # Errors
    /// Any [`KafkaFailure`], of this message or of one before it.
    pub fn send(&self, message: &Message) -> Result<()> {
        let Err(mut refused) = self.client.send(record(message)) else { return Ok(()) };
        let began = Instant::now();
        while code(&refused.0) == Code::QueueFull && began.elapsed() < self.deadline {
            self.listen();
            thread::sleep(pause(began));
            match self.client.send(refused.1) {
                Ok(()) => return Ok(()),
                Err(again) => refused = again,
            }
        }
        Err(self.not_sent(message, &refused.0))
    }

    fn send_keyed(&self, topic: &str, key: &str, value: Option<&[u8]>) -> Result<()> {
        let began = Instant::now();
        loop {
            let mut record = BaseRecord::with_opaque_to(topic, 0_usize).partition(0).key(key);
            record.payload = value;
            let Err((error, _)) = self.client.send(record) else { return Ok(()) };
            if code(&error) != Code::QueueFull || began.elapsed() >= self.deadline {
                return Err(self.failure("send a record", &error).about(topic, Vec::new()));
            }
            self.listen();
            thread::sleep(pause(began));
        }
    }

    /// Waits until the broker has acknowledged everything that was sent. To be called before
    /// [`commit`](Self::commit): rdkafka's own waiting sleeps in slices of 100 ms.
    ///
    /// # Errors
    /// Any [`KafkaFailure`] of a message, as soon as it is known.
    pub fn drain(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            self.listen();
            self.undelivered()?;
            if self.client.in_flight_count() == 0 {
                return Ok(());
            }
            if began.elapsed() >= self.deadline + REQUEST_TIMEOUT {
                let late = KafkaError::Flush(Code::OperationTimedOut);
                return Err(self.failure("send records", &late));
            }
            thread::sleep(pause(began));
        }
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; after [`KafkaFailure::UnknownOutcome`] it may be committed all the same.
    pub fn commit(&self) -> Result<()> {
        let action = "commit a transaction";
        if !self.is_transactional {
            return Ok(());
        }
        self.client.commit_transaction(self.deadline).map_err(|error| {
            let is_undone =
                matches!(&error, KafkaError::Transaction(cause) if cause.txn_requires_abort());
            let failure = self.failure(action, &error);
            if is_undone { failure } else { failure.in_doubt(action) }
        })
    }

    /// Aborts the transaction, so that the producer can begin another one.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; the producer is of no use then.
    pub fn abort(&self) -> Result<()> {
        let deadline = Instant::now() + self.deadline;
        loop {
            let aborted = self.client.abort_transaction(ABORT_SLICE);
            self.listen();
            match aborted {
                Ok(()) => break,
                Err(KafkaError::Transaction(cause))
                    if cause.is_retriable() && Instant::now() < deadline => {}
                Err(error) => return Err(self.failure("abort a transaction", &error)),
            }
        }
        locked(&self.client.context().undelivered).clear();
        Ok(())
    }

    /// Takes what librdkafka has told since the last time.
    fn listen(&self) {
        self.client.context().heard.all(|| self.client.poll(Duration::ZERO));
    }

    /// The failure of the messages that the broker did not take, if there are any.
    fn undelivered(&self) -> Result<()> {
        let undelivered = std::mem::take(&mut *locked(&self.client.context().undelivered));
        // Of these, others were the cause.
        let followed = |code| {
            matches!(code, Code::InvalidDifferentRecord | Code::PurgeQueue | Code::PurgeInflight)
        };
        let causes = undelivered.iter().filter(|(code, _)| !followed(*code));
        let Some((cause, record)) = causes.chain(&undelivered).next() else { return Ok(()) };
        let error = KafkaError::MessageProduction(*cause);
        let error = if followed(*cause) { self.cause_of_abort().unwrap_or(error) } else { error };
        let failure = self.failure("send records", &error);
        let topic = record.topic.clone();
        let suspects = undelivered.iter().filter(|(code, _)| code == cause);
        Err(failure.about(&topic, suspects.map(|(_, record)| record.clone()).collect()))
    }

    /// What made the transaction fail, where no record was the cause: another one cannot be begun for that reason.
    fn cause_of_abort(&self) -> Option<KafkaError> {
        match self.client.begin_transaction() {
            Err(KafkaError::Transaction(cause)) if cause.txn_requires_abort() => {
                Some(KafkaError::Transaction(cause))
            }
            Ok(()) | Err(_) => None,
        }
    }

    fn not_sent(&self, message: &Message, error: &KafkaError) -> KafkaFailure {
        self.listen();
        // In a transaction that has failed already, nothing can be sent: the cause is what counts.
        if let Err(earlier) = self.undelivered() {
            return earlier;
        }
        let Message { topic, key, position, .. } = message;
        let record = RecordId { topic: topic.to_string(), key: key.clone(), position: *position };
        self.failure("send a record", error).about(topic, vec![record])
    }

    /// Sorts an error. When the producer is dead, what killed it is asked for instead.
    fn failure(&self, action: &'static str, error: &KafkaError) -> KafkaFailure {
        self.listen();
        match self.client.client().fatal_error() {
            // It says only that a record was not taken; the record's own error says why.
            Some((Code::GaplessGuarantee, _)) | None => {
                self.client.context().failure(action, error)
            }
            Some((cause, text)) => sort(action, cause, text),
        }
    }
}

/// Asks about topics, and makes them. Reads nothing. Its connections are kept for the next question.
pub(crate) struct Desk {
    client: BaseConsumer<Listener>,
    properties: Properties,
    admin: OnceLock<AdminClient<Listener>>,
}

/// What came of a request, for each of the topics that it was about.
pub(crate) type ByTopic<T> = BTreeMap<String, T>;

impl Desk {
    pub(crate) fn open(config: &Config) -> Result<Self> {
        let client = create(properties::desk(&config.kafka))?;
        Ok(Self { client, properties: properties::admin(&config.kafka), admin: OnceLock::new() })
    }

    /// How many partitions a topic has; `None` if it does not exist.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Option<i32>> {
        let failed = |error| self.failure("look a topic up", &error, topic);
        let metadata = self.client.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(failed)?;
        let Some(found) = metadata.topics().first() else { return Ok(None) };
        match found.error().map(Code::from) {
            None => Ok(i32::try_from(found.partitions().len()).ok()),
            Some(Code::UnknownTopicOrPartition) => Ok(None),
            Some(code) => Err(failed(KafkaError::MetadataFetch(code))),
        }
    }

    /// How many partitions each of these topics has, or why that is not known; those that do not exist, or that the relay may
    /// not see, are not among them. One request.
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
            let found = match topic.error().map(Code::from) {
                None => Ok(i32::try_from(topic.partitions().len()).ok()?),
                Some(Code::UnknownTopicOrPartition) => return None,
                Some(code) => Err(failed(KafkaError::MetadataFetch(code), topic.name())),
            };
            Some((topic.name().to_owned(), found))
        });
        Ok(known.collect())
    }

    /// First offset and end of each of these partitions.
    pub(crate) fn ends(&self, topic: &str, partitions: &[u16]) -> Result<Ends> {
        let failed = |error| self.failure("find the ends of a topic", &error, topic);
        let end = |partition: &u16| {
            let number = i32::from(*partition);
            let ends = self.client.fetch_watermarks(topic, number, REQUEST_TIMEOUT);
            Ok((*partition, ends.map_err(failed)?))
        };
        partitions.iter().map(end).collect()
    }

    /// First offset and end of every partition of these topics; those that do not exist are left out. A few requests, however
    /// many topics there are.
    pub(crate) fn ends_of(&self, topics: &[&str]) -> Result<ByTopic<Ends>> {
        let mut numbers = self.partitions_of(topics)?;
        for topic in topics {
            if numbers.contains_key(*topic) {
                continue;
            }
            // A broker leaves out of a list what it does not let one see. Asked for by its name, it says so.
            let found = self.partitions(topic)?;
            numbers.extend(found.map(|partitions| ((*topic).to_owned(), Ok(partitions))));
        }
        let mut partitions = Partitions::new();
        for (topic, found) in numbers {
            let topic = Arc::<str>::from(topic);
            partitions.extend((0..found?).map(|number| (Arc::clone(&topic), number)));
        }
        let first = self.offsets(&partitions, Offset::Beginning, BULK_TIMEOUT)?;
        let written = self.offsets(&partitions, Offset::End, BULK_TIMEOUT)?;
        let mut ends: ByTopic<Ends> = ByTopic::new();
        for (topic, number) in &partitions {
            let key = (topic.to_string(), *number);
            let (Some(first), Some(end)) = (first.get(&key), written.get(&key)) else {
                // Its leader is gone: where it ends is not known for the moment.
                let error = KafkaError::MetadataFetch(Code::LeaderNotAvailable);
                return Err(self.failure("find the ends of topics", &error, topic));
            };
            if let Ok(number) = u16::try_from(*number) {
                ends.entry(key.0).or_default().push((number, (*first, *end)));
            }
        }
        Ok(ends)
    }

    /// How far these partitions are written now; those that are not there are left out.
    pub(crate) fn written(&self, partitions: &Partitions) -> Result<TopicEnds> {
        self.offsets(partitions, Offset::End, REQUEST_TIMEOUT)
    }

    /// One end of each of these partitions; those that are not there are left out. One request to each broker.
    fn offsets(&self, of: &Partitions, end: Offset, timeout: Duration) -> Result<TopicEnds> {
        let failed = |error| self.failure("find the ends of topics", &error, "");
        let mut list = TopicPartitionList::with_capacity(of.len());
        for (topic, partition) in of {
            list.add_partition_offset(topic, *partition, end).map_err(failed)?;
        }
        if of.is_empty() {
            return Ok(TopicEnds::new());
        }
        let found = self.client.offsets_for_times(list, timeout).map_err(failed)?;
        let offset = |element: TopicPartitionListElem<'_>| match (element.error(), element.offset())
        {
            (Ok(()), Offset::Offset(offset)) => {
                Some(((element.topic().to_owned(), element.partition()), offset))
            }
            _ => None,
        };
        Ok(found.elements().into_iter().filter_map(offset).collect())
    }

    /// The settings of topics; none where the broker does not show them. One request.
    pub(crate) fn describe(&self, topics: &[&str]) -> Result<ByTopic<BTreeMap<String, String>>> {
        let failed = |error| self.failure("read the settings of topics", &error, "");
        let asked: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let answer = wait(self.admin()?.describe_configs(&asked, &admin_options()));
        // rdkafka 0.39 does not look at a resource's own error: a refusal comes as no settings at all.
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

    /// Makes topics, unless somebody else just did; what came of each. One request.
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
                let failure = self.failure(action, &KafkaError::MetadataFetch(code), &topic);
                (topic, Err(failure))
            }
        };
        Ok(made.into_iter().map(result).collect())
    }

    fn admin(&self) -> Result<&AdminClient<Listener>> {
        if let Some(admin) = self.admin.get() {
            return Ok(admin);
        }
        let admin = create(self.properties.clone())?;
        Ok(self.admin.get_or_init(|| admin))
    }

    fn failure(&self, action: &'static str, error: &KafkaError, topic: &str) -> KafkaFailure {
        let listener = self.client.context();
        // What was heard of the brokers in the meantime waits to be polled.
        listener.heard.all(|| drop(self.client.poll(Duration::ZERO)));
        listener.failure(action, error).about(topic, Vec::new())
    }
}

/// The last committed record of each shard in each partition after its start, once everything up to each end has been
/// fetched.
pub(crate) fn read_tails(
    config: &Config,
    topic: &str,
    tails: &Tails,
    deadline: Instant,
) -> Result<Last> {
    let mut last = Last::new();
    let is_late = |_: bool| Instant::now() >= deadline;
    read(config, &[(topic, tails)], is_late, |message| {
        let shard = message.key().and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
        if let Some(shard) = shard {
            let record = message.payload().map(<[u8]>::to_vec);
            last.insert((message.partition(), shard), record);
        }
    })?;
    Ok(last)
}

/// A record that a topic of events has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// The stream.
    pub(crate) key: String,
    /// The headers of the topic contract that say which event it is.
    pub(crate) headers: BTreeMap<String, String>,
}

/// How far topics are written: the offset behind the last record, by topic and partition.
pub(crate) type TopicEnds = HashMap<(String, i32), i64>;
/// The partitions of a topic, each with its first offset and its end.
pub(crate) type Ends = Vec<(u16, (i64, i64))>;
/// Partitions of topics.
pub(crate) type Partitions = HashSet<(Arc<str>, i32)>;

/// Topics that are read together, each from a place on up to its end as it was.
pub(crate) type Unread = BTreeMap<Arc<str>, Tails>;

/// What topics have beyond recorded ends, in parts that are read one after the other: each by one client, whatever the number of its
/// topics. Of one that has nothing more there is nothing.
pub(crate) fn unread(ends: &ByTopic<Ends>, recorded: &TopicEnds) -> Vec<Unread> {
    let mut parts = vec![Unread::new()];
    let mut partitions = 0;
    for (topic, ends) in ends {
        let start = |partition: u16| recorded.get(&(topic.clone(), partition.into())).copied();
        let tails = Tails::between(ends.iter().map(|(partition, (first, end))| {
            // A topic that ends before it was written to is another one: all of it is read.
            let start = start(*partition).filter(|start| start <= end).unwrap_or(*first);
            (*partition, (start.max(*first), *end))
        }));
        if tails.is_done() {
            continue;
        }
        if partitions >= PARTITIONS_OF_A_READER_MAX {
            parts.push(Unread::new());
            partitions = 0;
        }
        partitions += ends.len();
        if let Some(part) = parts.last_mut() {
            part.insert(Arc::from(topic.as_str()), tails);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Reads every committed record of topics as far as they are unread. Blocks.
pub(crate) fn scan(config: &Config, unread: &Unread, mut take: impl FnMut(Found)) -> Result<()> {
    let mut heard = Instant::now();
    let is_late = move |is_news: bool| {
        if is_news {
            heard = Instant::now();
        }
        heard.elapsed() >= SILENCE_MAX
    };
    let of: Vec<(&str, &Tails)> = unread.iter().map(|(topic, tails)| (&**topic, tails)).collect();
    read(config, &of, is_late, |message| {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let Some((topic, _)) = unread.get_key_value(message.topic()) else { return };
        take(Found {
            topic: Arc::clone(topic),
            partition: message.partition(),
            offset: message.offset(),
            key: text(message.key()),
            headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
        });
    })
}

/// A record of a topic that is read for its keys: none but the last of each counts.
pub(crate) struct Keyed {
    pub(crate) offset: i64,
    pub(crate) key: String,
    /// None deletes the key.
    pub(crate) value: Option<Vec<u8>>,
}

/// Reads the first partition of a topic from an offset up to its end as it is now; returns that. Blocks.
pub(crate) fn read_keyed(
    config: &Config,
    desk: &Desk,
    topic: &str,
    start: i64,
    mut take: impl FnMut(Keyed),
) -> Result<i64> {
    let ends = desk.ends(topic, &[0])?;
    let end = ends.first().map_or(start, |(_, (_, end))| *end);
    // The first records may be gone, by compaction.
    let parts = ends.iter().map(|(number, (first, end))| (*number, (start.max(*first), *end)));
    let tails = Tails::between(parts);
    if tails.is_done() {
        return Ok(end);
    }
    let deadline = Instant::now() + BULK_TIMEOUT;
    read(
        config,
        &[(topic, &tails)],
        |_| Instant::now() >= deadline,
        |message| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            take(Keyed {
                offset: message.offset(),
                key: message.key().map(text).unwrap_or_default(),
                value: message.payload().map(<[u8]>::to_vec),
            });
        },
    )?;
    Ok(end)
}

/// Writes records with keys to the first partition of a topic, in this order; every one is acknowledged by all replicas
/// when it returns. Blocks.
pub(crate) fn write_keyed(
    config: &Config,
    topic: &str,
    records: &[(String, Option<Vec<u8>>)],
) -> Result<()> {
    let producer = Producer::without_transactions(config)?;
    for (key, value) in records {
        producer.send_keyed(topic, key, value.as_deref())?;
    }
    producer.drain()
}

/// Reads every committed record of topics after each start, until everything up to each end has been fetched. `is_late` is
/// asked after each look, with whether there was something.
fn read(
    config: &Config,
    of: &[(&str, &Tails)],
    is_late: impl FnMut(bool) -> bool,
    take: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    let reader = tail_reader(config, of)?;
    let read = read_by(&reader, of, is_late, take);
    // rdkafka waits until a consumer of a group has closed, in slices of 100 ms and without a deadline: nothing depends on it.
    let closing = thread::Builder::new().name("reader-close".into()).spawn(move || drop(reader));
    if let Err(error) = closing {
        tracing::debug!(%error, "a reader was closed without a thread of its own");
    }
    read
}

fn read_by(
    reader: &BaseConsumer<Listener>,
    of: &[(&str, &Tails)],
    mut is_late: impl FnMut(bool) -> bool,
    mut take: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    const ACTION: &str = "read a topic up to its end";
    let listener = reader.context();
    loop {
        let heard = listener.heard.times();
        let found = reader.poll(Duration::from_millis(5));
        let is_news = matches!(found, Some(Ok(_)));
        match found {
            Some(Ok(message)) => take(&message),
            Some(Err(error)) => {
                let topic = of.first().map_or("", |(topic, _)| topic);
                let failure = listener.failure(ACTION, &error).about(topic, Vec::new());
                // An outage may end by itself before the deadline.
                if !failure.is_outage() {
                    return Err(failure);
                }
            }
            // The queue was empty, and what the statistics before it tell of had been put there.
            None if listener.heard.times() == heard && missing(listener, of).is_none() => {
                return Ok(());
            }
            None => {}
        }
        if is_late(is_news) {
            let reason = missing(listener, of).unwrap_or_default();
            let reason = listener.heard.explain(reason);
            return Err(KafkaFailure::Outage { action: ACTION, reason });
        }
    }
}

/// Which partitions of the first topic that has such are not fetched to their ends, for people; none when all are.
fn missing(listener: &Listener, of: &[(&str, &Tails)]) -> Option<String> {
    let fetched = listener.heard.fetched();
    let nothing = BTreeMap::new();
    of.iter().find_map(|(topic, tails)| {
        let next = fetched.get(*topic).unwrap_or(&nothing);
        (!tails.are_fetched(next)).then(|| tails.missing(next))
    })
}

fn tail_reader(config: &Config, of: &[(&str, &Tails)]) -> Result<BaseConsumer<Listener>> {
    let topic = of.first().map_or("", |(topic, _)| topic);
    let reader: BaseConsumer<Listener> =
        create(properties::tail_reader(&config.kafka, topic, of.len()))?;
    // Waits for a connection. An assignment that meets none waits for librdkafka's next look for leaders, a second later.
    let (asked, timeout) =
        if of.len() > 1 { (None, BULK_TIMEOUT) } else { (Some(topic), REQUEST_TIMEOUT) };
    reader
        .fetch_metadata(asked, timeout)
        .map_err(|error| reader.context().failure("look a topic up", &error))?;
    let mut list = TopicPartitionList::new();
    let mut starts = of.iter().flat_map(|(topic, tails)| {
        tails.starts().map(|(partition, start)| (*topic, partition, start))
    });
    let assigned = starts
        .try_for_each(|(topic, partition, start)| {
            list.add_partition_offset(topic, partition, Offset::Offset(start))
        })
        .and_then(|()| reader.assign(&list));
    assigned.map_err(|error| reader.context().failure("read the checkpoints", &error))?;
    Ok(reader)
}

/// How long to sleep when waiting began then: an eighth of the time waited, so that short waits end soon and
/// long ones cost little.
fn pause(began: Instant) -> Duration {
    (began.elapsed() / 8).clamp(PAUSE_MIN, PAUSE_MAX)
}

fn record(message: &Message) -> BaseRecord<'_, str, [u8], usize> {
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
    for (key, value) in message.headers.iter() {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    BaseRecord {
        topic: &message.topic,
        partition: message.partition,
        payload: Some(&message.payload),
        key: Some(&message.key),
        timestamp: Some(message.timestamp_ms),
        headers: Some(headers),
        delivery_opaque: usize::try_from(message.position).unwrap_or_default(),
    }
}

/// Takes what librdkafka tells besides answers.
#[derive(Default)]
struct Listener {
    heard: Heard,
    /// Records that were not taken.
    undelivered: Mutex<Vec<(Code, RecordId)>>,
}

impl Listener {
    fn failure(&self, action: &'static str, error: &KafkaError) -> KafkaFailure {
        sort(action, code(error), self.heard.explain(error.to_string()))
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.anything();
        // What matters comes as an error as well, and is logged where it is handled.
        tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        match code(&error) {
            // It follows the complaint that says why.
            Code::AllBrokersDown => self.heard.anything(),
            _ => self.heard.complaint(reason),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.heard.statistics(statistics);
    }
}

impl ConsumerContext for Listener {}

impl ProducerContext for Listener {
    /// The event's position.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, position: usize) {
        self.heard.anything();
        let Err((error, message)) = result else { return };
        let mut undelivered = locked(&self.undelivered);
        if undelivered.len() < SUSPECTS_MAX {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            let position = i64::try_from(position).unwrap_or(i64::MAX);
            undelivered
                .push((code(error), RecordId { topic: message.topic().to_owned(), key, position }));
        }
    }
}

fn create<T: FromClientConfigAndContext<Listener>>(properties: Properties) -> Result<T> {
    let mut settings: ClientConfig = properties.into_iter().collect();
    settings.set_log_level(RDKafkaLogLevel::Info);
    settings.create_with_context(Listener::default()).map_err(|error| KafkaFailure::Settings {
        reason: match error {
            // The value can be a secret.
            KafkaError::ClientConfig(_, _, name, _) => {
                format!("librdkafka does not take {name}, or not with this value")
            }
            other => other.to_string(),
        },
    })
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(BULK_TIMEOUT)).operation_timeout(Some(BULK_TIMEOUT))
}

/// Waits for an answer that a thread of librdkafka brings, in time, if only to say that it is late.
fn wait<T>(answer: impl Future<Output = Result<T, KafkaError>>) -> Result<T, KafkaError> {
    let mut answer = pin!(answer);
    loop {
        match answer.as_mut().now_or_never() {
            Some(answer) => return answer,
            None => thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn code(error: &KafkaError) -> Code {
    match error {
        // The one that carries a code and does not give it away.
        KafkaError::AdminOp(code) => *code,
        other => other.rdkafka_error_code().unwrap_or(Code::Unknown),
    }
}

/// Sorts Kafka's errors by what the relay does about them.
fn sort(action: &'static str, code: Code, reason: String) -> KafkaFailure {
    match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => {
            KafkaFailure::Fenced { action, reason }
        }
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidRecord
        | Code::InvalidTimestamp => KafkaFailure::Refused { suspects: Vec::new(), reason },
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic => KafkaFailure::TopicMissing { topic: String::new(), reason },
        Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::PolicyViolation => KafkaFailure::TopicUnfit { topic: String::new(), reason },
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            KafkaFailure::Forbidden { action, topic: String::new(), reason }
        }
        // The broker knows its own maximum; waiting does not change it.
        Code::InvalidTransactionTimeout => KafkaFailure::Settings { reason },
        _ => KafkaFailure::Outage { action, reason },
    }
}
