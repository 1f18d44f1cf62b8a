//! The Kafka client. No other file of the relay names rdkafka.
//!
//! Everything here blocks, each call up to a deadline: it is for threads of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{self, Config};
use crate::kafka_failure::{KafkaFailure, RecordId};
use crate::message::Message;
use crate::tails::{self, Tails};
use crate::topic_policy::{TopicFacts, TopicPlan};
use futures_util::FutureExt;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// How long one question to the brokers may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The broker looks for transactions that are over time every 10 s: so long can one of another id stand
/// before a checkpoint, beyond its time-out.
const OVERTIME: Duration = Duration::from_secs(15);
/// How long the sending thread sleeps while acknowledgements are on their way. A `poll` with a time-out below
/// 2 ms would not sleep: rdkafka turns it into whole milliseconds, 0, and spins.
const DRAIN_PAUSE: Duration = Duration::from_micros(50);
/// Properties that [kafka.properties] can replace: a broker that is back is found within a second.
const CLIENT: [(&str, &str); 3] = [
    ("socket.timeout.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    ("reconnect.backoff.max.ms", "1000"),
];
/// The same for producers. A batch above a topic's limit is refused whole, however small its records.
const PRODUCER: [(&str, &str); 3] =
    [("linger.ms", "0"), ("batch.size", "524288"), ("topic.metadata.propagation.max.ms", "5000")];
/// So many records of a refused batch are named at most.
const SUSPECTS_MAX: usize = 1_000;

/// Writes records in Kafka transactions. There is one producer for a transactional id: making another
/// one fences this one.
pub struct Producer {
    client: BaseProducer<Listener>,
    /// How long a transactional call may take before its outcome counts as unknown.
    deadline: Duration,
}

impl Producer {
    /// Makes the producer of the configured deployment; connects in the background.
    ///
    /// # Errors
    /// [`KafkaFailure::Settings`] when the settings in `[kafka]` cannot be used.
    pub fn connect(config: &Config) -> Result<Self, KafkaFailure> {
        let timeout_ms = config.kafka.transaction_timeout.as_millis().to_string();
        let mut settings = client(&config.kafka, &PRODUCER);
        settings
            .set("transactional.id", config.transactional_id())
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("transaction.timeout.ms", &timeout_ms)
            .set("message.timeout.ms", &timeout_ms)
            .set("partitioner", "murmur2_random")
            .set("compression.type", &config.kafka.compression)
            // What is acknowledged needs no report: that halves the work of this side.
            .set("delivery.report.only.error", "true");
        Ok(Self { client: create(&settings)?, deadline: config.kafka.transaction_timeout })
    }

    /// Fences whoever used the transactional id before, and aborts what they left open. To be called
    /// once, before everything else.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; nothing was published.
    pub fn init(&self) -> Result<(), KafkaFailure> {
        let action = "take over the transactional id";
        self.client
            .init_transactions(self.deadline + OVERTIME)
            .map_err(|error| self.failure(action, &error))
    }

    /// Begins a transaction; the broker hears of it with its first record.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; nothing was published.
    pub fn begin(&self) -> Result<(), KafkaFailure> {
        self.client.begin_transaction().map_err(|error| self.failure("begin a transaction", &error))
    }

    /// Hands a message over; returns before it is sent. What becomes of it is for [`drain`](Self::drain)
    /// to say.
    ///
    /// # Errors
    /// Any [`KafkaFailure`], of this message or of one before it.
    pub fn send(&self, message: &Message) -> Result<(), KafkaFailure> {
        let mut record = record(message);
        let deadline = Instant::now() + self.deadline;
        loop {
            let (error, returned) = match self.client.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            if code(&error) != Code::QueueFull || Instant::now() >= deadline {
                return Err(self.not_sent(message, &error));
            }
            self.client.poll(Duration::ZERO);
            thread::sleep(DRAIN_PAUSE);
            record = returned;
        }
    }

    /// Waits until the broker has acknowledged everything that was sent. To be called before
    /// [`commit`](Self::commit): rdkafka's own waiting sleeps in slices of 100 ms.
    ///
    /// # Errors
    /// Any [`KafkaFailure`] of a message, as soon as it is known.
    pub fn drain(&self) -> Result<(), KafkaFailure> {
        let deadline = Instant::now() + self.deadline + REQUEST_TIMEOUT;
        loop {
            self.client.poll(Duration::ZERO);
            self.undelivered()?;
            if self.client.in_flight_count() == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(
                    self.failure("send records", &KafkaError::Flush(Code::OperationTimedOut))
                );
            }
            thread::sleep(DRAIN_PAUSE);
        }
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; after [`KafkaFailure::UnknownOutcome`] it may be committed all the same.
    pub fn commit(&self) -> Result<(), KafkaFailure> {
        let action = "commit a transaction";
        self.client.commit_transaction(self.deadline).map_err(|error| match &error {
            KafkaError::Transaction(cause) if cause.txn_requires_abort() => {
                self.failure(action, &error)
            }
            _ => match self.failure(action, &error) {
                fenced @ KafkaFailure::Fenced { .. } => fenced,
                failure => KafkaFailure::UnknownOutcome { action, reason: failure.to_string() },
            },
        })
    }

    /// Aborts the transaction, so that the producer can begin another one.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; the producer is of no use then.
    pub fn abort(&self) -> Result<(), KafkaFailure> {
        const SLICE: Duration = Duration::from_millis(20);
        let action = "abort a transaction";
        let deadline = Instant::now() + self.deadline;
        loop {
            // librdkafka waits for reports that only `poll` takes: a slice, the reports, and on.
            let error = match self.client.abort_transaction(SLICE) {
                Ok(()) => break,
                Err(error) => error,
            };
            let waits = matches!(&error, KafkaError::Transaction(cause) if cause.is_retriable());
            if !waits {
                return Err(self.failure(action, &error));
            }
            if Instant::now() >= deadline {
                return Err(KafkaFailure::UnknownOutcome {
                    action,
                    reason: self.client.context().reason(&error),
                });
            }
            self.client.poll(Duration::ZERO);
        }
        self.client.poll(Duration::ZERO);
        locked(&self.client.context().undelivered).clear();
        Ok(())
    }

    /// The failure of the messages that the broker did not take, if there are any.
    fn undelivered(&self) -> Result<(), KafkaFailure> {
        let undelivered = std::mem::take(&mut *locked(&self.client.context().undelivered));
        // Of these, others were the cause.
        let followed = |code| {
            matches!(code, Code::InvalidDifferentRecord | Code::PurgeQueue | Code::PurgeInflight)
        };
        let causes = undelivered.iter().filter(|(code, _)| !followed(*code));
        let Some((cause, record)) = causes.chain(&undelivered).next() else { return Ok(()) };
        let failure = self.failure("send records", &KafkaError::MessageProduction(*cause));
        let topic = record.topic.clone();
        let suspects = undelivered.iter().filter(|(code, _)| code == cause);
        Err(failure.about(&topic, suspects.map(|(_, record)| record.clone()).collect()))
    }

    fn not_sent(&self, message: &Message, error: &KafkaError) -> KafkaFailure {
        // In a transaction that has failed already, nothing can be sent: the cause is what counts.
        self.client.poll(Duration::ZERO);
        if let Err(earlier) = self.undelivered() {
            return earlier;
        }
        let Message { topic, key, position, .. } = message;
        let record = RecordId { topic: topic.to_string(), key: key.clone(), position: *position };
        self.failure("send a record", error).about(topic, vec![record])
    }

    /// Sorts an error. When the producer is dead, what killed it is asked for instead.
    fn failure(&self, action: &'static str, error: &KafkaError) -> KafkaFailure {
        match self.client.client().fatal_error() {
            Some((cause, text)) => sort(action, cause, text),
            None => sort(action, code(error), self.client.context().reason(error)),
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Makes sure that a topic is there, by its plan, and says how it is.
///
/// # Errors
/// [`KafkaFailure::TopicMissing`] with the command that creates it, when the relay may not;
/// [`KafkaFailure::TopicUnfit`] when Kafka will not create it so; [`KafkaFailure::Outage`].
pub fn ensure_topic(config: &Config, plan: &TopicPlan) -> Result<TopicFacts, KafkaFailure> {
    let admin: AdminClient<Listener> = create(&client(&config.kafka, &[]))?;
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let mut created = false;
    loop {
        if let Some(partitions) = partitions(admin.inner(), &plan.name)? {
            return Ok(plan.facts(partitions, &describe(&admin, &plan.name)?, created));
        }
        if !plan.create {
            return Err(plan.missing(&config.kafka.bootstrap_servers));
        }
        if !created {
            create_topic(&admin, plan)?;
            created = true;
        }
        // Brokers hear of a new topic one after the other.
        if Instant::now() >= deadline {
            let reason = format!("{} was created, and no broker knows of it yet", plan.name);
            return Err(KafkaFailure::Outage { action: "create a topic", reason });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// How many partitions a topic has; `None` if it does not exist.
fn partitions(client: &Client<Listener>, topic: &str) -> Result<Option<i32>, KafkaFailure> {
    let failed = |error| client.context().failure("look a topic up", &error);
    let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(failed)?;
    let Some(found) = metadata.topics().first() else { return Ok(None) };
    match found.error().map(Code::from) {
        None => Ok(i32::try_from(found.partitions().len()).ok()),
        Some(Code::UnknownTopicOrPartition) => Ok(None),
        Some(code) => Err(failed(KafkaError::MetadataFetch(code)).about(topic, Vec::new())),
    }
}

/// A topic's settings; none where the broker does not show them.
fn describe(
    admin: &AdminClient<Listener>,
    topic: &str,
) -> Result<BTreeMap<String, String>, KafkaFailure> {
    const ACTION: &str = "read a topic's settings";
    let asked = [ResourceSpecifier::Topic(topic)];
    let answer =
        wait(ACTION, admin.inner().context(), admin.describe_configs(&asked, &admin_options()))?;
    // rdkafka 0.39 does not look at a resource's own error: a refusal comes as no settings at all.
    let entries = answer.into_iter().flatten().flat_map(|resource| resource.entries);
    Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

fn create_topic(admin: &AdminClient<Listener>, plan: &TopicPlan) -> Result<(), KafkaFailure> {
    const ACTION: &str = "create a topic";
    let mut topic = NewTopic::new(
        &plan.name,
        plan.partitions,
        TopicReplication::Fixed(plan.replication_factor),
    );
    topic.config =
        plan.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let listener = admin.inner().context();
    let answer = wait(ACTION, listener, admin.create_topics([&topic], &admin_options()))?;
    match answer.into_iter().next() {
        // Another relay was faster.
        None | Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => {
            let failure = listener.failure(ACTION, &KafkaError::MetadataFetch(code));
            let reason = format!("kafka does not create it with these settings: {code}");
            let unfit = KafkaFailure::TopicUnfit { topic: plan.name.clone(), reason };
            Err(if failure.is_outage() { failure } else { unfit })
        }
    }
}

/// Makes sure that the topic of checkpoints is there, compacted, with one partition for each shard.
///
/// # Errors
/// [`KafkaFailure::TopicUnfit`] when it is something else; those of [`ensure_topic`].
pub fn ensure_checkpoint_topic(config: &Config, shards: u16) -> Result<(), KafkaFailure> {
    let plan = TopicPlan::checkpoints(&config.topics, &config.checkpoint_topic(), shards);
    plan.fits(&ensure_topic(config, &plan)?)
}

/// The last committed record of each shard's partition of the checkpoint topic; none where there is no
/// record. To be called after [`Producer::init`]: everything that was committed by then is seen.
///
/// # Errors
/// [`KafkaFailure::Outage`], also when a transaction of somebody else stays open before the end.
pub fn read_checkpoints(
    config: &Config,
    shards: u16,
) -> Result<BTreeMap<u16, Vec<u8>>, KafkaFailure> {
    let topic = config.checkpoint_topic();
    let deadline = Instant::now() + config.kafka.transaction_timeout + OVERTIME;
    let mut tails = Tails::new(ends(config, &topic, shards)?);
    while !tails.is_done() {
        let last = read_tails(config, &topic, &tails, deadline)?;
        tails.take(last);
    }
    Ok(tails.records())
}

/// First offset and end of each partition.
fn ends(config: &Config, topic: &str, partitions: u16) -> Result<Vec<(i64, i64)>, KafkaFailure> {
    let mut settings = client(&config.kafka, &[]);
    // A client that reads committed records only is told the last stable offset instead of the end. The
    // broker answers a commit before it moves that: what is already committed would be missed.
    settings.set("isolation.level", "read_uncommitted");
    let desk: BaseConsumer<Listener> = create(&settings)?;
    let end = |partition: u16| desk.fetch_watermarks(topic, partition.into(), REQUEST_TIMEOUT);
    let failed = |error| {
        desk.context().failure("find the end of the checkpoints", &error).about(topic, Vec::new())
    };
    (0..partitions).map(end).collect::<Result<_, _>>().map_err(failed)
}

/// The last committed record after each start, once everything up to each end has been fetched.
fn read_tails(
    config: &Config,
    topic: &str,
    tails: &Tails,
    deadline: Instant,
) -> Result<BTreeMap<i32, Option<Vec<u8>>>, KafkaFailure> {
    const ACTION: &str = "read the checkpoints";
    let reader = tail_reader(config, topic, tails)?;
    let listener = reader.context();
    let mut last = BTreeMap::new();
    loop {
        let heard = listener.heard.load(Ordering::Relaxed);
        match reader.poll(Duration::from_millis(5)) {
            Some(Ok(message)) => {
                last.insert(message.partition(), message.payload().map(<[u8]>::to_vec));
            }
            Some(Err(error)) => {
                let failure = listener.failure(ACTION, &error).about(topic, Vec::new());
                // An outage may end by itself before the deadline.
                if !failure.is_outage() {
                    return Err(failure);
                }
            }
            // The queue was empty, and what the statistics before it tell of had been put there.
            None if listener.heard.load(Ordering::Relaxed) == heard
                && tails.are_fetched(&locked(&listener.fetched)) =>
            {
                return Ok(last);
            }
            None => {}
        }
        if Instant::now() >= deadline {
            let reason = tails.missing(&locked(&listener.fetched));
            return Err(KafkaFailure::Outage {
                action: ACTION,
                reason: listener.with_complaint(reason),
            });
        }
    }
}

fn tail_reader(
    config: &Config,
    topic: &str,
    tails: &Tails,
) -> Result<BaseConsumer<Listener>, KafkaFailure> {
    let mut settings = client(&config.kafka, &[]);
    settings
        .set("isolation.level", "read_committed")
        // Partitions are assigned by hand. librdkafka wants a group all the same, and never joins it.
        .set("group.id", topic)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "20")
        // How far a partition is fetched, control records included, is said nowhere else.
        .set("statistics.interval.ms", "10");
    let reader: BaseConsumer<Listener> = create(&settings)?;
    let mut list = TopicPartitionList::new();
    let assigned = tails
        .starts()
        .try_for_each(|(partition, start)| {
            list.add_partition_offset(topic, partition, Offset::Offset(start))
        })
        .and_then(|()| reader.assign(&list));
    assigned.map_err(|error| reader.context().failure("read the checkpoints", &error))?;
    Ok(reader)
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

/// What librdkafka tells besides answers.
#[derive(Default)]
struct Listener {
    /// How many things it has told.
    heard: AtomicU64,
    /// The last trouble with a broker, and when that was.
    complaint: Mutex<Option<(Instant, String)>>,
    /// Records that were not taken.
    undelivered: Mutex<Vec<(Code, RecordId)>>,
    /// The next offset to fetch of each partition.
    fetched: Mutex<BTreeMap<i32, i64>>,
}

impl Listener {
    fn failure(&self, action: &'static str, error: &KafkaError) -> KafkaFailure {
        sort(action, code(error), self.reason(error))
    }

    fn reason(&self, error: &KafkaError) -> String {
        self.with_complaint(error.to_string())
    }

    fn with_complaint(&self, reason: String) -> String {
        const RECENT: Duration = Duration::from_secs(60);
        match &*locked(&self.complaint) {
            Some((at, complaint)) if at.elapsed() < RECENT => {
                format!("{reason}; last heard: {complaint}")
            }
            Some(_) | None => reason,
        }
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        // What matters comes as an error as well, and is logged where it is handled.
        tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        *locked(&self.complaint) = Some((Instant::now(), reason.to_owned()));
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        if let Some(fetched) = tails::fetched(statistics) {
            *locked(&self.fetched) = fetched;
        }
    }
}

impl ConsumerContext for Listener {}

impl ProducerContext for Listener {
    /// The event's position.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, position: usize) {
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

/// What a client is made with: defaults, what is configured, and what has to be.
fn client(kafka: &config::Kafka, defaults: &[(&str, &str)]) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set_log_level(RDKafkaLogLevel::Info);
    for (name, value) in CLIENT.iter().chain(defaults) {
        settings.set(*name, *value);
    }
    for (name, value) in &kafka.properties {
        settings.set(name, value.expose());
    }
    settings
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        // A topic that the broker makes by itself has the broker's retention: it would lose events.
        .set("allow.auto.create.topics", "false");
    settings
}

fn create<T: FromClientConfigAndContext<Listener>>(
    settings: &ClientConfig,
) -> Result<T, KafkaFailure> {
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
    AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT))
}

/// Waits for an answer that a thread of librdkafka brings.
fn wait<T>(
    action: &'static str,
    listener: &Listener,
    answer: impl Future<Output = Result<T, KafkaError>>,
) -> Result<T, KafkaFailure> {
    let mut answer = pin!(answer);
    // librdkafka has its own deadline; this one is for an answer that never comes.
    let deadline = Instant::now() + 2 * REQUEST_TIMEOUT;
    loop {
        let error = match answer.as_mut().now_or_never() {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => error,
            None if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            None => KafkaError::MetadataFetch(Code::OperationTimedOut),
        };
        return Err(listener.failure(action, &error));
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
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp => KafkaFailure::Refused { suspects: Vec::new(), reason },
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::UnknownTopicId
        | Code::InvalidTopic => KafkaFailure::TopicMissing { topic: String::new(), reason },
        // The broker knows its own maximum; waiting does not change it.
        Code::InvalidTransactionTimeout => KafkaFailure::Settings { reason },
        _ => KafkaFailure::Outage { action, reason },
    }
}

/// A poisoned lock means that a callback panicked; what it guards is replaced whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
