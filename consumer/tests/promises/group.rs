//! A projection that several processes share: each event is applied once, through crashes, stops
//! and changes of the group.

use std::ops::ControlFlow;

use annals_consumer::{RunProgress, Runner};
use annals_testkit::{Dice, TopicBed, in_time};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::applied;
use crate::bed;
use crate::book;
use crate::events::placed;
use crate::logs;
use crate::members::{self, Fault, Member, projection, settings};

const STREAMS: i64 = 40;

async fn open(partitions: i32) -> (TopicBed, String) {
    let bed = bed().await;
    let topic = bed.create_topic(partitions).await;
    book::open(&bed.pool).await;
    applied::open(&bed.pool).await;
    projection(&topic).prepare(&bed.pool).await.unwrap();
    (bed, topic)
}

async fn write(bed: &TopicBed, topic: &str, versions: std::ops::Range<i64>) {
    bed.write(topic, &book::orders(bed, STREAMS, versions)).await;
}

async fn until_version(bed: &TopicBed, versions: i64) {
    applied::until(&bed.pool, STREAMS * versions).await;
}

/// Everything was applied once: the list, and the sums that are written beside it.
async fn check(bed: &TopicBed, versions: i64) {
    let applied = applied::all(&bed.pool).await;
    assert_eq!(applied::violation(&applied, STREAMS, versions), None);
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(STREAMS, versions));
}

async fn members_of(bed: &TopicBed) -> Vec<String> {
    let members = "select distinct member from applied order by member";
    sqlx::query_scalar(members).fetch_all(&bed.pool).await.unwrap()
}

#[tokio::test]
async fn processes_share_the_partitions_and_one_that_is_killed_loses_its_share_to_the_others() {
    let (bed, topic) = open(6).await;
    let one = Member::start(&bed, &topic, "one", Fault::None);
    write(&bed, &topic, 0..2).await;
    until_version(&bed, 2).await;
    let other = Member::start(&bed, &topic, "other", Fault::None);
    let mut versions = 2;
    while members_of(&bed).await.len() < 2 {
        write(&bed, &topic, versions..versions + 1).await;
        versions += 1;
        until_version(&bed, versions).await;
    }
    one.kill();
    write(&bed, &topic, versions..versions + 3).await;
    until_version(&bed, versions + 3).await;
    other.kill();
    check(&bed, versions + 3).await;
}

#[tokio::test]
async fn stopped_process_loses_its_share_and_writes_nothing_when_it_continues() {
    let (bed, topic) = open(3).await;
    let stopped = Member::start(&bed, &topic, "stopped", Fault::None);
    write(&bed, &topic, 0..30).await;
    applied::until(&bed.pool, 100).await;
    stopped.signal("STOP");
    let other = Member::start(&bed, &topic, "other", Fault::None);
    until_version(&bed, 30).await;
    stopped.signal("CONT");
    other.kill();
    write(&bed, &topic, 30..32).await;
    until_version(&bed, 32).await;
    stopped.kill();
    check(&bed, 32).await;
}

#[tokio::test]
async fn handler_that_writes_outside_the_transaction_is_caught_by_the_checker() {
    let (bed, topic) = open(1).await;
    write(&bed, &topic, 0..50).await;
    let member = Member::start(&bed, &topic, "faulty", Fault::WritesOutside);
    applied::until(&bed.pool, 1).await;
    // Committed outside, and not inside.
    member.kill();
    members::until_sessions_end(&bed.pool).await;
    assert_eq!(book::sums(&bed.pool).await.1, 0, "no kill came between the two transactions");
    let last = Member::start(&bed, &topic, "last", Fault::None);
    let all_added = async || book::sums(&bed.pool).await == book::sums_of(STREAMS, 50);
    annals_testkit::until("the rest is added", all_added).await;
    last.kill();
    let applied = applied::all(&bed.pool).await;
    assert!(applied::violation(&applied, STREAMS, 50).is_some(), "a repetition is not seen");
}

#[tokio::test]
async fn crashes_stops_and_changes_of_the_group_under_load_lose_and_repeat_nothing() {
    let (bed, topic) = open(4).await;
    let mut dice = Dice::of_this_run();
    let mut members: Vec<Member> =
        (0..3).map(|n| Member::start(&bed, &topic, &format!("m{n}"), Fault::None)).collect();
    let mut versions = 0;
    for step in 0..8 {
        write(&bed, &topic, versions..versions + 10).await;
        versions += 10;
        // In the middle of the work, mostly.
        applied::until(&bed.pool, STREAMS * (versions - 5)).await;
        let chosen = dice.below(members.len());
        match dice.below(3) {
            0 => members.swap_remove(chosen).kill(),
            1 => {
                members[chosen].signal("STOP");
                write(&bed, &topic, versions..versions + 1).await;
                versions += 1;
                until_version(&bed, versions).await;
                members[chosen].signal("CONT");
                continue;
            }
            _ => {}
        }
        members.push(Member::start(&bed, &topic, &format!("n{step}"), Fault::None));
    }
    until_version(&bed, versions).await;
    drop(members);
    check(&bed, versions).await;
}

fn runner(bed: &TopicBed, topic: &str) -> Runner {
    projection(topic).runner(&bed.pool, settings(&bed.brokers), bed.schemas())
}

#[tokio::test]
async fn second_runner_waits_and_takes_over_and_the_group_shows_the_offsets() {
    let (bed, topic) = open(1).await;
    write(&bed, &topic, 0..1).await;
    let (tell, mut told) = watch::channel(0);
    let first_shutdown = CancellationToken::new();
    let first = tokio::spawn({
        let (runner, shutdown, tell) = (runner(&bed, &topic), first_shutdown.clone(), tell.clone());
        let hook = move |progress: &RunProgress<'_>| {
            tell.send_modify(|events| *events += progress.batch_events);
            ControlFlow::Continue(())
        };
        async move { runner.run_until(&shutdown, hook, book::add).await }
    });
    in_time(told.wait_for(|events| *events == 40)).await.unwrap();
    let second = tokio::spawn({
        let runner = runner(&bed, &topic);
        async move { runner.run_until(&CancellationToken::new(), until_one_version, book::add).await }
    });
    write(&bed, &topic, 1..2).await;
    in_time(told.wait_for(|events| *events == 80)).await.unwrap();
    assert!(!second.is_finished());
    first_shutdown.cancel();
    assert_eq!(in_time(first).await.unwrap().unwrap().events, 80);
    assert_eq!(committed(&bed, &topic).await, 80);
    write(&bed, &topic, 2..3).await;
    assert_eq!(in_time(second).await.unwrap().unwrap().events, 40);
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(STREAMS, 3));
}

#[tokio::test]
async fn partitions_that_are_added_are_shared_while_a_runner_runs() {
    let (bed, topic) = open(1).await;
    write(&bed, &topic, 0..1).await;
    let (tell, mut told) = watch::channel(0);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (runner, shutdown) = (runner(&bed, &topic), shutdown.clone());
        let hook = move |progress: &RunProgress<'_>| {
            tell.send_modify(|events| *events += progress.batch_events);
            ControlFlow::Continue(())
        };
        async move { runner.run_until(&shutdown, hook, book::add).await }
    });
    in_time(told.wait_for(|events| *events == 40)).await.unwrap();
    bed.repartition(&topic, 3).await;
    bed.write_to(&topic, 2, &[bed.draft("order-40", 0, &placed(40))]).await;
    in_time(told.wait_for(|events| *events == 41)).await.unwrap();
    shutdown.cancel();
    let totals = in_time(running).await.unwrap().unwrap();
    assert_eq!((totals.events, totals.duplicates), (41, 0));
    assert_eq!(logs::count(&["partitions_added", &topic, "recorded=1", "found=3"]), 1);
}

fn until_one_version(progress: &RunProgress<'_>) -> ControlFlow<()> {
    let is_applied = progress.totals.events == STREAMS.unsigned_abs();
    if is_applied { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The offset that the group shows for the first partition.
async fn committed(bed: &TopicBed, topic: &str) -> i64 {
    let (brokers, topic) = (bed.brokers.clone(), topic.to_owned());
    let asked = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", "annals-projection-totals");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, 0);
        let committed = consumer.committed_offsets(list, annals_testkit::DEADLINE).unwrap();
        committed.elements()[0].offset().to_raw().unwrap()
    });
    asked.await.unwrap()
}
