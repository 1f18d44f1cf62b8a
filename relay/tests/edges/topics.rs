//! Topics are created by policy, and differences of existing ones are logged.

use annals_relay::config::Config;
use annals_relay::kafka::topic_plan::{TopicFacts, TopicPlan};
use annals_relay::kafka::{ensure_checkpoint_topic, ensure_topic};
use annals_relay::report::kafka_failure::KafkaFailure;
use annals_testkit::{Testbed, topic_configuration};

use crate::{checkpoint_topic, config};

fn ensure(config: &Config) -> Result<TopicFacts, KafkaFailure> {
    ensure_topic(config, &TopicPlan::events(&config.topics, &config.topic("flight")))
}

#[tokio::test]
async fn a_topic_is_made_so_that_it_keeps_every_event() {
    let bed = Testbed::new("a_topic_is_made").await;
    let config = config(&bed, "topics.partitions = 5\n[topics.config]\nmax.message.bytes = 123456");
    let made = ensure(&config).unwrap();
    let expected = TopicFacts {
        partitions: 5,
        batch_bytes_max: Some(123_456),
        differences: Vec::new(),
        risks: made.risks.clone(),
        created: true,
    };
    assert_eq!(made, expected);
    let at_risk: Vec<_> = made.risks.iter().map(|risk| risk.setting).collect();
    assert_eq!(at_risk, ["replication.factor"], "the test's cluster has one broker");
    let found = topic_configuration(&bed.environment().kafka, &config.topic("flight")).await;
    for (setting, value) in [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "CreateTime"),
        ("max.message.bytes", "123456"),
    ] {
        assert_eq!(found[setting], value, "{setting}");
    }
    assert_eq!(ensure(&config).unwrap(), TopicFacts { created: false, ..expected });
}

#[tokio::test]
async fn a_topic_that_was_made_otherwise_is_used_and_the_differences_are_said() {
    let bed = Testbed::new("a_topic_that_was_made").await;
    ensure(&config(
        &bed,
        "[topics.config]\nretention.ms = 86400000\ncleanup.policy = 'compact,delete'",
    ))
    .unwrap();
    let facts = ensure(&config(&bed, "")).unwrap();
    let settings: Vec<&str> =
        facts.differences.iter().map(|difference| difference.setting.as_str()).collect();
    assert_eq!(settings, ["cleanup.policy", "retention.ms"]);
}

#[tokio::test]
async fn relays_that_make_a_topic_at_the_same_time_all_get_it() {
    let bed = Testbed::new("relays_that_make").await;
    let config = config(&bed, "");
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4).map(|_| scope.spawn(|| ensure(&config))).collect();
        for maker in makers {
            assert_eq!(maker.join().unwrap().unwrap().partitions, 12);
        }
    });
}

#[tokio::test]
async fn where_the_relay_may_not_make_a_topic_it_says_the_command_that_does() {
    let bed = Testbed::new("where_the_relay_may_not").await;
    let config = config(&bed, "topics.create = false");
    let failure = ensure(&config).unwrap_err();
    let said = failure.to_string();
    assert!(matches!(failure, KafkaFailure::TopicMissing { .. }), "{said}");
    let topic = config.topic("flight");
    assert!(said.contains(&format!("--create --topic {topic} --partitions 12")), "{said}");
}

#[tokio::test]
async fn settings_that_kafka_does_not_know_are_said_and_not_waited_for() {
    let bed = Testbed::new("settings_that_kafka").await;
    let failure = ensure(&config(&bed, "[topics.config]\nretention.years = 7")).unwrap_err();
    assert!(matches!(failure, KafkaFailure::TopicUnfit { .. }), "{failure}");
}

#[tokio::test]
async fn checkpoints_need_a_partition_for_each_shard_and_more_are_left_empty() {
    let bed = Testbed::new("checkpoints_need_one").await;
    let config = config(&bed, "");
    checkpoint_topic(&config, 4);
    checkpoint_topic(&config, 4);
    checkpoint_topic(&config, 3);
    let failure = ensure_checkpoint_topic(&config, 5).unwrap_err();
    let said = failure.to_string();
    assert!(matches!(failure, KafkaFailure::TopicUnfit { .. }), "{said}");
    assert!(said.contains("4 partitions") && said.contains("5 shards"), "{said}");
}

#[tokio::test]
async fn checkpoints_do_not_lie_where_they_can_be_deleted() {
    let bed = Testbed::new("checkpoints_do_not_lie").await;
    let config = config(&bed, "topics.partitions = 4");
    ensure_topic(&config, &TopicPlan::events(&config.topics, &config.checkpoint_topic())).unwrap();
    let failure = ensure_checkpoint_topic(&config, 4).unwrap_err();
    assert!(matches!(failure, KafkaFailure::TopicUnfit { .. }), "{failure}");
}
