//! A rebase reads the topics' own records, of any age and number: no event is repeated.

use std::collections::HashSet;

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    Component, Ending, Must, PrivateStack, RelayProcess, RelaySettings, account, deposited,
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
    let administer = sqlx::query(include_str!("sql/administer.sql"));
    administer.execute(&mut *transaction).await.must("administer");
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
    assert!(bytes <= BYTES_MAX, "a rebase took {bytes} bytes");
}
