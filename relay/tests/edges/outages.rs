//! A broker that dies: nothing hangs, what is in doubt is called so, and the truth is read afterwards.

use annals_relay::kafka::{ensure_checkpoint_topic, read_checkpoints};
use annals_relay::kafka_failure::KafkaFailure;
use annals_relay::message::Message;
use annals_testkit::{Component, PrivateStack, Testbed};

use crate::{config, message, producer, publish, send, topic};

#[tokio::test]
async fn a_broker_that_dies_in_a_transaction_leaves_no_doubt_that_cannot_be_resolved() {
    let stack = PrivateStack::up(&[Component::Kafka]).await;
    let bed = Testbed::on("a_broker_that_dies", stack.environment().clone()).await;
    let config = config(&bed, "kafka.transaction_timeout_ms = 3000");
    ensure_checkpoint_topic(&config, 1).unwrap();
    let topic = topic(&config, "flight");
    let checkpoint = |position| {
        let topic = config.checkpoint_topic();
        Message { partition: Some(0), ..message(&topic, "0", position) }
    };
    let first = producer(&config);
    publish(&first, &[message(&topic, "flight-1", 1), checkpoint(1)]);

    first.begin().unwrap();
    send(&first, &[message(&topic, "flight-1", 2), checkpoint(2)]);
    stack.kill(Component::Kafka).await;
    let failure = first.commit().unwrap_err();
    assert!(matches!(failure, KafkaFailure::UnknownOutcome { .. }), "{failure}");

    let second = annals_relay::kafka::Producer::connect(&config).unwrap();
    let failure = second.init().unwrap_err();
    assert!(failure.is_outage() && failure.to_string().contains("refused"), "{failure}");
    let failure = read_checkpoints(&config, 1).unwrap_err();
    assert!(failure.is_outage() && failure.to_string().contains("refused"), "{failure}");

    stack.start(Component::Kafka).await;
    let third = producer(&config);
    // The commit was never sent, and its transaction is over now.
    assert_eq!(read_checkpoints(&config, 1).unwrap()[&0], b"1");
    publish(&third, &[message(&topic, "flight-1", 2), checkpoint(2)]);
    assert_eq!(read_checkpoints(&config, 1).unwrap()[&0], b"2");
}
