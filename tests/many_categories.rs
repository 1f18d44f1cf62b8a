//! Thousands of categories that begin at once are all published, with or without existing topics;
//! one with an unusable topic delays no other.

use std::collections::HashSet;
use std::time::Duration;

use annals_store::{Append, ExpectedVersion, Store, StreamName};
use annals_testkit::{
    Component, FaultyRegistry, Follower, Must, PrivateStack, RelayProcess, Testbed, TwoDoors,
    create_topic, delete_topic, deposited, topics,
};

const CATEGORIES: usize = 2_000;
/// Number of streams per append.
const STREAMS: usize = 200;

fn categories(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("kind{number}")).collect()
}

/// Appends an event to a stream of every category.
async fn append(store: &Store, categories: &[String], stream: &str) {
    for some in categories.chunks(STREAMS) {
        let mut append = Append::default();
        for category in some {
            let stream = StreamName::new(format!("{category}-{stream}")).must("name a stream");
            append =
                append.and_to(&stream, ExpectedVersion::Any, [deposited(1).for_category(category)]);
        }
        store.append(&append).await.must("append");
    }
}

fn follow(bed: &Testbed, categories: &[String]) -> Follower {
    let topics: Vec<String> = categories.iter().map(|category| bed.topic(category)).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    Follower::start(&bed.environment().kafka, &topics)
}

/// On a Kafka of its own: each topic is a directory of the broker. Its claims topic has the default
/// name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_categories_are_published_when_they_begin_and_when_a_relay_starts() {
    let stack = PrivateStack::up(&[Component::Kafka, Component::Registry]).await;
    let bed = Testbed::on("many_categories", stack.environment().clone()).await;
    let categories = categories(CATEGORIES);
    let settings = bed.relay().claims("annals-topics");
    let settings = settings.variable("ANNALS_RELAY__TOPICS__PARTITIONS", "1");
    append(bed.store(), &categories, "a").await;
    let mut relay = RelayProcess::start(&settings);
    for ready in (100..=CATEGORIES).step_by(100) {
        relay.event_with("topics_prepared", &[("ready", &ready.to_string())]).await;
    }
    assert!(!relay.has_event("outage_began"), "a page waited for all topics");
    // Another relay, with empty caches, finds the topics.
    relay.kill().await;
    append(bed.store(), &categories, "b").await;
    let mut next = RelayProcess::start(&settings.instance("next"));
    let follower = follow(&bed, &categories);
    for events in 1..=8 {
        follower.until_count(events * CATEGORIES / 4).await;
    }
    assert!(!next.has_event("outage_began"), "a page took too long");
    assert!(next.terminate().await.success());
    // One that starts for a single event looks up a single topic.
    append(bed.store(), &categories[..1], "c").await;
    next.turn_page();
    next.restart();
    follower.until_count(2 * CATEGORIES + 1).await;
    assert!(!next.has_event("topics_prepared"), "it has looked up many topics");
    assert!(next.terminate().await.success());
    let ids: HashSet<_> = follower.seen().iter().map(|event| event.event_id).collect();
    assert_eq!((ids.len(), follower.count()), (2 * CATEGORIES + 1, 2 * CATEGORIES + 1));
    let made = topics(&bed.environment().kafka, "");
    assert!(made.iter().any(|topic| topic == "annals-topics"), "claims stand somewhere else");
}

/// If what is learned were lost, or one thing made ready after the other, it would take ten
/// minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes: part of make campaigns"]
async fn two_thousand_categories_are_published_with_answers_that_take_100_ms() {
    const ROUND_TRIP: Duration = Duration::from_millis(100);
    let kafka = TwoDoors::linked("").await;
    let bed = Testbed::on("slow_categories", kafka.environment().clone()).await;
    let registry = FaultyRegistry::start(&bed.environment().registry_url).await;
    registry.answers_after(ROUND_TRIP);
    kafka.link().delay_answers(ROUND_TRIP);
    let categories = categories(CATEGORIES);
    let settings = bed.relay().kafka(&kafka.other()).registry(registry.url());
    let settings = settings.variable("ANNALS_RELAY__TOPICS__PARTITIONS", "1");
    append(bed.store(), &categories, "a").await;
    let mut relay = RelayProcess::start(&settings);
    relay.event_with("topics_prepared", &[("ready", &CATEGORIES.to_string())]).await;
    let follower = follow(&bed, &categories);
    for events in 1..=8 {
        follower.until_count(events * CATEGORIES / 8).await;
    }
    assert!(!relay.has_event("outage_began"), "a page took too long");
    assert!(relay.terminate().await.success());
    let ids: HashSet<_> = follower.seen().iter().map(|event| event.event_id).collect();
    assert_eq!((ids.len(), follower.count()), (CATEGORIES, CATEGORIES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_categories_that_begin_together_one_whose_topic_kafka_refuses_is_held_alone() {
    const FEW: usize = 12;
    let bed = Testbed::new("one_bad_category").await;
    let mut all = categories(FEW);
    let follower = follow(&bed, &all);
    // Kafka creates no topic whose name differs from another one's only in that.
    create_topic(&bed.environment().kafka, &bed.topic("bad.kind"), 1).await;
    all.insert(FEW / 2, "bad_kind".to_owned());
    append(bed.store(), &all, "a").await;
    let mut relay = RelayProcess::start(&bed.relay());
    let said = relay.quarantines("bad_kind").await;
    assert!(said.contains(&bed.topic("bad_kind")), "{said}");
    follower.until_count(FEW).await;
    delete_topic(&bed.environment().kafka, &bed.topic("bad.kind")).await;
    let held = follow(&bed, &["bad_kind".to_owned()]);
    held.until_count(1).await;
    assert!(relay.terminate().await.success());
}
