//! Publishing: which records arrive, and which producers may send.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_relay::kafka::Producer;
use annals_relay::model::event_format::EventFormat;
use annals_relay::model::message::{Destination, Message};
use annals_relay::report::kafka_failure::KafkaFailure;
use annals_schemas::{Fingerprint, Framing, Schema, SchemaId};
use annals_store::outbox::{Details, OutboxEvent};
use annals_store::{Metadata, Position, Version};
use annals_testkit::{Isolation, Must, RawRecord, Testbed, read_topic};
use uuid::Uuid;

use crate::{config, message, producer, publish, send, topic};

async fn committed(bed: &Testbed, topic: &str) -> Vec<RawRecord> {
    read_topic(&bed.environment().kafka, topic, Isolation::Committed).await
}

fn values(records: &[RawRecord]) -> Vec<String> {
    let text = |record: &RawRecord| String::from_utf8(record.value.clone().unwrap()).unwrap();
    let mut values: Vec<String> = records.iter().map(text).collect();
    values.sort();
    values
}

fn departed() -> OutboxEvent<'static> {
    OutboxEvent {
        position: Position::new(4711).must("number a position"),
        shard: 3,
        stream: "flight-UA-1545",
        version: Version::new(2).must("number a version"),
        event_id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
        category: "flight",
        event_type: "FlightDeparted",
        fingerprint: Fingerprint::from(42),
        payload: &[1, 2, 3],
        details: Ok(Details {
            recorded_at: "2013-01-01T10:17:00.123456Z".parse().unwrap(),
            metadata: Metadata::default(),
            headers: [("tenant".to_owned(), "b\u{e4}r".to_owned())].into(),
        }),
    }
}

#[tokio::test]
async fn a_record_arrives_as_the_topic_contract_says() {
    let bed = Testbed::new("a_record_arrives").await;
    let config = config(&bed, "");
    let topic = topic(&config, "flight");
    let to = Destination { topic: Arc::clone(&topic), partitions: 1, batch_bytes_max: None };
    let format = EventFormat {
        source: "airport".to_owned(),
        framing: Framing::Header,
        registry_url: "http://registry:8081".to_owned(),
    };
    let schema = r#"{"type":"record","name":"air.FlightDeparted","fields":[]}"#;
    let schema = format.schema(SchemaId(258), Schema::parse(schema).unwrap(), None);
    let message = Message::new(&departed(), &to, &schema, &format).unwrap();
    publish(&producer(&config), &[message]);

    let records = committed(&bed, &topic).await;
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(record.key.as_deref(), Some(b"flight-UA-1545".as_slice()));
    assert_eq!(record.value.as_deref(), Some([1, 2, 3].as_slice()));
    assert_eq!(record.timestamp_ms, Some(1_357_035_420_123));
    let headers: Vec<(&str, &[u8])> = record
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref().unwrap()))
        .collect();
    let expected: [(&str, &[u8]); 12] = [
        ("tenant", "b\u{e4}r".as_bytes()),
        ("ce_specversion", b"1.0"),
        ("ce_id", b"01920000-0000-7000-8000-000000000001"),
        ("ce_source", b"airport"),
        ("ce_type", b"air.FlightDeparted"),
        ("ce_dataschema", b"http://registry:8081/schemas/ids/258"),
        ("ce_subject", b"flight-UA-1545"),
        ("ce_time", b"2013-01-01T10:17:00.123456Z"),
        ("ce_streamversion", b"2"),
        ("ce_position", b"4711"),
        ("content-type", b"application/avro"),
        ("__value_schema_id", &[0, 0, 0, 1, 2]),
    ];
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn a_drained_transaction_is_committed_in_milliseconds() {
    let bed = Testbed::new("a_drained_transaction").await;
    let config = config(&bed, "");
    let topic = topic(&config, "flight");
    let producer = producer(&config);
    // With rdkafka's own waiting none takes less than 100 ms: on a slow machine, too, one that does
    // is the proof.
    let is_fast = |position| {
        let begun = Instant::now();
        publish(&producer, &[message(&topic, "flight-1", position)]);
        begun.elapsed() < Duration::from_millis(50)
    };
    assert!((0..500).any(is_fast), "none was committed in milliseconds");
}

#[tokio::test]
async fn an_aborted_transaction_is_read_by_nobody_and_the_producer_goes_on() {
    let bed = Testbed::new("an_aborted_transaction").await;
    let config = config(&bed, "");
    let topic = topic(&config, "flight");
    let producer = producer(&config);
    publish(&producer, &[message(&topic, "flight-1", 1)]);
    producer.begin().unwrap();
    send(&producer, &[message(&topic, "flight-1", 2)]);
    producer.abort().unwrap();
    // This time with records that are still on their way.
    producer.begin().unwrap();
    for position in 1_000..3_000 {
        producer.send(&message(&topic, "flight-2", position)).unwrap();
    }
    producer.abort().unwrap();
    publish(&producer, &[message(&topic, "flight-1", 3)]);
    assert_eq!(values(&committed(&bed, &topic).await), ["1", "3"]);
}

#[tokio::test]
async fn more_than_the_queue_holds_waits_for_room() {
    let bed = Testbed::new("more_than_the_queue").await;
    let config = config(&bed, "[kafka.properties]\nqueue.buffering.max.messages = 100");
    let topic = topic(&config, "flight");
    let messages: Vec<Message> = (0..1_000)
        .map(|position| message(&topic, &format!("flight-{position}"), position))
        .collect();
    publish(&producer(&config), &messages);
    assert_eq!(committed(&bed, &topic).await.len(), messages.len());
}

#[tokio::test]
async fn a_producer_is_fenced_by_the_next_one_at_any_moment() {
    let bed = Testbed::new("a_producer_is_fenced").await;
    let config = config(&bed, "");
    let topic = topic(&config, "flight");
    let deposed = |failure: Result<(), KafkaFailure>| {
        let failure = failure.unwrap_err();
        assert!(matches!(failure, KafkaFailure::Fenced { .. }), "{failure}");
    };

    let first = producer(&config);
    first.begin().unwrap();
    send(&first, &[message(&topic, "flight-1", 1)]);
    let second = producer(&config);
    deposed(first.commit());

    let third = producer(&config);
    let tried = || {
        second.begin()?;
        second.send(&message(&topic, "flight-1", 2))?;
        second.drain()?;
        second.commit()
    };
    deposed(tried());

    publish(&third, &[message(&topic, "flight-1", 3)]);
    assert_eq!(values(&committed(&bed, &topic).await), ["3"]);
}

#[tokio::test]
async fn a_broker_that_is_away_is_an_outage_and_the_reason_is_said() {
    let bed = Testbed::new("a_broker_that_is_away").await;
    let mut config = config(&bed, "kafka.transaction_timeout_ms = 5000");
    config.kafka.bootstrap_servers = crate::NOBODY.to_owned();
    let failure = annals_relay::kafka::ensure_checkpoint_topic(&config, 8).unwrap_err();
    assert!(failure.is_outage() && failure.to_string().contains("refused"), "{failure}");
    let failure =
        Producer::connect(&config, &config.transactional_id_prefix()).unwrap().init().unwrap_err();
    assert!(failure.is_outage() && failure.to_string().contains("refused"), "{failure}");
}

#[tokio::test]
async fn settings_that_librdkafka_does_not_take_are_named_without_their_value() {
    let bed = Testbed::new("settings_that_librdkafka").await;
    let config = config(&bed, "[kafka.properties]\nsecurity.protocol = 'hunter2'");
    let failure = Producer::connect(&config, &config.transactional_id_prefix()).err().unwrap();
    let said = failure.to_string();
    assert!(matches!(failure, KafkaFailure::Settings { .. }), "{said}");
    assert!(said.contains("security.protocol") && !said.contains("hunter2"), "{said}");
}
