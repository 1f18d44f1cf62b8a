//! A rebase reads the topics' own records, of any age and number: no event is repeated.

use std::collections::HashSet;

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    Component, Ending, Must, PrivateStack, RelayProcess, RelaySettings, Testbed, account,
    administer, check, deposited,
};
use sqlx::{Connection, PgConnection};

use crate::forked::Pair;

/// Maximum memory of a rebase.
const BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The event that is published last, and lost with the primary.
const LOST: i64 = 3;

/// A backlog that was recorded three days ago and is published in one go, after the last copy of a
/// checkpoint that the standby receives; and a promotion that loses the later events.
async fn nothing_comes_twice(backlog: i64, change: impl Fn(RelaySettings) -> RelaySettings) -> u64 {
    let primary = PrivateStack::up(&[Component::Postgres]).await;
    let pair = Pair::of(primary, "rebased").await;
    let bed = &pair.bed;
    let consumer = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    append(&pair, "first", 0..1).await;
    consumer.until_count(1).await;
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    for begin in (0..backlog).step_by(5_000) {
        append(&pair, &begin.to_string(), begin..backlog.min(begin + 5_000)).await;
    }
    age(&pair).await;
    let mut standby = pair.until_replicated(backlog + 1).await;
    Pair::cut_off(&mut standby).await;

    relay.restart();
    let published = usize::try_from(backlog + 1).must("count");
    consumer.until_count(published).await;
    append(&pair, "lost", 0..LOST).await;
    consumer.until_count(published + 3).await;
    pair.primary.end(Component::Postgres, Ending::Crash).await;
    relay.kill().await;
    sqlx::query(include_str!("sql/promote.sql")).execute(&mut standby).await.must("promote");

    let promoted = bed.moved_to(pair.standby.environment()).await;
    let settings = change(promoted.relay());
    let (said, bytes) = settings.run_measured(&["rebase", "--reason", "it burned down"]).await;
    let said = said.unwrap_or_else(|said| panic!("{said}"));
    let diverging = said.lines().filter(|line| line.starts_with("diverges")).count();
    assert_eq!(diverging, 3, "{said}");
    let append = Append::to(&account("new"), ExpectedVersion::Any, [deposited(1)]);
    promoted.store().append(&append).await.must("append");
    let mut relay = RelayProcess::start(&settings);
    consumer.until_count(published + 4).await;
    // It has passed the published events, which are skipped.
    let bytes = bytes.max(relay.peak_bytes());
    assert!(relay.terminate().await.success());
    let ids: HashSet<_> = consumer.seen().iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), consumer.count(), "something came twice");
    bytes
}

async fn append(pair: &Pair, id: &str, sequences: std::ops::Range<i64>) {
    let append = Append::to(&account(id), ExpectedVersion::Any, sequences.map(deposited));
    pair.bed.store().append(&append).await.must("append");
}

/// Everything was recorded three days earlier.
async fn age(pair: &Pair) {
    let connection = PgConnection::connect(&pair.bed.database_url()).await;
    let mut connection = connection.must("connect");
    let mut transaction = connection.begin().await.must("begin");
    administer(&mut transaction).await;
    let age = sqlx::query(include_str!("sql/age.sql"));
    age.execute(&mut *transaction).await.must("change when events were recorded");
    transaction.commit().await.must("commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_was_days_old_when_it_was_published_does_not_come_again() {
    nothing_comes_twice(500, |settings| settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_another_source_what_is_published_does_not_come_again() {
    nothing_comes_twice(500, |settings| settings.variable("ANNALS_RELAY__RELAY__SOURCE", "other"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_backlog_is_gone_through_in_bounded_memory() {
    let bytes = nothing_comes_twice(150_000, |settings| settings).await;
    assert!(bytes <= BYTES_MAX, "a rebase or the relay behind it took {bytes} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relay_published_that_was_killed_before_it_copied_its_checkpoints_does_not_come_again()
 {
    const EVENTS: i64 = 20;
    let bed = Testbed::new("rebased_uncopied").await;
    let consumer = bed.follow();
    let mut locked = PgConnection::connect(&bed.database_url()).await.must("connect");
    let lock = sqlx::raw_sql(include_str!("sql/keep_from_copying.sql"));
    lock.execute(&mut locked).await.must("lock a table");
    let mut first = RelayProcess::start(&bed.relay());
    let append = Append::to(&account("a"), ExpectedVersion::Any, (0..EVENTS).map(deposited));
    bed.store().append(&append).await.must("append");
    let published = usize::try_from(EVENTS).must("count");
    consumer.until_count(published).await;
    first.kill().await;
    drop(locked);
    // It finds nothing to publish, and sees that the store has every published event.
    let mut second = RelayProcess::start(&bed.relay().instance("b"));
    second.event("publishing").await;
    assert!(second.terminate().await.success());

    let settings = bed.relay().instance("b");
    let (code, said) = settings.run_on_terminal(&["rebase", "--reason", "a test"]).await;
    let progress = format!("] records compared: {EVENTS} of ");
    assert!(code == 0 && said.contains(&progress), "{said}");
    let mut third = RelayProcess::start(&settings);
    let append = Append::to(&account("b"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
    consumer.until_count(published + 1).await;
    assert!(third.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), [], "{said}");
}

#[tokio::test]
async fn an_end_is_covered_once_all_copies_begin_behind_what_was_visible_when_it_was_the_end() {
    const SHARDS: i32 = 8;
    let bed = Testbed::new("covered").await;
    let next = async || {
        let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
        bed.store().append(&append).await.must("append");
    };
    let copy = async |shards: i32| {
        let copy = sqlx::query(include_str!("sql/copy_checkpoints.sql")).bind(shards);
        copy.execute(bed.store().pool()).await.must("copy checkpoints");
    };
    let covered = async |end: i64| -> i64 {
        let record = sqlx::query(include_str!("sql/record_end.sql")).bind(end);
        record.execute(bed.store().pool()).await.must("record an end");
        let covered = sqlx::query_scalar(include_str!("sql/covered_offset.sql"));
        covered.fetch_one(bed.store().pool()).await.must("read what is covered")
    };
    next().await;
    assert_eq!(covered(10).await, 0);
    // The records before 10 may be of a transaction whose commit was not answered: these
    // checkpoints may be older than it.
    copy(SHARDS).await;
    assert_eq!(covered(20).await, 0);
    next().await;
    copy(SHARDS - 1).await;
    assert_eq!(covered(30).await, 0, "of one shard there is no later checkpoint");
    copy(SHARDS).await;
    assert_eq!(covered(40).await, 10);
    next().await;
    copy(SHARDS).await;
    assert_eq!(covered(50).await, 40);
}
