//! A relay is never alive and idle while events wait: hung work is logged, restarted, and in the
//! end left to the supervisor of the process.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{Must, RelayProcess, RelaySettings, Testbed, account, check, deposited};
use sqlx::{Connection, PgConnection};

/// Hung work is noticed soon, and work that is only slow is not taken for hung.
fn watchful(settings: RelaySettings) -> RelaySettings {
    settings
        .variable("ANNALS_RELAY__RELAY__STALL_MS_MAX", "5000")
        .variable("ANNALS_RELAY__RELAY__LEASE_MS", "5000")
        .variable("ANNALS_RELAY__KAFKA__TRANSACTION_TIMEOUT_MS", "5000")
}

async fn append(bed: &Testbed) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
}

/// Locks the tables that the relay reads, as a careless change of a table does, and leaves the
/// transaction open.
async fn lock(bed: &Testbed) -> PgConnection {
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let lock = sqlx::raw_sql(include_str!("sql/lock_what_is_read.sql"));
    lock.execute(&mut connection).await.must("lock a table");
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_hangs_is_told_and_replaced_and_loses_nothing() {
    let bed = Testbed::new("reader_hangs").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&watchful(bed.relay()));
    append(&bed).await;
    follower.until_count(1).await;
    relay.turn_page();
    let locked = lock(&bed).await;
    append(&bed).await;
    let said = relay.event("stalled").await;
    assert!(said.contains("reading the outbox for"), "{said}");
    locked.close().await.must("unlock the table");
    follower.until_count(2).await;
    append(&bed).await;
    follower.until_count(3).await;
    assert_eq!(relay.times("stalled"), 1);
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_beginning_again_does_not_help_ends_and_the_next_publishes_everything() {
    let bed = Testbed::new("hangs_again").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&watchful(bed.relay()));
    append(&bed).await;
    follower.until_count(1).await;
    let locked = lock(&bed).await;
    append(&bed).await;
    let status = relay.ended().await;
    assert!(!status.success(), "a supervisor restarts only a failed process");
    let said = relay.event("stalled_again").await;
    assert!(said.contains("reading the outbox for"), "{said}");
    locked.close().await.must("unlock the table");
    relay.restart();
    follower.until_count(2).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}
