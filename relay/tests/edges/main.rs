//! The properties on which the relay relies in Kafka and the schema registry, tried on the real
//! ones.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod checkpoints;
mod outages;
mod partitions;
mod producer;
mod refusals;
mod registry;
mod topics;

use std::sync::Arc;
use std::time::Instant;

use annals_relay::config::Config;
use annals_relay::kafka::topic_plan::TopicPlan;
use annals_relay::kafka::{Producer, ensure_checkpoint_topic, ensure_topic};
use annals_relay::model::headers::Headers;
use annals_relay::model::message::Message;
use annals_relay::report::kafka_failure::KafkaFailure;
use annals_store::Position;
use annals_testkit::{DEADLINE, Testbed};

/// An address without a listener: a port that was free could be that of another test's server by
/// now.
const NOBODY: &str = "127.0.0.1:1";

/// The configuration of a relay in a test bed; `more` adds keys or replaces them.
fn config(bed: &Testbed, more: &str) -> Config {
    let environment = bed.environment();
    let [database, kafka, registry] =
        [&bed.database_url(), &environment.kafka, &environment.registry_url]
            .map(|url| format!("{url:?}"));
    let (prefix, claims, name) = (bed.topic_prefix(), bed.claims_topic(), bed.name());
    let base = format!(
        "database.url = {database}\nkafka.bootstrap_servers = {kafka}\nregistry.url = {registry}\n\
         topics.prefix = {prefix:?}\ntopics.claims = {claims:?}\nrelay.deployment = {name:?}\n"
    );
    Config::parse(&format!("{base}{more}")).unwrap()
}

/// The result of an operation that is tried again while Kafka is unavailable, as the relay does: a
/// busy broker can be late with the leaders of a new topic.
fn once_available<T>(operation: impl Fn() -> Result<T, KafkaFailure>) -> Result<T, KafkaFailure> {
    let began = Instant::now();
    loop {
        match operation() {
            Err(failure) if failure.is_outage() && began.elapsed() < DEADLINE => {}
            done => return done,
        }
    }
}

/// The topic of a category, made by the configured policy.
fn topic(config: &Config, category: &str) -> Arc<str> {
    let name = config.topic(category);
    let plan = TopicPlan::events(&config.topics, &name);
    once_available(|| ensure_topic(config, &plan)).unwrap();
    name.into()
}

/// Makes the topic of checkpoints, with so many shards.
fn checkpoint_topic(config: &Config, shards: u16) {
    once_available(|| ensure_checkpoint_topic(config, shards)).unwrap();
}

/// A producer that may begin.
fn producer(config: &Config) -> Producer {
    let producer = Producer::connect(config, &config.transactional_id_prefix()).unwrap();
    producer.init().unwrap();
    producer
}

/// A message whose position is `position`, to where its key leads.
fn message(topic: &Arc<str>, key: &str, position: i64) -> Message {
    Message {
        topic: Arc::clone(topic),
        partition: None,
        key: key.to_owned(),
        payload: position.to_string().into_bytes(),
        schema_header: None,
        recorded_at: jiff::Timestamp::now(),
        headers: Headers::default(),
        version: None,
        position: Position::new(position).unwrap_or(Position::ORIGIN),
        batch_bytes_max: None,
    }
}

/// Publishes messages in one transaction.
fn publish(producer: &Producer, messages: &[Message]) {
    producer.begin().unwrap();
    send(producer, messages);
    producer.commit().unwrap();
}

/// Sends messages in a transaction, and leaves that open.
fn send(producer: &Producer, messages: &[Message]) {
    for message in messages {
        producer.send(message).unwrap();
    }
    producer.drain().unwrap();
}
