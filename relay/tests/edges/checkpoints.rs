//! Checkpoints are read as they were committed, among any other records of their partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_relay::config::Config;
use annals_relay::kafka::{Producer, read_checkpoints};
use annals_relay::model::headers::Headers;
use annals_relay::model::message::Message;
use annals_relay::report::kafka_failure::KafkaFailure;
use annals_store::Position;
use annals_testkit::Testbed;

use crate::{checkpoint_topic, config, producer, publish, send};

const SHARDS: u16 = 3;

/// The record of a shard's checkpoint; its bytes are for this test only.
fn checkpoint(config: &Config, shard: i32, text: &str) -> Message {
    Message {
        topic: config.checkpoint_topic(),
        partition: Some(shard),
        key: shard.to_string(),
        payload: text.as_bytes().to_vec(),
        schema_header: None,
        recorded_at: jiff::Timestamp::UNIX_EPOCH,
        headers: Headers::default(),
        version: None,
        position: Position::ORIGIN,
        batch_bytes_max: None,
    }
}

/// A configuration with a topic for its checkpoints.
async fn prepared(label: &str) -> (Testbed, Config) {
    let bed = Testbed::new(label).await;
    let config = config(&bed, "");
    checkpoint_topic(&config, SHARDS);
    (bed, config)
}

fn shards() -> Vec<u16> {
    (0..SHARDS).collect()
}

fn found(config: &Config) -> Vec<(u16, String)> {
    let read: BTreeMap<u16, Vec<u8>> = read_checkpoints(config, &shards()).unwrap();
    read.into_iter().map(|(shard, bytes)| (shard, String::from_utf8(bytes).unwrap())).collect()
}

fn pairs(pairs: &[(u16, &str)]) -> Vec<(u16, String)> {
    pairs.iter().map(|(shard, text)| (*shard, (*text).to_owned())).collect()
}

/// A relay of another deployment that writes where it should not.
fn stranger(config: &Config) -> Producer {
    let mut other = config.clone();
    other.relay.deployment.push_str("-stranger");
    producer(&other)
}

#[tokio::test]
async fn nothing_was_published_where_there_is_no_checkpoint() {
    let (_bed, config) = prepared("nothing_was_published").await;
    assert_eq!(found(&config), []);
}

#[tokio::test]
async fn the_last_commit_is_seen_at_once_by_whoever_takes_over() {
    let (_bed, config) = prepared("the_last_commit_is_seen").await;
    for round in 0..15 {
        let text = format!("round {round}");
        let producer = producer(&config);
        publish(&producer, &[checkpoint(&config, 0, &text), checkpoint(&config, 2, &text)]);
        // The broker has answered; whether its markers are written is what this test is about.
        assert_eq!(found(&config), pairs(&[(0, &text), (2, &text)]));
        drop(producer);
        assert_eq!(found(&config), pairs(&[(0, &text), (2, &text)]));
    }
}

#[tokio::test]
async fn what_a_deposed_relay_left_open_does_not_count() {
    let (_bed, config) = prepared("what_a_deposed_relay").await;
    let deposed = producer(&config);
    publish(&deposed, &[checkpoint(&config, 0, "committed")]);
    deposed.begin().unwrap();
    send(&deposed, &[checkpoint(&config, 0, "open"), checkpoint(&config, 1, "open")]);

    let next = producer(&config);
    assert_eq!(found(&config), pairs(&[(0, "committed")]));
    publish(&next, &[checkpoint(&config, 1, "next")]);
    assert_eq!(found(&config), pairs(&[(0, "committed"), (1, "next")]));
}

#[tokio::test]
async fn an_open_transaction_of_somebody_else_is_waited_for_and_hides_nothing() {
    let (_bed, config) = prepared("an_open_transaction_of").await;
    let other = stranger(&config);
    other.begin().unwrap();
    send(&other, &[checkpoint(&config, 0, "somebody else's")]);
    // This is committed, and follows the open transaction: readers do not receive it.
    publish(&producer(&config), &[checkpoint(&config, 0, "ours")]);

    let config = Arc::new(config);
    let reading = std::thread::spawn({
        let config = Arc::clone(&config);
        move || found(&config)
    });
    // Ends the open transaction.
    let _successor = stranger(&config);
    assert_eq!(reading.join().unwrap(), pairs(&[(0, "ours")]));
}

#[tokio::test]
async fn a_transaction_that_nobody_ends_is_an_outage_that_names_partition_and_offset() {
    let (bed, _) = prepared("a_transaction_that_nobody").await;
    let config = config(&bed, "kafka.transaction_timeout_ms = 60000");
    let other = stranger(&config);
    other.begin().unwrap();
    send(&other, &[checkpoint(&config, 1, "somebody else's")]);
    let mut hasty = config.clone();
    hasty.kafka.transaction_timeout = std::time::Duration::from_secs(5);
    let failure = read_checkpoints(&hasty, &shards()).unwrap_err();
    assert!(failure.is_outage(), "{failure}");
    assert!(failure.to_string().contains("partition 1 at offset 0 of 1"), "{failure}");
}

#[tokio::test]
async fn a_checkpoint_is_found_behind_many_aborted_ones() {
    let (_bed, config) = prepared("a_checkpoint_is_found").await;
    let producer = producer(&config);
    publish(&producer, &[checkpoint(&config, 0, "old"), checkpoint(&config, 1, "other")]);
    publish(&producer, &[checkpoint(&config, 0, "committed")]);
    for _ in 0..3 {
        producer.begin().unwrap();
        let aborted = vec![checkpoint(&config, 0, "aborted"); 400];
        send(&producer, &aborted);
        producer.abort().unwrap();
    }
    assert_eq!(found(&config), pairs(&[(0, "committed"), (1, "other")]));
}

/// The record in the partition of a shard whose checkpoint is in another one.
fn signpost(config: &Config, shard: i32, partition: u16) -> Message {
    checkpoint(config, shard, &format!(r#"{{"format":2,"partition":{partition}}}"#))
}

/// A checkpoint of a shard in the partition of another one.
fn away(config: &Config, shard: i32, partition: i32, text: &str) -> Message {
    Message { partition: Some(partition), ..checkpoint(config, shard, text) }
}

#[tokio::test]
async fn a_checkpoint_is_where_its_shards_own_partition_leads() {
    let (_bed, config) = prepared("a_checkpoint_is_where").await;
    let producer = producer(&config);
    publish(&producer, &[checkpoint(&config, 0, "0"), away(&config, 2, 0, "2, never led to")]);
    assert_eq!(found(&config), pairs(&[(0, "0")]));
    publish(&producer, &[away(&config, 2, 1, "2 in 1"), signpost(&config, 2, 1)]);
    publish(&producer, &[checkpoint(&config, 1, "1"), away(&config, 2, 1, "2 in 1, later")]);
    assert_eq!(found(&config), pairs(&[(0, "0"), (1, "1"), (2, "2 in 1, later")]));
    // The next owner has it in the shard's own partition. The pointer of the one after leads to a
    // partition with an older one, and the last one.
    publish(&producer, &[checkpoint(&config, 2, "2 at home")]);
    assert_eq!(found(&config), pairs(&[(0, "0"), (1, "1"), (2, "2 at home")]));
    publish(&producer, &[away(&config, 2, 0, "2 in 0"), signpost(&config, 2, 0)]);
    assert_eq!(found(&config), pairs(&[(0, "0"), (1, "1"), (2, "2 in 0")]));
}

#[tokio::test]
async fn an_aborted_move_leads_nowhere() {
    let (_bed, config) = prepared("an_aborted_move").await;
    let producer = producer(&config);
    publish(&producer, &[away(&config, 2, 1, "2 in 1"), signpost(&config, 2, 1)]);
    producer.begin().unwrap();
    send(&producer, &[away(&config, 2, 0, "2 in 0, aborted"), signpost(&config, 2, 0)]);
    producer.abort().unwrap();
    assert_eq!(found(&config), pairs(&[(2, "2 in 1")]));
}

#[tokio::test]
async fn a_checkpoint_that_is_not_where_it_should_be_is_no_new_beginning() {
    let (_bed, config) = prepared("a_checkpoint_that_is_not").await;
    publish(&producer(&config), &[checkpoint(&config, 0, "0"), signpost(&config, 2, 1)]);
    let failure = read_checkpoints(&config, &shards()).unwrap_err();
    assert!(matches!(failure, KafkaFailure::TopicUnfit { .. }), "{failure}");
    assert!(failure.to_string().contains("partition 1 has no checkpoint of shard 2"), "{failure}");
}
