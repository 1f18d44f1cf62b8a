//! After any end of a relay, the next one repeats and omits nothing for readers of committed
//! records.

use std::collections::HashSet;

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    ALL_SHARDS, Attempt, AttemptedEvent, CATEGORY, Dice, Follower, Isolation, Load, LoadOptions,
    Must, Outcome, Pace, RelayProcess, Testbed, account, check, deposited, read_topic, repetitions,
};

/// Maximum number of appends from one start to the next kill: from the relay's first moments to
/// well into its work.
const APPENDS_TO_A_KILL_MAX: usize = 600;
const LOAD: LoadOptions =
    LoadOptions { writers: 3, streams: 16, ahead_events_max: 2_000, pace: Pace::Full };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_again_and_again_at_random_moments_under_load_loses_repeats_and_reorders_nothing()
 {
    let bed = Testbed::new("killed").await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    let mut attempts = Vec::new();
    for _ in 0..repetitions(8, 20) {
        // Moments are counted in appends, not in time: a busy machine slows both.
        let moment = dice.below(APPENDS_TO_A_KILL_MAX);
        attempts.extend(run_stopwatch(&bed, moment).await);
        relay.kill().await;
        relay.restart();
    }
    attempts.extend(load.stop().await);
    follower.caught_up(&bed.recorded().await).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(attempts).await), []);
}

/// Appends one by one, as load of its own.
async fn run_stopwatch(bed: &Testbed, appends: usize) -> Vec<Attempt> {
    let stream = account("stopwatch");
    let mut attempts = Vec::new();
    for _ in 0..appends {
        let event = deposited(1);
        let id = event.id().get();
        let append = Append::to(&stream, ExpectedVersion::Any, [event]);
        let appended = bed.store().append(&append).await.must("append");
        let version = appended.events.first().map(|(version, _)| version.get());
        let events = vec![AttemptedEvent { id, stream: stream.to_string(), version }];
        attempts.push(Attempt { outcome: Outcome::Acknowledged, events });
    }
    attempts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_told_to_end_ends_cleanly_and_the_next_repeats_nothing_for_anybody() {
    let bed = Testbed::new("told_to_end").await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    for _ in 0..5 {
        until_more(&follower, 200).await;
        let status = relay.terminate().await;
        assert!(status.success(), "after SIGTERM it ended with {status}");
        relay.restart();
    }
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(attempts).await), []);

    // There was no work in flight at its end: even readers of uncommitted records see each event
    // once.
    let topic = bed.topic(CATEGORY);
    let records = read_topic(&bed.environment().kafka, &topic, Isolation::Uncommitted).await;
    let ids: HashSet<_> = records.iter().map(|record| record.header("ce_id")).collect();
    assert_eq!(ids.len(), records.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_takes_over_from_a_dead_one() {
    let bed = Testbed::new("takes_over").await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let mut first = RelayProcess::start(&bed.relay());
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(500).await;
    let second = RelayProcess::start(&bed.relay().instance("b"));
    // Both publish: each half of the shards.
    second.event("publishing").await;
    first.kill().await;
    second.publishes(ALL_SHARDS).await;
    until_more(&follower, 500).await;
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert_eq!(check(&bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_was_frozen_cannot_publish_once_another_took_over() {
    let bed = Testbed::new("frozen").await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let first = RelayProcess::start(&bed.relay());
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(500).await;
    let mut second = RelayProcess::start(&bed.relay().instance("b"));
    second.event("publishing").await;
    first.freeze().await;
    second.publishes(ALL_SHARDS).await;
    until_more(&follower, 500).await;
    // It resumes in the middle of its work, without knowledge of the takeover.
    first.thaw().await;
    first.event("lease_lost").await;
    until_more(&follower, 500).await;
    // It works as before: it takes over in its turn.
    second.kill().await;
    until_more(&follower, 500).await;
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert_eq!(check(&bed.history(attempts).await), []);
}

async fn until_more(follower: &Follower, events: usize) {
    follower.until_count(follower.count() + events).await;
}
