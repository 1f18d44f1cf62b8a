//! A schema registry with invalid answers counts as down: events with known schemas are published,
//! new schemas wait, and nothing is published with an id that the registry did not assign.

use annals_store::{Append, ExpectedVersion, StreamName};
use annals_testkit::{
    FaultyRegistry, Follower, Garbage, Must, RelayProcess, Testbed, account, check, deposited,
    opened,
};

const KINDS: [(&str, Garbage); 7] = [
    ("error", Garbage::ServerError),
    ("mode", Garbage::ReadOnly),
    ("login", Garbage::Unauthorized),
    ("right", Garbage::Forbidden),
    ("html", Garbage::Html),
    ("json", Garbage::OtherJson),
    ("half", Garbage::Half),
];

/// What the relay says about an answer that says why.
const fn said(garbage: Garbage) -> &'static str {
    match garbage {
        Garbage::ServerError => "out of memory",
        Garbage::ReadOnly => "is in read-only mode",
        Garbage::Unauthorized => "Unauthorized",
        Garbage::Forbidden => "User is denied operation Write",
        Garbage::Html | Garbage::OtherJson | Garbage::Half => "",
    }
}

async fn append(bed: &Testbed, stream: &StreamName) {
    let event = deposited(1).for_category(stream.category());
    let append = Append::to(stream, ExpectedVersion::Any, [event]);
    bed.store().append(&append).await.must("append");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_schema_waits_for_a_registry_that_answers_nonsense_and_is_published_when_it_is_well()
{
    let bed = Testbed::new("nonsense").await;
    let registry = FaultyRegistry::start(&bed.environment().registry_url).await;
    let categories = KINDS.map(|(category, _)| category);
    let topics = categories.map(|category| bed.topic(category));
    let topics = topics.each_ref().map(String::as_str);
    let follower = Follower::start(&bed.environment().kafka, &topics);
    let mut relay = RelayProcess::start(&bed.relay().impatient().registry(registry.url()));
    relay.event("publishing").await;
    for (published, (category, garbage)) in KINDS.into_iter().enumerate() {
        relay.turn_page();
        registry.talks(garbage);
        // The schema is new under each topic.
        let stream = StreamName::new(format!("{category}-a")).must("name a stream");
        append(&bed, &stream).await;
        let line = relay.keeps_waiting_for("registry").await;
        assert!(line.contains(said(garbage)), "{line}");
        append(&bed, &stream).await;
        assert_eq!(follower.count(), 2 * published, "{garbage:?}");
        registry.is_well();
        relay.goes_on_after("registry").await;
        follower.until_count(2 * (published + 1)).await;
    }
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history_of(&categories, Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_schemas_flow_whatever_the_registry_answers() {
    let bed = Testbed::new("known").await;
    let registry = FaultyRegistry::start(&bed.environment().registry_url).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay().registry(registry.url()));
    append(&bed, &account("a")).await;
    follower.until_count(1).await;
    for (published, (_, garbage)) in (1..).zip(KINDS) {
        registry.talks(garbage);
        // A relay that has just started checks whether the id still belongs to the schema.
        relay.kill().await;
        relay.restart();
        append(&bed, &account("a")).await;
        follower.until_count(published + 1).await;
        relay.event("registry_unavailable").await;
        assert!(!relay.has_event("outage_began"), "it waits, and there is nothing to wait for");
        assert_eq!(registry.asked(), 1, "{garbage:?}");
    }
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_before_a_new_schema_are_published_while_the_registry_is_unavailable() {
    let bed = Testbed::new("before_new").await;
    let registry = FaultyRegistry::start(&bed.environment().registry_url).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay().impatient().registry(registry.url()));
    append(&bed, &account("a")).await;
    follower.until_count(1).await;
    relay.freeze().await;
    registry.talks(Garbage::ServerError);
    // One page has both.
    append(&bed, &account("a")).await;
    let new = Append::to(&account("b"), ExpectedVersion::NoStream, [opened("ann")]);
    bed.store().append(&new).await.must("append");
    relay.thaw().await;
    follower.until_count(2).await;
    relay.keeps_waiting_for("registry").await;
    assert_eq!(follower.count(), 2);
    registry.is_well();
    follower.until_count(3).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}
