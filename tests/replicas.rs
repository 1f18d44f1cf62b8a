//! Several relays of a deployment publish at once, and their consumers notice nothing of starts and
//! ends.

use annals_testkit::{
    ALL_SHARDS, Dice, Load, LoadOptions, Must, Pace, RelayProcess, Testbed, check,
};

const LOAD: LoadOptions =
    LoadOptions { writers: 4, streams: 24, ahead_events_max: 4_000, pace: Pace::Bursts };
/// Events between one restart and the next.
const EVENTS_BETWEEN: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_are_restarted_one_after_the_other_under_load_and_nobody_notices() {
    let bed = Testbed::new("rolling").await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let mut relays = ["a", "b", "c"].map(|name| RelayProcess::start(&bed.relay().instance(name)));
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    for relay in &relays {
        relay.event("publishing").await;
    }
    for _ in 0..2 {
        for relay in &mut relays {
            assert!(relay.terminate().await.success());
            follower.until_count(follower.count() + EVENTS_BETWEEN).await;
            relay.restart();
            relay.event("publishing").await;
            follower.until_count(follower.count() + EVENTS_BETWEEN).await;
        }
    }
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert_eq!(check(&bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_shards_evenly_and_take_them_over_from_one_that_ends() {
    let bed = Testbed::new("shared").await;
    let mut first = RelayProcess::start(&bed.relay());
    first.publishes(ALL_SHARDS).await;
    first.turn_page();
    let mut second = RelayProcess::start(&bed.relay().instance("b"));
    // The first releases the upper half, and continues with the lower.
    second.publishes("4,5,6,7").await;
    first.publishes("0,1,2,3").await;
    first.turn_page();
    assert!(second.terminate().await.success());
    first.publishes(ALL_SHARDS).await;
    // A cleanly ended relay need not be fenced.
    assert!(!first.has_event("fencing"), "there was nothing to fence");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_replicas_two_are_killed_at_once_under_load_and_the_third_publishes_everything() {
    let bed = Testbed::new("two_killed").await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let mut relays = ["a", "b", "c"].map(|name| RelayProcess::start(&bed.relay().instance(name)));
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    for relay in &relays {
        relay.event("publishing").await;
    }
    follower.until_count(follower.count() + EVENTS_BETWEEN).await;
    let [first, second, third] = &mut relays;
    first.kill().await;
    second.kill().await;
    third.publishes(ALL_SHARDS).await;
    third.event("fencing").await;
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert_eq!(check(&bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lasts_no_longer_than_its_length_after_the_clock_of_the_database_was_set_back() {
    let bed = Testbed::new("clock_back").await;
    let mut first = RelayProcess::start(&bed.relay());
    first.publishes(ALL_SHARDS).await;
    first.kill().await;
    // The lease was given by a clock that was a day ahead.
    let ahead = sqlx::query(include_str!("sql/leases_a_day_ahead.sql")).execute(bed.store().pool());
    assert_eq!(ahead.await.must("change a lease").rows_affected(), 1);
    let second = RelayProcess::start(&bed.relay().instance("b"));
    second.publishes(ALL_SHARDS).await;
    second.event("fencing").await;
}
