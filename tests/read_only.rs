//! A database is read-only for a while, as during a failover: store and relay continue by
//! themselves once it is writable again, though sessions that began meanwhile stay read-only.

use annals_store::{Append, AppendError, ExpectedVersion, StoreOptions};
use annals_testkit::{Must, RelayProcess, Testbed, account, check, deposited};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const SESSIONS: usize = 5;

fn append(number: i64) -> Append {
    Append::to(&account("a"), ExpectedVersion::Any, [deposited(number)])
}

/// The session that makes the database read-only and writable again. It may always write.
struct Administrator(PgConnection);

impl Administrator {
    async fn of(bed: &Testbed) -> Self {
        let url =
            format!("{}?options=-c%20default_transaction_read_only%3Doff", bed.database_url());
        Self(PgConnection::connect(&url).await.must("connect"))
    }

    async fn set_read_only(&mut self, bed: &Testbed, value: &str) {
        let name = bed.name();
        let set = format!("alter database {name} set default_transaction_read_only = {value}");
        let set = sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut self.0);
        set.await.must("let a database be read-only, or not");
    }

    async fn end_sessions(&mut self) {
        let end = sqlx::query(include_str!("sql/end_other_sessions.sql"));
        end.execute(&mut self.0).await.must("end sessions");
    }
}

fn is_read_only(error: &AppendError) -> bool {
    error.is_read_only() && error.is_retryable()
}

/// Fills a pool with sessions.
async fn fill(bed: &Testbed) {
    let pool = bed.store().pool();
    let mut connections = Vec::new();
    for _ in 0..SESSIONS {
        connections.push(pool.acquire().await.must("connect"));
    }
    drop(connections);
    // Without one that is still on its way back, the pool would open another one. A session that
    // was ended is closed then.
    while pool.num_idle() < pool.size() as usize {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_store_appends_again_once_its_database_may_be_written_to() {
    let bed = Testbed::new("read_only").await;
    let mut administrator = Administrator::of(&bed).await;
    bed.store().append(&append(1)).await.must("append");
    administrator.set_read_only(&bed, "on").await;
    administrator.end_sessions().await;
    fill(&bed).await;
    for number in 2..5 {
        let error = bed.store().append(&append(number)).await.unwrap_err();
        assert!(is_read_only(&error), "{error:?}");
    }
    fill(&bed).await;
    administrator.set_read_only(&bed, "off").await;
    bed.store().append(&append(5)).await.must("append to a database that is writable again");
    assert_eq!(bed.recorded().await.len(), 2);
}

#[tokio::test]
async fn a_store_registers_schemas_again_once_its_database_may_be_written_to() {
    let bed = Testbed::new("read_only_new").await;
    let mut administrator = Administrator::of(&bed).await;
    administrator.set_read_only(&bed, "on").await;
    administrator.end_sessions().await;
    fill(&bed).await;
    let error = bed.store().append(&append(1)).await.unwrap_err();
    assert!(is_read_only(&error), "{error:?}");
    fill(&bed).await;
    administrator.set_read_only(&bed, "off").await;
    bed.store().append(&append(1)).await.must("append to a database that is writable again");
}

#[tokio::test]
async fn an_append_in_a_transaction_succeeds_again_once_its_database_may_be_written_to() {
    let bed = Testbed::new("read_only_in").await;
    let mut administrator = Administrator::of(&bed).await;
    // By another store: a connection that is still on its way back to the pool would be met first
    // below, found closed, and replaced by one that may write.
    let other = StoreOptions::default().connect(&bed.database_url()).await.must("connect");
    other.append(&append(1)).await.must("append");
    other.pool().close().await;
    administrator.set_read_only(&bed, "on").await;
    administrator.end_sessions().await;
    fill(&bed).await;
    administrator.set_read_only(&bed, "off").await;
    let mut transaction = bed.store().pool().begin().await.must("begin");
    let error = bed.store().append_in(&mut transaction, &append(2)).await.unwrap_err();
    assert!(is_read_only(&error), "{error:?}");
    drop(transaction);
    // Of all the sessions that began meanwhile the store meets only this one.
    for number in 3..10 {
        let mut transaction = bed.store().pool().begin().await.must("begin");
        let append = append(number);
        let inside = bed.store().append_in(&mut transaction, &append).await;
        inside.must("append to a database that is writable again");
        transaction.commit().await.must("commit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_publishes_again_once_its_database_may_be_written_to() {
    let bed = Testbed::new("read_only_relay").await;
    let mut administrator = Administrator::of(&bed).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay().impatient());
    bed.store().append(&append(1)).await.must("append");
    follower.until_count(1).await;
    relay.turn_page();
    administrator.set_read_only(&bed, "on").await;
    administrator.end_sessions().await;
    relay.keeps_waiting_for("database").await;
    administrator.set_read_only(&bed, "off").await;
    bed.store().append(&append(2)).await.must("append to a database that is writable again");
    follower.until_count(2).await;
    relay.has_waited_for("database").await;
    // It uses none of the sessions again that began meanwhile.
    relay.turn_page();
    for events in 3..10 {
        bed.store().append(&append(1)).await.must("append");
        follower.until_count(events).await;
    }
    assert!(!relay.has_event("outage_began"), "a session is still read-only");
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}
