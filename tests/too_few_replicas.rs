//! Fewer brokers than a topic requires: no batch is published partially, and no event is lost.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    CATEGORY, Dice, Ending, Environment, Load, LoadOptions, Must, Pace, RelayProcess,
    RelaySettings, Testbed, ThreeBrokers, account, check, configure_topic, deposited, until,
};

use crate::checked_before_start::{ERRORS, findings, has};

const LOAD: LoadOptions =
    LoadOptions { writers: 3, streams: 12, ahead_events_max: 2_000, pace: Pace::Bursts };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_of_three_brokers_the_relay_waits_and_goes_on_when_the_others_are_back() {
    const PROPERTIES: &str = "transaction.state.log.min.isr=2\n";
    let brokers = ThreeBrokers::up_after(PROPERTIES, too_few_brokers_are_named).await;
    let bed = Testbed::on("replicas", brokers.environment().clone()).await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let settings = replicated(&bed).impatient();
    let mut relay = RelayProcess::start(&settings);
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(500).await;
    a_topic_that_needs_every_broker_is_named(&bed, &settings).await;
    brokers.end_two(Ending::Orderly).await;
    // Between the ends of the two it may have gone on.
    relay.turn_page();
    relay.event_with("outage_continues", &[("waiting_for", "kafka")]).await;
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append meanwhile");
    topics_with_too_few_replicas_in_sync_are_named(&bed, &settings).await;
    brokers.start_two().await;
    relay.goes_on_after("kafka").await;
    follower.until_count(follower.count() + 500).await;
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(attempts).await), []);
}

/// The settings of a relay whose topics have three replicas, of which two are in sync.
fn replicated(bed: &Testbed) -> RelaySettings {
    bed.relay()
        .variable("ANNALS_RELAY__TOPICS__REPLICATION_FACTOR", "3")
        .variable("ANNALS_RELAY__TOPICS__CONFIG", "{ \"min.insync.replicas\" = 2 }")
}

/// As a cluster with the defaults of Kafka on one broker.
async fn too_few_brokers_are_named(environment: &Environment) {
    let bed = Testbed::on("few_brokers", environment.clone()).await;
    let (code, found) = findings(&replicated(&bed)).await;
    for part in
        ["too few brokers for transactions", "too few brokers for topics.replication_factor"]
    {
        assert!(code == ERRORS && has(&found, "kafka", "error", part), "{part} not in {found:?}");
    }
}

/// No topic is missing: brokers that are away are not too few.
async fn topics_with_too_few_replicas_in_sync_are_named(bed: &Testbed, settings: &RelaySettings) {
    let (code, found) = findings(settings).await;
    assert_eq!(code, ERRORS);
    let checkpoints = bed.checkpoint_topic().await;
    for topic in [&bed.topic(CATEGORY), &bed.claims_topic(), &checkpoints, "__transaction_state"] {
        let part = format!("topic {topic} has 1 replicas in sync, and writes need 2");
        assert!(has(&found, "kafka", "error", &part), "{part} not in {found:?}");
    }
    assert!(!has(&found, "kafka", "error", "too few brokers"), "{found:?}");
}

async fn a_topic_that_needs_every_broker_is_named(bed: &Testbed, settings: &RelaySettings) {
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    configure_topic(brokers, &topic, "min.insync.replicas", "3").await;
    let part = format!("topic {topic} cannot be written to while one broker is away");
    // Another broker can answer with the setting a while later.
    let is_named = async || settings.run_for_code(&["check"]).await.1.contains(&part);
    until("check names the topic", is_named).await;
    configure_topic(brokers, &topic, "min.insync.replicas", "2").await;
}
