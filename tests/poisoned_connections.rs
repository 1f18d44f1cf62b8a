//! sqlx 0.9.0 returns a connection to its pool inside a transaction when the future of `begin` is
//! dropped at the wrong moment. An insert of the next borrower is then acknowledged, and lost when
//! the connection closes. An append is not.

use std::time::Duration;

use annals_store::{Append, ExpectedVersion, StoreOptions};
use annals_testkit::{
    Attempt, AttemptedEvent, FaultyLink, History, Must, Outcome, Testbed, Violation, account,
    check, deposited, dropped_after,
};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

/// More than the number of await points of `begin`.
const POLLS_MAX: usize = 8;
/// Far more than it takes to get a free connection, and to append.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);

/// One connection, so that the next borrower is sure to get the poisoned one.
async fn pool_of_one(url: &str) -> PgPool {
    let options = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
    let pool = options.connect(url).await.must("connect");
    // A task of its own returns it to the pool.
    while pool.num_idle() == 0 {
        tokio::task::yield_now().await;
    }
    pool
}

/// Drops a `begin` before its end; false if it had finished by then.
async fn drop_begin(pool: &PgPool, polls: usize) -> bool {
    match dropped_after(polls, pool.begin()).await {
        None => true,
        Some(transaction) => {
            transaction.must("begin").rollback().await.must("roll back");
            false
        }
    }
}

#[tokio::test]
async fn a_plain_insert_after_a_dropped_begin_is_acknowledged_and_lost() {
    let bed = Testbed::new("plain_insert").await;
    let table = include_str!("sql/plain_table.sql");
    sqlx::raw_sql(table).execute(bed.store().pool()).await.must("make a table");
    // On this thread, so that no answer arrives while this task runs: every await point is reached.
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let mut acknowledged = 0;
    for polls in 0..POLLS_MAX {
        let pool = pool_of_one(&proxy.url(&bed.database_url())).await;
        drop_begin(&pool, polls).await;
        let insert = sqlx::query(include_str!("sql/plain_insert.sql")).execute(&pool).await;
        acknowledged += i64::from(insert.is_ok());
        pool.close().await;
    }
    let count = sqlx::query_scalar(include_str!("sql/plain_count.sql"));
    let found: i64 = count.fetch_one(bed.store().pool()).await.must("count");
    assert!(
        found < acknowledged,
        "all {acknowledged} inserts are there: this sqlx does not poison connections any more, \
         and the append needs no guard against it"
    );
}

#[tokio::test]
async fn an_append_after_a_dropped_begin_is_recorded_when_it_is_acknowledged() {
    let bed = Testbed::new("append_after").await;
    let mut history = History::default();
    // On this thread, so that no answer arrives while this task runs: every await point is reached.
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let mut dropped = 0;
    for polls in 0..POLLS_MAX {
        let pool = pool_of_one(&proxy.url(&bed.database_url())).await;
        let store = StoreOptions::default().with_pool(pool.clone());
        // Registers the schema, so that the counted append is one statement.
        let warm = Append::to(&account("warm"), ExpectedVersion::Any, [deposited(1)]);
        store.append(&warm).await.must("append");
        dropped += usize::from(drop_begin(&pool, polls).await);

        let (stream, event) = (account(polls), deposited(1));
        let attempted =
            AttemptedEvent { id: event.id().get(), stream: stream.to_string(), version: Some(0) };
        store
            .append(&Append::to(&stream, ExpectedVersion::NoStream, [event]))
            .await
            .must("append after a dropped begin");
        history.attempts.push(Attempt { outcome: Outcome::Acknowledged, events: vec![attempted] });
        pool.close().await;
    }
    assert!(dropped > 2, "`begin` came to its end in all but {dropped} cases: nothing was tested");
    history.recorded = bed.recorded().await;
    let is_about_the_store = |violation: &Violation| !matches!(violation, Violation::Lost { .. });
    let violations: Vec<_> = check(&history).into_iter().filter(is_about_the_store).collect();
    assert_eq!(violations, []);
}

#[tokio::test]
async fn a_pool_of_one_connection_is_enough_to_append() {
    let bed = Testbed::new("pool_of_one").await;
    let store = StoreOptions::default().with_pool(pool_of_one(&bed.database_url()).await);
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, [deposited(1)]);
    let appended = tokio::time::timeout(ACQUIRE_TIMEOUT / 2, store.append(&append)).await;
    appended.must("append without waiting for a second connection").must("append");
}

#[tokio::test]
async fn a_pool_of_one_connection_is_enough_to_append_in_a_transaction() {
    let bed = Testbed::new("pool_of_one_in").await;
    let store = StoreOptions::default().with_pool(pool_of_one(&bed.database_url()).await);
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, [deposited(1)]);
    let mut transaction = store.pool().begin().await.must("begin");
    let appending = store.append_in(&mut transaction, &append);
    let appended = tokio::time::timeout(ACQUIRE_TIMEOUT / 2, appending).await;
    appended.must("append without waiting for a second connection").must("append");
    transaction.commit().await.must("commit");
    assert_eq!(bed.recorded().await.len(), 1);
}
