//! Brokers of providers: a policy refuses topics, or the broker would create topics by itself. The
//! relay creates a topic with its settings or not at all, and says why. Settings that the policy
//! takes, in `[topics.config]`, hold for the topics of checkpoints and claims, too.
//!
//! Part of `make test-kafka-security`: it compiles a policy for the broker.

use annals_consumer::{Consumer, ConsumerSettings};
use annals_store::{Append, ExpectedVersion, StreamName};
use annals_testkit::{
    CATEGORY, Must, PrivateStack, RelayProcess, Testbed, account, check, create_topic, deposited,
    in_time, topic_configuration, topics,
};

const POLICY: &str = "Policy violation";
const CONFIG: &str = "ANNALS_RELAY__TOPICS__CONFIG";
const SEGMENT_BYTES: &str = "104857600";
const CREATE: &str = "ANNALS_RELAY__TOPICS__CREATE";
const ERRORS: i32 = 3;

async fn append(bed: &Testbed, stream: &StreamName) {
    let event = deposited(1).for_category(stream.category());
    let append = Append::to(stream, ExpectedVersion::Any, [event]);
    bed.store().append(&append).await.must("append");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_a_policy_refuses_is_named_and_no_broker_creates_one_by_itself() {
    let kafka = PrivateStack::kafka_with_policy("auto.create.topics.enable=true\n").await;
    let bed = Testbed::on("policy", kafka.environment().clone()).await;
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    small_segments_are_refused(&bed).await;
    let large = format!("{{ \"segment.bytes\" = {SEGMENT_BYTES} }}");
    let settings = bed.relay().impatient().variable(CONFIG, &large);
    append(&bed, &account("a")).await;
    let (code, said) = settings.run_for_code(&["check", "--json"]).await;
    assert!(code == ERRORS && said.contains(POLICY), "{said}");

    let mut relay = RelayProcess::start(&settings);
    let line = relay.quarantines_for("topic", CATEGORY).await;
    assert!(line.contains(POLICY), "{line}");
    assert_eq!(topics(brokers, &topic), Vec::<String>::new());
    // The provider's own tools create it.
    create_topic(brokers, &topic, 4).await;
    let follower = bed.follow();
    follower.until_count(1).await;
    relay.event("quarantine_ended").await;
    assert!(relay.terminate().await.success());

    let mut relay = RelayProcess::start(&settings.variable(CREATE, "false"));
    let ledger = StreamName::new("ledger-1").must("name a stream");
    append(&bed, &ledger).await;
    relay.quarantines_for("topic", "ledger").await;
    let missing = bed.topic("ledger");
    let consumer = ConsumerSettings::new(brokers);
    let consumer = Consumer::connect(consumer).assign_from_beginning(&[missing.as_str()]);
    let mut consumer = consumer.must("make a consumer");
    append(&bed, &account("b")).await;
    tokio::select! {
        read = consumer.next() => panic!("{read:?}"),
        () = follower.until_count(2) => {}
    }
    assert_eq!(topics(brokers, &missing), Vec::<String>::new());
    create_topic(brokers, &missing, 4).await;
    in_time(consumer.next()).await.must("read").must("have an event");
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history_of(&[CATEGORY, "ledger"], Vec::new()).await), []);
    for topic in own_topics(&bed).await {
        assert_eq!(topic_configuration(brokers, &topic).await["segment.bytes"], SEGMENT_BYTES);
    }
}

/// The topics of checkpoints and claims.
async fn own_topics(bed: &Testbed) -> [String; 2] {
    [bed.checkpoint_topic().await, bed.claims_topic()]
}

/// Those of the relay's defaults: nothing is published without claims and checkpoints.
async fn small_segments_are_refused(bed: &Testbed) {
    const ASKED: &str = "segment.bytes=52428800";
    let settings = bed.relay().impatient();
    let (code, said) = settings.run_for_code(&["check"]).await;
    assert_eq!(code, ERRORS);
    for topic in own_topics(bed).await {
        let named = format!("topic {topic} cannot be used");
        let is_named = |line: &str| line.contains(&named) && line.contains(ASKED);
        assert!(said.lines().any(is_named), "{topic} not in {said}");
    }
    let mut relay = RelayProcess::start(&settings);
    let line = relay.waits_for(&format!("topic {}", bed.claims_topic())).await;
    assert!(line.contains(POLICY) && line.contains(ASKED), "{line}");
    assert!(relay.terminate().await.success());
}
