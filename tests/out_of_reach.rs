//! A relay that alone cannot reach Kafka leaves its shards to the others, and takes part again when
//! it can. One that can reach nothing at all waits for both, and can be ended.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    ALL_SHARDS, Dice, FaultyLink, Load, LoadOptions, Must, Pace, RelayProcess, RelaySettings,
    Testbed, TwoDoors, account, check, deposited,
};

const LOAD: LoadOptions =
    LoadOptions { writers: 3, streams: 24, ahead_events_max: 2_000, pace: Pace::Bursts };
const EVENTS: usize = 300;
/// An attempt without an answer takes 5 s.
const ATTEMPTS_IN_A_LEASE: usize = 2;

async fn append(bed: &Testbed) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
}

/// Two relays that share the shards: the second one came later, and has the upper half.
async fn two_relays(first: &RelaySettings, second: &RelaySettings) -> [RelayProcess; 2] {
    let first = RelayProcess::start(first);
    first.publishes(ALL_SHARDS).await;
    let second = RelayProcess::start(second);
    second.publishes("4,5,6,7").await;
    first.publishes("0,1,2,3").await;
    [first, second]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shards_of_a_relay_that_alone_is_cut_off_from_kafka_are_published_by_another() {
    let kafka = TwoDoors::linked("").await;
    let bed = Testbed::on("cut_off", kafka.environment().clone()).await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let far = bed.relay().impatient().kafka(&kafka.other());
    let [mut first, mut second] = two_relays(&far, &bed.relay().impatient().instance("b")).await;
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(EVENTS).await;
    first.turn_page();
    second.turn_page();

    // It keeps its lease, which the database ends, and it can reach the database.
    kafka.link().cut();
    second.publishes(ALL_SHARDS).await;
    follower.until_count(follower.count() + EVENTS).await;
    first.event("shards_abandoned").await;
    assert!(!first.has_event("lease_lost"));
    second.turn_page();

    kafka.link().mend();
    first.goes_on_after("kafka").await;
    // It came last, and gets the upper half.
    first.publishes("4,5,6,7").await;
    second.publishes("0,1,2,3").await;
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(first.terminate().await.success());
    assert!(second.terminate().await.success());
    assert_eq!(check(&bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_are_all_cut_off_from_kafka_keep_their_shards_and_go_on_with_them() {
    let kafka = TwoDoors::linked("").await;
    let bed = Testbed::on("all_cut_off", kafka.environment().clone()).await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let far = || bed.relay().impatient().kafka(&kafka.other());
    let [mut first, mut second] = two_relays(&far(), &far().instance("b")).await;
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(EVENTS).await;

    kafka.link().cut();
    // For longer than a lease, so that each of them could have released shards that no other would
    // acquire.
    for _ in 0..ATTEMPTS_IN_A_LEASE {
        for relay in [&mut first, &mut second] {
            relay.turn_page();
            relay.event_with("outage_continues", &[("waiting_for", "kafka")]).await;
            assert!(!relay.has_event("shards_abandoned"));
        }
    }
    kafka.link().mend();
    for relay in [&first, &second] {
        relay.has_waited_for("kafka").await;
    }
    follower.until_count(follower.count() + EVENTS).await;
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(first.terminate().await.success());
    assert!(second.terminate().await.success());
    assert_eq!(check(&bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_database_that_break_while_kafka_is_away_are_made_again() {
    let kafka = TwoDoors::linked("").await;
    let bed = Testbed::on("both_break", kafka.environment().clone()).await;
    let follower = bed.follow();
    let (database, near) = FaultyLink::before(&bed.database_url()).await;
    let settings = bed.relay().impatient().kafka(&kafka.other()).database(&near);
    let mut relay = RelayProcess::start(&settings);
    append(&bed).await;
    follower.until_count(1).await;
    relay.turn_page();
    kafka.link().cut();
    append(&bed).await;
    relay.keeps_waiting_for("kafka").await;
    relay.turn_page();
    database.cut();
    relay.keeps_waiting_for("database").await;
    database.mend();
    kafka.link().mend();
    follower.until_count(2).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_told_to_end_while_the_database_is_silent_ends() {
    let bed = Testbed::new("silent").await;
    let follower = bed.follow();
    let (database, near) = FaultyLink::before(&bed.database_url()).await;
    let mut relay = RelayProcess::start(&bed.relay().impatient().database(&near));
    append(&bed).await;
    follower.until_count(1).await;
    database.silence();
    relay.keeps_waiting_for("database").await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}
