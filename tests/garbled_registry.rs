//! A schema registry with invalid answers, late ones or none counts as down: events with known
//! schemas are published, the categories of new schemas wait and no others, and nothing is
//! published with an id that the registry did not assign.

use std::time::{Duration, Instant};

use annals_store::{Append, ExpectedVersion, StreamName};
use annals_testkit::{
    CATEGORY, FaultyRegistry, Follower, Garbage, Must, RelayProcess, Testbed, account, check,
    deposited, opened,
};

const KINDS: [(&str, Garbage); 10] = [
    ("error", Garbage::ServerError),
    ("mode", Garbage::ReadOnly),
    ("login", Garbage::Unauthorized),
    ("right", Garbage::Forbidden),
    ("path", Garbage::OtherPath),
    ("server", Garbage::OtherServer),
    ("html", Garbage::Html),
    ("json", Garbage::OtherJson),
    ("half", Garbage::Half),
    ("silence", Garbage::Silence),
];

/// What the relay says about an answer that says why.
const fn said(garbage: Garbage) -> &'static str {
    match garbage {
        Garbage::ServerError => "out of memory",
        Garbage::ReadOnly => "is in read-only mode",
        Garbage::Unauthorized => "Unauthorized",
        Garbage::Forbidden => "User is denied operation Write",
        Garbage::OtherPath => "HTTP 404 Not Found",
        Garbage::OtherServer
        | Garbage::Html
        | Garbage::OtherJson
        | Garbage::Half
        | Garbage::Silence => "",
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
    let settings = bed.relay().impatient().long_transactions();
    let mut relay = RelayProcess::start(&settings.registry(registry.url()));
    relay.event("publishing").await;
    for (published, (category, garbage)) in KINDS.into_iter().enumerate() {
        relay.turn_page();
        registry.talks(garbage);
        // The schema is new under each topic.
        let stream = StreamName::new(format!("{category}-a")).must("name a stream");
        append(&bed, &stream).await;
        let line = relay.quarantines(category).await;
        assert!(line.contains(said(garbage)), "{line}");
        append(&bed, &stream).await;
        assert_eq!(follower.count(), 2 * published, "{garbage:?}");
        registry.is_well();
        follower.until_count(2 * (published + 1)).await;
        relay.event("quarantine_ended").await;
        assert!(!relay.has_event("outage_began"), "{garbage:?}");
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
        relay.kill().await;
        registry.talks(garbage);
        // A relay that has just started checks whether the id still belongs to the schema.
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
    // It is frozen for a while, and keeps its lease.
    let settings = bed.relay().variable("ANNALS_RELAY__RELAY__LEASE_MS", "600000");
    let mut relay = RelayProcess::start(&settings.impatient().registry(registry.url()));
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
    relay.quarantines(CATEGORY).await;
    assert_eq!(follower.count(), 2);
    registry.is_well();
    follower.until_count(3).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

/// Every fault in turn, with a restart in between: the category stays in quarantine, and no other
/// event waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_new_schema_waits_for_the_registry_other_categories_flow_and_so_after_a_restart() {
    const OTHERS: [&str; 2] = ["known", "new"];
    let bed = Testbed::new("others_flow").await;
    let registry = FaultyRegistry::start(&bed.environment().registry_url).await;
    let [known, new] =
        OTHERS.map(|category| Follower::start(&bed.environment().kafka, &[&bed.topic(category)]));
    let [in_known, in_new] =
        OTHERS.map(|category| StreamName::new(format!("{category}-a")).must("name a stream"));
    let settings = bed.relay().impatient().long_transactions();
    let mut relay = RelayProcess::start(&settings.registry(registry.url()));
    append(&bed, &in_known).await;
    known.until_count(1).await;
    for (round, garbage) in (1..).zip([Garbage::ServerError, Garbage::Silence]) {
        registry.talks(garbage);
        append(&bed, &in_new).await;
        if round == 1 {
            relay.quarantines("new").await;
        }
        for number in 1..=10 {
            append(&bed, &in_known).await;
            known.until_count((round - 1) * 20 + 1 + number).await;
        }
        relay.kill().await;
        relay.restart();
        relay.event("publishing").await;
        for number in 11..=20 {
            append(&bed, &in_known).await;
            known.until_count((round - 1) * 20 + 1 + number).await;
        }
    }
    assert_eq!(new.count(), 0);
    registry.is_well();
    new.until_count(2).await;
    assert!(!relay.has_event("outage_began"), "the relay waited as a whole");
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history_of(&OTHERS, Vec::new()).await), []);
}

/// A page waits for the ids that its first event needs for a moment; after that, if others wait, it
/// goes on without the category.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_slow_registry_has_new_schemas_to_register_known_ones_are_published() {
    /// Of the answers, for each new schema. The last two take less than the five seconds after
    /// which a registry counts as slow.
    const ANSWER_AFTER_MS: [u64; 6] = [100, 100, 100, 100, 1_600, 1_600];
    /// Enough for leaving a category out, also on a slow machine; less than the three answers about
    /// a schema take in the end.
    const DELAY_MAX: Duration = Duration::from_secs(3);
    let bed = Testbed::new("slow_registry").await;
    let registry = FaultyRegistry::start(&bed.environment().registry_url).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay().registry(registry.url()));
    append(&bed, &account("a")).await;
    follower.until_count(1).await;
    let categories = ANSWER_AFTER_MS.iter().enumerate().map(|(number, _)| format!("new{number}"));
    let categories: Vec<String> = categories.collect();
    let mut longest = Duration::ZERO;
    for (round, (category, after_ms)) in categories.iter().zip(ANSWER_AFTER_MS).enumerate() {
        registry.answers_after(Duration::from_millis(after_ms));
        append(&bed, &StreamName::new(format!("{category}-a")).must("name a stream")).await;
        let appended = Instant::now();
        append(&bed, &account("a")).await;
        follower.until_count(round + 2).await;
        longest = longest.max(appended.elapsed());
    }
    assert!(longest < DELAY_MAX, "a known schema waited for {longest:?}");
    relay.quarantines(&categories[4]).await;
    let topics: Vec<String> = categories.iter().map(|category| bed.topic(category)).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    Follower::start(&bed.environment().kafka, &topics).until_count(categories.len()).await;
    assert!(!relay.has_event("outage_began"), "the relay waited as a whole");
    assert!(relay.terminate().await.success());
}

/// A registry that has an error of its own for one schema has ids for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_fails_for_one_schema_holds_the_category_of_that_one() {
    const CATEGORIES: [&str; 2] = ["bad", "good"];
    let bed = Testbed::new("one_schema").await;
    let registry = FaultyRegistry::start(&bed.environment().registry_url).await;
    registry.fails_for(&bed.topic("bad"));
    let topics = CATEGORIES.map(|category| bed.topic(category));
    let [bad, good] =
        topics.each_ref().map(|topic| Follower::start(&bed.environment().kafka, &[topic.as_str()]));
    let [in_bad, in_good] =
        CATEGORIES.map(|category| StreamName::new(format!("{category}-a")).must("name a stream"));
    let mut relay = RelayProcess::start(&bed.relay().impatient().registry(registry.url()));
    append(&bed, &in_bad).await;
    relay.quarantines("bad").await;
    append(&bed, &in_good).await;
    good.until_count(1).await;
    assert_eq!(relay.times("quarantined"), 1, "the other category is quarantined, too");
    assert_eq!(bad.count(), 0);
    registry.is_well();
    bad.until_count(1).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history_of(&CATEGORIES, Vec::new()).await), []);
}
