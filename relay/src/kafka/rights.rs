//! Which rights are missing. Nothing is written to prove a right to write: a request is sent that
//! brokers refuse in any case, after they have checked the right.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{EventContext, REQUEST_TIMEOUT, Result, create};
use super::error::code;
use crate::config::Config;
use crate::kafka::properties;
use crate::report::threads::locked;

const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The most topics of one request: as many as the context keeps undelivered records of.
const TOPICS_AT_ONCE_MAX: usize = 500;

/// Those of these topics that the login may not read. Blocks.
pub(crate) fn unreadable(config: &Config, topics: &[String]) -> Result<Vec<String>> {
    let reader: BaseConsumer<EventContext> = create(properties::end_reader(&config.kafka))?;
    let mut unreadable = Vec::new();
    for topic in topics {
        let failed = |error| reader.context().failure("read a topic", &error);
        if !is_readable(&reader, topic).map_err(failed)? {
            unreadable.push(topic.clone());
        }
    }
    // rdkafka closes a consumer of a group in slices of 100 ms: nothing depends on it.
    drop(thread::spawn(move || drop(reader)));
    Ok(unreadable)
}

/// Reads from the end of a partition: the broker answers with no record, or refuses.
fn is_readable(reader: &BaseConsumer<EventContext>, topic: &str) -> Result<bool, KafkaError> {
    let mut end = TopicPartitionList::new();
    end.add_partition_offset(topic, 0, Offset::End)?;
    reader.assign(&end)?;
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let mut is_readable = None;
    while is_readable.is_none() && Instant::now() < deadline {
        is_readable = match reader.poll(POLL_INTERVAL) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => Some(true),
            Some(Err(error)) if code(&error) == Code::TopicAuthorizationFailed => Some(false),
            Some(Err(_)) | None => None,
        };
    }
    reader.unassign()?;
    while reader.poll(Duration::ZERO).is_some() {}
    Ok(is_readable.unwrap_or(true))
}

/// Those of these topics that the login may not write to. Blocks.
pub(crate) fn unwritable(config: &Config, topics: &[String]) -> Result<Vec<String>> {
    let mut unwritable = Vec::new();
    for some in topics.chunks(TOPICS_AT_ONCE_MAX) {
        let producer: BaseProducer<EventContext> = create(properties::refused_writer(config))?;
        for topic in some {
            let record = BaseRecord::<(), [u8], usize>::with_opaque_to(topic, 0).partition(0);
            // A record that is not taken is not refused either.
            drop(producer.send(record));
        }
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            // rdkafka's `poll` with a time-out spins.
            producer.poll(Duration::ZERO);
            thread::sleep(POLL_INTERVAL);
        }
        let undelivered = locked(&producer.context().undelivered);
        let refused =
            undelivered.iter().filter(|(code, _)| *code == Code::TopicAuthorizationFailed);
        unwritable.extend(refused.map(|(_, record)| record.topic.clone()));
    }
    Ok(unwritable)
}

/// Whether the login may use the transactional ids of the deployment. Blocks.
pub(crate) fn may_use_transactional_ids(config: &Config) -> Result<bool> {
    let producer: BaseProducer<EventContext> = create(properties::refused_transactions(config))?;
    let refused = producer.init_transactions(REQUEST_TIMEOUT);
    Ok(!refused.is_err_and(|error| code(&error) == Code::TransactionalIdAuthorizationFailed))
}
