//! A component is down: the relay waits, names the component, and continues by itself. Each test
//! stops a server of its own, never the shared one.

use annals_store::{Append, ExpectedVersion, NewEvent};
use annals_testkit::{
    CATEGORY, Component, Dice, Ending, Load, LoadOptions, Must, Pace, PrivateStack, RelayProcess,
    Testbed, account, check, closed, deposited, opened,
};

const LOAD: LoadOptions =
    LoadOptions { writers: 3, streams: 12, ahead_events_max: 5_000, pace: Pace::Bursts };

async fn append(bed: &Testbed, event: NewEvent) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [event]);
    bed.store().append(&append).await.must("append");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_stopped_and_killed_and_started_again() {
    let stack = PrivateStack::up(&[Component::Kafka]).await;
    let bed = Testbed::on("kafka_away", stack.environment().clone()).await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    // The time that a record may be in flight before the relay counts Kafka as down.
    let settings = bed.relay().variable("ANNALS_RELAY__KAFKA__TRANSACTION_TIMEOUT_MS", "3000");
    let mut relay = RelayProcess::start(&settings);
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(500).await;
    for ending in [Ending::Orderly, Ending::Crash] {
        relay.turn_page();
        stack.end(Component::Kafka, ending).await;
        relay.waits_for("kafka").await;
        // Appends continue meanwhile.
        append(&bed, deposited(1)).await;
        stack.start(Component::Kafka).await;
        relay.has_waited_for("kafka").await;
        follower.until_count(follower.count() + 500).await;
    }
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registry_stopped_and_started_again() {
    let stack = PrivateStack::up(&[Component::Registry]).await;
    let bed = Testbed::on("registry_away", stack.environment().clone()).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    append(&bed, opened("ann")).await;
    follower.until_count(1).await;
    stack.end(Component::Registry, Ending::Orderly).await;

    // Events with known schemas are published, also by a relay that starts during the registry's
    // outage.
    append(&bed, opened("ann")).await;
    follower.until_count(2).await;
    relay.kill().await;
    relay.restart();
    append(&bed, opened("ann")).await;
    follower.until_count(3).await;
    // The category of an event whose schema the registry has not seen waits, and the relay logs it.
    append(&bed, closed()).await;
    relay.quarantines(CATEGORY).await;
    assert_eq!(follower.count(), 3);
    stack.start(Component::Registry).await;
    follower.until_count(4).await;
    relay.event("quarantine_ended").await;
    append(&bed, deposited(1)).await;
    follower.until_count(5).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_stopped_and_killed_and_started_again() {
    let stack = PrivateStack::up(&[Component::Postgres]).await;
    let bed = Testbed::on("database_away", stack.environment().clone()).await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(500).await;
    for ending in [Ending::Orderly, Ending::Crash] {
        relay.turn_page();
        stack.end(Component::Postgres, ending).await;
        relay.waits_for("database").await;
        stack.start(Component::Postgres).await;
        relay.has_waited_for("database").await;
        follower.until_count(follower.count() + 500).await;
    }
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(attempts).await), []);
}
