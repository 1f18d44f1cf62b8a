//! A broker that dies: no call hangs, an unknown outcome is reported as unknown, and the actual
//! outcome is read afterwards.

use annals_relay::kafka::read_checkpoints;
use annals_relay::model::message::Message;
use annals_relay::report::kafka_failure::KafkaFailure;
use annals_testkit::{Component, Ending, Isolation, PrivateStack, Testbed, read_topic};

use crate::{checkpoint_topic, config, message, producer, publish, send, topic};

#[tokio::test]
async fn what_came_of_a_commit_in_doubt_is_what_the_checkpoint_says() {
    let stack = PrivateStack::up(&[Component::Kafka]).await;
    let bed = Testbed::on("what_came_of_a_commit", stack.environment().clone()).await;
    let config = config(&bed, "kafka.transaction_timeout_ms = 3000");
    checkpoint_topic(&config, 1);
    let topic = topic(&config, "flight");
    let checkpoint = |position| {
        let topic = config.checkpoint_topic();
        Message { partition: Some(0), ..message(&topic, "0", position) }
    };
    let first = producer(&config);
    publish(&first, &[message(&topic, "flight-1", 1), checkpoint(1)]);

    first.begin().unwrap();
    send(&first, &[message(&topic, "flight-1", 2), checkpoint(2)]);
    stack.end(Component::Kafka, Ending::Crash).await;
    let failure = first.commit().unwrap_err();
    assert!(matches!(failure, KafkaFailure::UnknownOutcome { .. }), "{failure}");

    let second =
        annals_relay::kafka::Producer::connect(&config, &config.transactional_id_prefix()).unwrap();
    let failure = second.init().unwrap_err();
    assert!(failure.is_outage() && failure.to_string().contains("refused"), "{failure}");
    // It would go on trying, and fence the next one.
    drop(second);

    // The producer with the unknown outcome still tries: whether it gets through before it is
    // fenced is random.
    stack.start(Component::Kafka).await;
    // A broker that has just started may need more time than the one that died was given.
    let config = crate::config(&bed, "kafka.transaction_timeout_ms = 30000");
    let third = producer(&config);
    let published = match read_checkpoints(&config, &[0]).unwrap()[&0].as_slice() {
        b"1" => vec!["1"],
        b"2" => vec!["1", "2"],
        other => panic!("{other:?}"),
    };
    assert_eq!(committed(&bed, &topic).await, published);
    publish(&third, &[message(&topic, "flight-1", 3), checkpoint(3)]);
    assert_eq!(read_checkpoints(&config, &[0]).unwrap()[&0], b"3");
    assert_eq!(committed(&bed, &topic).await, [published, vec!["3"]].concat());
}

async fn committed(bed: &Testbed, topic: &str) -> Vec<String> {
    let records = read_topic(&bed.environment().kafka, topic, Isolation::Committed).await;
    records.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
}
