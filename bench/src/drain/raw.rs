//! The bare producer: librdkafka, idempotent, from memory, at its maximum rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::records::{Record, Records};
use crate::kafka::client;

/// The fastest among 0, 5, 20 and 100.
pub(crate) const LINGER_MS: u32 = 5;
/// The relay's default compression.
const COMPRESSION: &str = "lz4";
/// Enough that the sending thread never waits for the broker.
const QUEUE_RECORDS_MAX: &str = "2000000";
const QUEUE_KBYTES_MAX: &str = "2000000";
/// As the relay's: above a topic's limit of 1 MiB a batch would be refused.
const BATCH_BYTES_MAX: &str = "524288";
const FLUSH_DEADLINE: Duration = Duration::from_secs(120);

/// The settings and the records, for the reader of the table.
pub(crate) fn describe(linger_ms: u32) -> String {
    format!(
        "one thread, enable.idempotence, acks=all, linger.ms={linger_ms}, compression.type={COMPRESSION}, \
         batch.size={BATCH_BYTES_MAX}, no transactions"
    )
}

/// Sends every record, and waits until the last is acknowledged.
pub(crate) async fn send(
    brokers: &str,
    topic: &str,
    linger_ms: u32,
    records: &Arc<Records>,
) -> anyhow::Result<()> {
    let producer = producer(brokers, linger_ms)?;
    let (topic, records) = (topic.to_owned(), Arc::clone(records));
    tokio::task::spawn_blocking(move || send_all(&producer, &topic, &records)).await?
}

/// Counts the records that were not accepted.
#[derive(Default)]
struct Undelivered(AtomicU64);

impl ClientContext for Undelivered {}

impl ProducerContext for Undelivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn producer(brokers: &str, linger_ms: u32) -> anyhow::Result<BaseProducer<Undelivered>> {
    let mut config = client(brokers);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", linger_ms.to_string())
        .set("compression.type", COMPRESSION)
        .set("batch.size", BATCH_BYTES_MAX)
        .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX)
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX)
        .set("delivery.report.only.error", "true");
    config.create_with_context(Undelivered::default()).context("make the bare producer")
}

fn send_all(
    producer: &BaseProducer<Undelivered>,
    topic: &str,
    records: &Records,
) -> anyhow::Result<()> {
    for record in &records.records {
        let mut produced = produced(topic, &records.header_names, record);
        while let Err((error, returned)) = producer.send(produced) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            anyhow::ensure!(error == full, "the bare producer could not send: {error}");
            producer.poll(Duration::from_millis(1));
            produced = returned;
        }
    }
    producer.flush(FLUSH_DEADLINE).context("wait for the bare producer")?;
    let undelivered = producer.context().0.load(Ordering::Relaxed);
    anyhow::ensure!(undelivered == 0, "{undelivered} records of the bare producer were refused");
    Ok(())
}

fn produced<'a>(
    topic: &'a str,
    names: &'a [String],
    record: &'a Record,
) -> BaseRecord<'a, [u8], [u8]> {
    let headers = names
        .iter()
        .zip(record.headers())
        .fold(OwnedHeaders::new_with_capacity(names.len()), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
    BaseRecord::to(topic)
        .key(&*record.key)
        .payload(&*record.value)
        .timestamp(record.timestamp_ms)
        .headers(headers)
}
