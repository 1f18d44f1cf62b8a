//! With `relay.delivery = at-least-once` no event is lost and each stream comes in order; only
//! repetitions after a failure differ from exactly once.

use std::collections::HashSet;

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    CATEGORY, Component, Dice, Ending, History, Load, LoadOptions, Must, Pace, PrivateStack,
    RelayProcess, RelaySettings, Testbed, Violation, account, check, configure_topic, deposited,
    deposited_large, opened, repetitions,
};
use uuid::Uuid;

const DELIVERY: &str = "ANNALS_RELAY__RELAY__DELIVERY";
const LOAD: LoadOptions =
    LoadOptions { writers: 3, streams: 16, ahead_events_max: 4_000, pace: Pace::Bursts };

fn at_least_once(bed: &Testbed) -> RelaySettings {
    bed.relay().variable(DELIVERY, "at-least-once")
}

/// The checker's findings without repetitions, as for a consumer that remembers its events.
fn check_first(mut history: History) -> Vec<Violation> {
    let mut seen = HashSet::new();
    history.consumed.retain(|event| seen.insert(event.id));
    check(&history)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_killed_under_load_lose_and_reorder_nothing() {
    let bed = Testbed::new("alo_killed").await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let mut relays =
        ["a", "b"].map(|name| RelayProcess::start(&at_least_once(&bed).instance(name)));
    let load = Load::start(
        bed.store(),
        &LoadOptions { pace: Pace::Full, ..LOAD },
        &mut dice,
        &follower.counter(),
    );
    for kill in 0..repetitions(6, 10) {
        follower.until_count(follower.count() + dice.below(600)).await;
        relays[kill % 2].kill().await;
        relays[kill % 2].restart();
    }
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert_eq!(check_first(bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_ends_cleanly_repeats_nothing() {
    let bed = Testbed::new("alo_clean").await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&at_least_once(&bed));
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    for _ in 0..3 {
        follower.until_count(follower.count() + 300).await;
        assert!(relay.terminate().await.success());
        relay.restart();
    }
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_killed_under_load_costs_repeats_only() {
    let stack = PrivateStack::up(&[Component::Kafka]).await;
    let bed = Testbed::on("alo_kafka_away", stack.environment().clone()).await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let settings =
        at_least_once(&bed).variable("ANNALS_RELAY__KAFKA__TRANSACTION_TIMEOUT_MS", "3000");
    let mut relay = RelayProcess::start(&settings);
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(300).await;
    stack.end(Component::Kafka, Ending::Crash).await;
    relay.waits_for("kafka").await;
    stack.start(Component::Kafka).await;
    relay.has_waited_for("kafka").await;
    follower.until_count(follower.count() + 300).await;
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check_first(bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_refused_is_overtaken_by_nothing_of_its_stream() {
    let bed = Testbed::new("alo_refused").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&at_least_once(&bed));
    let append = Append::to(&account("a"), ExpectedVersion::Any, [opened("ann")]);
    bed.store().append(&append).await.must("append");
    follower.until_count(1).await;
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    configure_topic(brokers, &topic, "max.message.bytes", "3000").await;
    let mut together = Append::to(
        &account("a"),
        ExpectedVersion::Any,
        [deposited(1), deposited_large(2), deposited(3)],
    );
    for number in 0..30 {
        let events = [deposited(1), deposited(2)];
        together = together.and_to(&account(number), ExpectedVersion::Any, events);
    }
    bed.store().append(&together).await.must("append");
    relay.quarantines("account-a").await;
    let ids = |events: &[annals_consumer::Delivered]| -> HashSet<Uuid> {
        events.iter().map(|event| event.event_id).collect()
    };
    follower.until("the other streams", |seen| ids(seen).len() >= 61).await;
    configure_topic(brokers, &topic, "max.message.bytes", "1000000").await;
    let released = at_least_once(&bed).run(&["quarantine", "release"]).await;
    assert!(released.is_ok(), "{released:?}");
    follower.until("everything", |seen| ids(seen).len() >= 64).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check_first(bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_keeps_its_delivery_until_it_is_changed_while_no_relay_runs() {
    let bed = Testbed::new("alo_changed").await;
    let follower = bed.follow();
    let append = async |sequence| {
        let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(sequence)]);
        bed.store().append(&append).await.must("append");
    };
    let mut relay = RelayProcess::start(&bed.relay());
    append(1).await;
    follower.until_count(1).await;
    let refused = at_least_once(&bed).run(&["run"]).await.unwrap_err();
    assert!(refused.contains("annals-relay deliver at-least-once"), "{refused}");
    let refused = bed.relay().run(&["deliver", "at-least-once"]).await.unwrap_err();
    assert!(refused.contains(" run: a"), "{refused}");
    assert!(relay.terminate().await.success());
    for (delivery, events) in [("at-least-once", 2), ("exactly-once", 3), ("at-least-once", 4)] {
        let said = bed.relay().run(&["deliver", delivery]).await;
        assert!(said.is_ok(), "{said:?}");
        let mut relay = RelayProcess::start(&bed.relay().variable(DELIVERY, delivery));
        append(2).await;
        follower.until_count(events).await;
        assert!(relay.terminate().await.success());
    }
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}
