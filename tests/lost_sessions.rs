//! A relay lives through the promotion of a standby that does not have its session. The promoted
//! database has no list of ids to fence that names it: the relays there find it in Kafka, and fence
//! it before they publish. So do relays on two databases that both take themselves for the primary.

use std::collections::HashSet;

use annals_store::{Append, ExpectedVersion, NewEvent, Store, StoreOptions, StreamName};
use annals_testkit::{
    CATEGORY, Component, Ending, Isolation, Must, PrivateStack, RelayProcess, TwoDoors, account,
    deposited, opened, read_topic,
};
use sqlx::{Connection, PgConnection};

use crate::forked::Pair;

/// Nothing ends by itself within the test: neither a lease, nor a transaction of the broker.
const FOR_EVER: &str = "600000";

async fn append(store: &Store, stream: &StreamName, events: impl IntoIterator<Item = NewEvent>) {
    let append = Append::to(stream, ExpectedVersion::Any, events);
    store.append(&append).await.must("append");
}

async fn promote(pair: &Pair) -> Store {
    let mut standby = PgConnection::connect(&pair.standby_url()).await.must("connect");
    sqlx::query(include_str!("sql/promote.sql")).execute(&mut standby).await.must("promote");
    StoreOptions::default().connect(&pair.standby_url()).await.must("connect")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_a_promotion_lost_publishes_nothing_more() {
    let kafka = TwoDoors::linked("").await;
    let primary = PrivateStack::up(&[Component::Postgres]).await;
    let brokers = kafka.environment().kafka.clone();
    let pair = Pair::with_kafka(primary, brokers.clone(), "lost_session").await;
    let (bed, a) = (&pair.bed, account("a"));
    let follower = bed.follow();
    let settings = bed
        .relay()
        .variable("ANNALS_RELAY__RELAY__LEASE_MS", FOR_EVER)
        .variable("ANNALS_RELAY__KAFKA__TRANSACTION_TIMEOUT_MS", FOR_EVER);
    let mut first = RelayProcess::start(&settings);
    append(bed.store(), &a, [opened("ann")]).await;
    follower.until_count(1).await;
    bed.until_copied().await;
    assert!(first.terminate().await.success());
    append(bed.store(), &a, [deposited(1)]).await;
    let mut standby = pair.until_replicated(2).await;
    Pair::cut_off(&mut standby).await;
    // The standby has the event that this relay is about to publish, and not its session.
    kafka.link().hold_new_transactions();
    let lost = RelayProcess::start(&settings.clone().instance("lost").kafka(&kafka.other()));
    kafka.link().holds_a_new_transaction().await;

    pair.primary.end(Component::Postgres, Ending::Crash).await;
    let promoted = promote(&pair).await;
    let next = settings.database(&pair.standby_url()).instance("next");
    let mut next = RelayProcess::start(&next);
    follower.until_count(2).await;
    next.event("fencing_strangers").await;
    kafka.link().mend();
    lost.waits_for("lease").await;
    append(&promoted, &a, [deposited(2)]).await;
    follower.until_count(3).await;
    assert!(next.terminate().await.success());
    let records = read_topic(&brokers, &bed.topic(CATEGORY), Isolation::Committed).await;
    let ids: HashSet<_> = records.iter().map(|record| record.header("ce_id")).collect();
    assert_eq!((records.len(), ids.len()), (3, 3), "an event was published twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_relays_on_two_primaries_the_one_that_lacks_published_events_halts() {
    let pair = Pair::new("two_primaries").await;
    let (bed, a) = (&pair.bed, account("a"));
    let follower = bed.follow();
    let mut on_old = RelayProcess::start(&bed.relay());
    append(bed.store(), &a, [opened("ann")]).await;
    follower.until_count(1).await;
    let mut standby = pair.until_replicated(1).await;
    Pair::cut_off(&mut standby).await;
    // The primary lives, and its relay with it.
    let promoted = promote(&pair).await;
    let settings = bed.relay().database(&pair.standby_url()).instance("b");
    let mut on_new = RelayProcess::start(&settings);
    append(&promoted, &a, [deposited(1)]).await;
    follower.until_count(2).await;

    append(bed.store(), &a, [deposited(100)]).await;
    assert!(!on_old.ended().await.success(), "the relay of the old primary ended without an error");
    on_old.event_with("halted", &[("cause", "diverged")]).await;
    append(&promoted, &a, [deposited(2)]).await;
    follower.until_count(3).await;
    assert!(on_new.terminate().await.success());
    let versions: Vec<i64> = follower.seen().iter().map(|event| event.version.get()).collect();
    assert_eq!(versions, [0, 1, 2], "an event of the old primary is published");
}
