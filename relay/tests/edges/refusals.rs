//! Records that Kafka does not take are named, and the others go on.

use annals_relay::kafka::Producer;
use annals_relay::model::message::Message;
use annals_relay::report::kafka_failure::{KafkaFailure, RecordId};
use annals_testkit::{Isolation, Testbed, read_topic};

use crate::{config, message, producer, publish, topic};

/// Sends messages in one transaction, which is aborted when it fails.
fn refused(producer: &Producer, messages: &[Message]) -> KafkaFailure {
    producer.begin().unwrap();
    let sent = messages
        .iter()
        .try_for_each(|message| producer.send(message))
        .and_then(|()| producer.drain());
    let failure = sent.unwrap_err();
    producer.abort().unwrap();
    failure
}

fn records(failure: KafkaFailure) -> Vec<RecordId> {
    match failure {
        KafkaFailure::Refused { records, .. } => records,
        other => panic!("{other}"),
    }
}

fn id(message: &Message) -> RecordId {
    RecordId {
        topic: message.topic.to_string(),
        key: message.key.clone(),
        position: message.position,
    }
}

#[tokio::test]
async fn a_record_too_large_for_its_topic_is_refused_by_name_and_the_others_go_on() {
    let bed = Testbed::new("a_record_too_large").await;
    let config =
        config(&bed, "kafka.compression = 'none'\n[topics.config]\nmax.message.bytes = 2000");
    let topic = topic(&config, "flight");
    let producer = producer(&config);
    let small = message(&topic, "flight-1", 1);
    let large = Message { payload: vec![7; 3_000], ..message(&topic, "flight-2", 2) };

    let named = records(refused(&producer, &[small.clone(), large.clone()]));
    assert!(named.contains(&id(&large)), "{named:?}");
    assert_eq!(records(refused(&producer, std::slice::from_ref(&large))), [id(&large)]);
    publish(&producer, &[small]);
    let records = read_topic(&bed.environment().kafka, &topic, Isolation::Committed).await;
    assert_eq!(records.len(), 1);
}

#[tokio::test]
async fn a_record_larger_than_the_client_sends_is_refused_by_name() {
    let bed = Testbed::new("a_record_larger_than").await;
    let config = config(&bed, "");
    let topic = topic(&config, "flight");
    let large = Message { payload: vec![7; 2_000_000], ..message(&topic, "flight-2", 2) };
    assert_eq!(records(refused(&producer(&config), std::slice::from_ref(&large))), [id(&large)]);
}

#[tokio::test]
async fn a_time_that_the_topic_does_not_take_is_refused_by_name() {
    let bed = Testbed::new("a_time_that_the_topic").await;
    let config = config(&bed, "[topics.config]\nmessage.timestamp.after.max.ms = 60000");
    let topic = topic(&config, "flight");
    let producer = producer(&config);
    let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let early = Message { recorded_at: tomorrow, ..message(&topic, "flight-2", 2) };
    let named = records(refused(&producer, &[message(&topic, "flight-1", 1), early.clone()]));
    assert!(named.contains(&id(&early)), "{named:?}");
    assert_eq!(records(refused(&producer, std::slice::from_ref(&early))), [id(&early)]);
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_missing_and_not_made_by_the_broker() {
    let bed = Testbed::new("a_topic_that_is_not").await;
    let config = config(&bed, "");
    let name = config.topic("flight");
    let failure = refused(&producer(&config), &[message(&name.as_str().into(), "flight-1", 1)]);
    assert!(
        matches!(&failure, KafkaFailure::TopicMissing { topic, .. } if *topic == name),
        "{failure}"
    );
    assert!(annals_testkit::topics(&bed.environment().kafka, &name).is_empty());
}
