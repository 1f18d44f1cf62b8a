//! An acknowledged append, and a change of personal keys, is on the server's disk, with any setting
//! of a role or a database; and its way there does not make appends wait for each other.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{DEADLINE, Must, Testbed, account, deposited};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, PgTransaction};

/// The changes of personal keys. A wrapping key is destroyed behind them, and an erasure is told.
const PERSONAL: [&str; 5] = [
    "select annals.personal_key_create('customer-1', '\\x000102030405060708090a0b0c0d0e0f', '\\x02', 1)",
    "select annals.personal_fence('customer-1', 'a request')",
    "select annals.personal_destroy('customer-1')",
    "select annals.personal_rotated()",
    "select annals.personal_rewrap('customer-1', '\\x02', '\\x03', 1)",
];

async fn setting(transaction: &mut PgTransaction<'_>) -> String {
    let setting = sqlx::query_scalar(include_str!("sql/synchronous_commit.sql"));
    setting.fetch_one(&mut **transaction).await.must("look at a setting")
}

#[tokio::test]
async fn a_commit_waits_for_the_disk_whatever_the_database_has_set() {
    let bed = Testbed::new("synchronous").await;
    let cases =
        [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")];
    for (set, expected) in cases {
        let mut transaction = bed.store().pool().begin().await.must("begin");
        let local = AssertSqlSafe(format!("set local synchronous_commit = {set}"));
        sqlx::raw_sql(local).execute(&mut *transaction).await.must("set it");
        assert_eq!(setting(&mut transaction).await, set);
        let append = Append::to(&account(set), ExpectedVersion::NoStream, [deposited(1)]);
        bed.store().append_in(&mut transaction, &append).await.must("append");
        // The setting at the commit counts.
        assert_eq!(setting(&mut transaction).await, expected, "set to {set}");
        transaction.commit().await.must("commit");
        for change in PERSONAL {
            let mut transaction = bed.store().pool().begin().await.must("begin");
            let local = AssertSqlSafe(format!("set local synchronous_commit = {set}; {change}"));
            sqlx::raw_sql(local).execute(&mut *transaction).await.must("change keys");
            assert_eq!(setting(&mut transaction).await, expected, "{change}, set to {set}");
        }
    }
}

#[tokio::test]
async fn an_append_takes_no_lock_but_those_of_its_rows_and_tables() {
    let bed = Testbed::new("locks").await;
    let append = |id: i64, events: i64| {
        Append::to(&account(id), ExpectedVersion::NoStream, (0..events).map(deposited))
    };
    bed.store().append(&append(0, 1)).await.must("append");
    // The rows of streams are locked before their versions are read.
    let expected =
        ["relation AccessShareLock", "relation RowExclusiveLock", "relation RowShareLock"];
    for (id, events) in [(1, 1), (2, 2)] {
        let mut transaction = bed.store().pool().begin().await.must("begin");
        bed.store().append_in(&mut transaction, &append(id, events)).await.must("append");
        let locks = sqlx::query_scalar(include_str!("sql/own_locks.sql"));
        let locks: Vec<String> = locks.fetch_all(&mut *transaction).await.must("look at locks");
        assert_eq!(locks, expected, "with {events} events");
        transaction.commit().await.must("commit");
    }
}

#[tokio::test]
async fn an_append_notifies_nobody_before_it_is_committed() {
    let bed = Testbed::new("notify").await;
    let options = annals_store::StoreOptions::default().without_notifications();
    let silent = options.connect(&bed.database_url()).await.must("connect");
    let mut listener = PgListener::connect(&bed.database_url()).await.must("connect");
    listener.listen("annals_appended").await.must("listen");
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, [deposited(1)]);
    silent.append(&append).await.must("append");
    let mark = sqlx::query(include_str!("sql/notify_mark.sql"));
    mark.execute(silent.pool()).await.must("notify");
    let first = tokio::time::timeout(DEADLINE, listener.recv()).await.must("wait for the mark");
    assert_eq!(first.must("listen").payload(), "mark", "the append notified by itself");
}
