//! Producers: records are sent, acknowledged and committed.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use annals_schemas::{SCHEMA_ID_HEADER, to_wire_format};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::client::{EventContext, REQUEST_TIMEOUT, Result, create};
use super::error::{code, sort};
use crate::config::Config;
use crate::kafka::properties::{self, Properties};
use crate::kafka::unacknowledged::Unacknowledged;
use crate::model::message::Message;
use crate::report::kafka_failure::{KafkaFailure, RecordId};
use crate::report::threads::locked;

/// The longest single call that takes over a transactional id; it is continued by the next one.
const INIT_SLICE: Duration = Duration::from_secs(2);
/// The time after which an earlier transaction of the id counts as one that does not end.
const BUSY_AFTER: Duration = Duration::from_secs(4);
/// The first and the longest sleep of the sending thread between polls for acknowledgements:
/// rdkafka's `poll` with a time-out spins.
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(1);
/// The deadline of one call of abort: it waits for delivery reports, which only `poll` takes.
const ABORT_SLICE: Duration = Duration::from_millis(20);

/// Writes records: in Kafka transactions if it has a transactional id. Making another producer with
/// the same transactional id fences this one.
#[expect(missing_debug_implementations, reason = "rdkafka's producer has none")]
pub struct Producer {
    client: BaseProducer<EventContext>,
    deadline: Duration,
    /// The topic of checkpoints.
    checkpoints: Arc<str>,
    /// The largest batch that it makes, in bytes.
    batch_bytes: usize,
    /// Of topics that take smaller batches.
    unacknowledged: Mutex<Unacknowledged>,
    open: Mutex<BegunTransaction>,
    /// None: without transactions.
    transactional_id: Option<String>,
}

/// The transaction that a producer has begun.
#[derive(Clone, Copy)]
struct BegunTransaction {
    began: Instant,
    /// How many records were sent in it.
    records: usize,
}

impl BegunTransaction {
    fn begin() -> Self {
        Self { began: Instant::now(), records: 0 }
    }
}

impl Producer {
    /// Makes the producer of a transactional id; connects in the background.
    ///
    /// # Errors
    /// [`KafkaFailure::Settings`] when the settings in `[kafka]` cannot be used.
    pub fn connect(config: &Config, transactional_id: &str) -> Result<Self> {
        Self::with(
            config,
            properties::producer(config, Some(transactional_id)),
            Some(transactional_id),
        )
    }

    /// Makes a producer without transactions, which keeps the order of each partition: after its
    /// first failure it sends nothing more. `init`, `begin` and `commit` do nothing.
    ///
    /// # Errors
    /// [`KafkaFailure::Settings`] when the settings in `[kafka]` cannot be used.
    pub fn without_transactions(config: &Config) -> Result<Self> {
        Self::with(config, properties::producer(config, None), None)
    }

    fn with(
        config: &Config,
        properties: Properties,
        transactional_id: Option<&str>,
    ) -> Result<Self> {
        let batch_bytes = properties.get("batch.size").and_then(|bytes| bytes.parse().ok());
        let client = create(properties)?;
        let transactional_id = transactional_id.map(str::to_owned);
        Ok(Self {
            client,
            deadline: config.kafka.transaction_timeout,
            checkpoints: config.checkpoint_topic(),
            batch_bytes: batch_bytes.unwrap_or(usize::MAX),
            unacknowledged: Mutex::default(),
            open: Mutex::new(BegunTransaction::begin()),
            transactional_id,
        })
    }

    /// Fences earlier producers of the transactional id, and aborts their open transactions. To be
    /// called once, before everything else.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; nothing was published. Drop the producer before making another:
    /// it would retry, and fence that one.
    pub fn init(&self) -> Result<()> {
        let Some(id) = &self.transactional_id else { return Ok(()) };
        let action = "take over a transactional id";
        let began = Instant::now();
        self.connect_first();
        loop {
            let initialized = self.client.init_transactions(INIT_SLICE);
            self.poll_events();
            match initialized {
                Ok(()) => return Ok(()),
                Err(error) if is_busy(&error) && began.elapsed() >= BUSY_AFTER => {
                    let reason = self.client.context().events.explain(error.to_string());
                    return Err(KafkaFailure::Busy { action, reason: format!("{id}: {reason}") });
                }
                Err(KafkaError::Transaction(cause))
                    if cause.is_retriable()
                        && began.elapsed() < self.deadline + REQUEST_TIMEOUT => {}
                Err(error) => return Err(with_id(id, self.failure(action, &error))),
            }
        }
    }

    /// Waits for a connection: without one, librdkafka asks for the coordinator of transactions
    /// half a second later. If there is no answer, what follows fails and says why.
    fn connect_first(&self) {
        let asked = self.client.client().fetch_metadata(Some(&self.checkpoints), INIT_SLICE);
        if let Err(error) = asked {
            tracing::debug!(%error, "no connection yet");
        }
    }

    /// Begins a transaction; the broker learns of it with its first record.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; nothing was published.
    pub fn begin(&self) -> Result<()> {
        *locked(&self.open) = BegunTransaction::begin();
        if self.transactional_id.is_none() {
            return Ok(());
        }
        self.client.begin_transaction().map_err(|error| self.failure("begin a transaction", &error))
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.transactional_id.is_some()
    }

    /// Queues a message; returns before it is sent. [`drain`](Self::drain) returns its outcome.
    ///
    /// # Errors
    /// Any [`KafkaFailure`], of this message or of an earlier one.
    pub fn send(&self, message: &Message) -> Result<()> {
        if let Some(max) = message.batch_bytes_max.filter(|max| *max < self.batch_bytes) {
            self.keep_below(message, max)?;
        }
        locked(&self.open).records += 1;
        let Err(mut refused) = self.client.send(record(message)) else { return Ok(()) };
        let began = Instant::now();
        while code(&refused.0) == Code::QueueFull && began.elapsed() < self.deadline {
            self.poll_events();
            thread::sleep(pause(began));
            match self.client.send(refused.1) {
                Ok(()) => return Ok(()),
                Err(again) => refused = again,
            }
        }
        Err(self.not_sent(message, &refused.0))
    }

    /// Keeps the batch with a message below the size that its topic takes.
    fn keep_below(&self, message: &Message, max: usize) -> Result<()> {
        if locked(&self.unacknowledged).is_full(message, max) {
            self.drain_midway()?;
        }
        locked(&self.unacknowledged).sent(message);
        Ok(())
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
            self.poll_events();
            thread::sleep(pause(began));
        }
    }

    /// Waits until the broker has acknowledged all queued messages. To be called before
    /// [`commit`](Self::commit): rdkafka's own flush sleeps in slices of 100 ms.
    ///
    /// # Errors
    /// Any [`KafkaFailure`] of a message, as soon as it is known.
    pub fn drain(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            self.poll_events();
            self.undelivered()?;
            if self.client.in_flight_count() == 0 {
                locked(&self.unacknowledged).acknowledged();
                return Ok(());
            }
            if began.elapsed() >= self.deadline + REQUEST_TIMEOUT {
                let late = KafkaError::Flush(Code::OperationTimedOut);
                return Err(self.failure("send records", &late));
            }
            thread::sleep(pause(began));
        }
    }

    /// Waits like [`drain`](Self::drain), before more is sent in the same transaction.
    ///
    /// # Errors
    /// As of [`drain`](Self::drain), and [`KafkaFailure::Slow`] if Kafka could abort the
    /// transaction before it is committed: it would say only that another producer has taken over,
    /// and the same transaction would be tried again.
    pub(crate) fn drain_midway(&self) -> Result<()> {
        self.drain()?;
        let BegunTransaction { began, records } = *locked(&self.open);
        let after = began.elapsed();
        let is_slow = self.is_transactional() && after >= self.deadline / 2;
        if is_slow { Err(KafkaFailure::Slow { acknowledged: records, after }) } else { Ok(()) }
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// Any [`KafkaFailure`]; after [`KafkaFailure::UnknownOutcome`] the transaction may be
    /// committed.
    pub fn commit(&self) -> Result<()> {
        let action = "commit a transaction";
        if self.transactional_id.is_none() {
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
    /// Any [`KafkaFailure`]; drop the producer then.
    pub fn abort(&self) -> Result<()> {
        let deadline = Instant::now() + self.deadline;
        loop {
            let aborted = self.client.abort_transaction(ABORT_SLICE);
            self.poll_events();
            match aborted {
                Ok(()) => break,
                Err(KafkaError::Transaction(cause))
                    if cause.is_retriable() && Instant::now() < deadline => {}
                Err(error) => return Err(self.failure("abort a transaction", &error)),
            }
        }
        locked(&self.client.context().undelivered).clear();
        locked(&self.unacknowledged).acknowledged();
        Ok(())
    }

    /// Takes librdkafka's events since the last call.
    fn poll_events(&self) {
        self.client.context().events.poll_until_quiet(|| self.client.poll(Duration::ZERO));
    }

    /// The failure of undelivered messages, if there are any.
    fn undelivered(&self) -> Result<()> {
        let undelivered = std::mem::take(&mut *locked(&self.client.context().undelivered));
        // These codes follow the failure of another record.
        let followed = |code| {
            matches!(code, Code::InvalidDifferentRecord | Code::PurgeQueue | Code::PurgeInflight)
        };
        let causes = undelivered.iter().filter(|(code, _)| !followed(*code));
        let Some((cause, record)) = causes.chain(&undelivered).next() else { return Ok(()) };
        let error = KafkaError::MessageProduction(*cause);
        let error = if followed(*cause) { self.cause_of_abort().unwrap_or(error) } else { error };
        let failure = self.failure("send records", &error);
        let topic = record.topic.clone();
        let records = undelivered.iter().filter(|(code, _)| code == cause);
        Err(failure.about(&topic, records.map(|(_, record)| record.clone()).collect()))
    }

    /// Why the transaction failed, if no record was the cause: librdkafka names the reason when
    /// another one is begun.
    fn cause_of_abort(&self) -> Option<KafkaError> {
        match self.client.begin_transaction() {
            Err(KafkaError::Transaction(cause)) if cause.txn_requires_abort() => {
                Some(KafkaError::Transaction(cause))
            }
            Ok(()) | Err(_) => None,
        }
    }

    fn not_sent(&self, message: &Message, error: &KafkaError) -> KafkaFailure {
        self.poll_events();
        // A transaction that has failed takes no more messages: report the first failure.
        if let Err(earlier) = self.undelivered() {
            return earlier;
        }
        let Message { topic, key, position, .. } = message;
        let record = RecordId { topic: topic.to_string(), key: key.clone(), position: *position };
        self.failure("send a record", error).about(topic, vec![record])
    }

    /// The failure of an error; of the fatal error, if the producer has had one.
    fn failure(&self, action: &'static str, error: &KafkaError) -> KafkaFailure {
        self.poll_events();
        match self.client.client().fatal_error() {
            // This one says only that a record was not delivered; the record's own error says why.
            Some((Code::GaplessGuarantee, _)) | None => {
                self.client.context().failure(action, error)
            }
            Some((cause, text)) => sort(action, cause, text),
        }
    }
}

/// The failure of a transactional id: a right can be missing for ids of this name.
fn with_id(id: &str, failure: KafkaFailure) -> KafkaFailure {
    match failure {
        KafkaFailure::Outage { action, reason } => {
            KafkaFailure::Outage { action, reason: format!("{id}: {reason}") }
        }
        other => other,
    }
}

/// Whether an earlier transaction of the transactional id has not ended.
fn is_busy(error: &KafkaError) -> bool {
    code(error) == Code::ConcurrentTransactions
}

/// Writes records to the first partition of a topic, in this order; all replicas have acknowledged
/// them when it returns. Blocks.
pub(crate) fn write_keyed(
    config: &Config,
    topic: &str,
    records: &[(String, Option<Vec<u8>>)],
) -> Result<()> {
    let producer = Producer::with(config, properties::single_writer(config), None)?;
    for (key, value) in records {
        producer.send_keyed(topic, key, value.as_deref())?;
    }
    producer.drain()
}

/// The sleep between two polls: an eighth of the time waited so far, so that short waits end soon
/// and long ones cost little.
fn pause(began: Instant) -> Duration {
    (began.elapsed() / 8).clamp(PAUSE_MIN, PAUSE_MAX)
}

fn record(message: &Message) -> BaseRecord<'_, str, [u8], usize> {
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
    for (key, value) in message.headers.iter() {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    if let Some(id) = message.schema_header {
        // The bytes of the prefix.
        let value = to_wire_format(id, &[]);
        headers = headers.insert(Header { key: SCHEMA_ID_HEADER, value: Some(&value) });
    }
    BaseRecord {
        topic: &message.topic,
        partition: message.partition,
        payload: Some(&message.payload),
        key: Some(&message.key),
        timestamp: Some(message.recorded_at.as_millisecond()),
        headers: Some(headers),
        delivery_opaque: usize::try_from(message.position.get()).unwrap_or_default(),
    }
}
