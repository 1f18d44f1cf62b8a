//! Every committed event reaches its topic, each stream in version order; a transaction that stays
//! open anywhere delays only its own events; uncommitted events leave no trace.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    CATEGORY, Dice, Follower, Isolation, Load, LoadOptions, Must, Pace, RelayProcess, Testbed,
    account, check, deposited, opened, read_topic,
};
use sqlx::{Connection, PgConnection};

#[tokio::test]
async fn a_transaction_left_open_delays_nobody_elses_events_and_loses_none_of_its_own() {
    let bed = Testbed::new("left_open").await;
    let follower = bed.follow();
    let _relay = RelayProcess::start(&bed.relay());
    // One that appended, one that only has an id, in another database of the same cluster.
    let mut open = bed.store().pool().begin().await.must("begin");
    let late = [deposited(1), deposited(2)];
    let late_ids = late.each_ref().map(|event| event.id().get());
    let append = Append::to(&account("late"), ExpectedVersion::NoStream, late);
    bed.store().append_in(&mut open, &append).await.must("append");
    let url = &bed.environment().database_url;
    let mut elsewhere = PgConnection::connect(url).await.must("connect");
    let mut idle = elsewhere.begin().await.must("begin");
    sqlx::query(include_str!("sql/take_transaction_id.sql"))
        .execute(&mut *idle)
        .await
        .must("take an id");

    // Each of these is in a window of its own, since the next one waits until it has come.
    for round in 1..=10 {
        let append = Append::to(&account(round), ExpectedVersion::NoStream, [opened("ann")]);
        bed.store().append(&append).await.must("append");
        follower.until_count(round).await;
    }
    open.commit().await.must("commit");
    let is_late = |id| move |event: &&annals_consumer::Delivered| event.event_id == id;
    for id in late_ids {
        follower
            .until("the late events", |seen| seen.iter().any(|event| is_late(id)(&event)))
            .await;
    }
    idle.rollback().await.must("roll back");
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test]
async fn what_was_rolled_back_or_refused_leaves_no_trace_on_the_topic() {
    let bed = Testbed::new("no_trace").await;
    let follower = bed.follow();
    let _relay = RelayProcess::start(&bed.relay());
    let stream = account("a");
    bed.store()
        .append(&Append::to(&stream, ExpectedVersion::Any, [opened("ann")]))
        .await
        .must("append");
    follower.until_count(1).await;

    let mut transaction = bed.store().pool().begin().await.must("begin");
    let append = Append::to(&stream, ExpectedVersion::Any, [deposited(1)]);
    bed.store().append_in(&mut transaction, &append).await.must("append");
    transaction.rollback().await.must("roll back");
    let refused = Append::to(&account("b"), ExpectedVersion::StreamExists, [deposited(2)]);
    bed.store().append(&refused).await.unwrap_err();
    bed.store()
        .append(&Append::to(&stream, ExpectedVersion::Any, [deposited(3)]))
        .await
        .must("append");
    follower.until_count(2).await;

    let topic = bed.topic(CATEGORY);
    let records = read_topic(&bed.environment().kafka, &topic, Isolation::Uncommitted).await;
    let versions: Vec<_> = records.iter().map(|record| record.header("ce_streamversion")).collect();
    assert_eq!(versions, [Some("0"), Some("1")], "of all records, also of aborted transactions");
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_reader_gets_each_event_once_and_each_stream_in_version_order() {
    let bed = Testbed::new("each_once").await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let _relay = RelayProcess::start(&bed.relay());
    let options =
        LoadOptions { writers: 6, streams: 20, ahead_events_max: 2_000, pace: Pace::Full };
    let load = Load::start(bed.store(), &options, &mut dice, &follower.counter());
    load.until_acknowledged(5_000).await;
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert_eq!(check(&bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_was_appended_before_the_first_relay_started_is_published_in_order() {
    const EVENTS: i64 = 30_000;
    let bed = Testbed::new("backlog").await;
    for chunk in 0..EVENTS / 1_000 {
        let [first, second] = [chunk % 7, 7 + chunk % 5].map(account);
        let append = Append::to(&first, ExpectedVersion::Any, (0..500).map(deposited)).and_to(
            &second,
            ExpectedVersion::Any,
            (0..500).map(deposited),
        );
        bed.store().append(&append).await.must("append");
    }
    let follower = bed.follow();
    let _relay = RelayProcess::start(&bed.relay());
    follower.until_count(usize::try_from(EVENTS).unwrap()).await;
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test]
async fn two_categories_go_to_two_topics() {
    let bed = Testbed::new("two_categories").await;
    let ledger = annals_store::StreamName::new("ledger-1").unwrap();
    let topics = [bed.topic(CATEGORY), bed.topic("ledger")];
    let follower = Follower::start(&bed.environment().kafka, &[&topics[0], &topics[1]]);
    let _relay = RelayProcess::start(&bed.relay());
    let append =
        Append::to(&ledger, ExpectedVersion::NoStream, [deposited(1).for_category("ledger")])
            .and_to(&account("a"), ExpectedVersion::NoStream, [opened("ann"), deposited(1)]);
    bed.store().append(&append).await.must("append");
    follower.until_count(3).await;
    for delivered in follower.seen() {
        let category = delivered.stream.split('-').next().unwrap_or_default();
        assert_eq!(*delivered.topic, bed.topic(category));
    }
}
