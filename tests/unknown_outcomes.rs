//! An append answers that nothing is written only if that is certain; an unknown outcome stays
//! unknown until the store answers.

use annals_store::{
    Append, AppendError, ExpectedVersion, Store, StoreOptions, StreamName, Version,
};
use annals_testkit::{FaultyLink, Must, Testbed, account, closed, deposited, opened, until};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Each commit takes a tenth of a second, and a statement may take less.
const SLOW_COMMITS: &str = "-c commit_delay=100000 -c commit_siblings=0 -c statement_timeout=70";
const LATE_CANCELS: usize = 2;
const TRIES_MAX: usize = 500;

/// A store whose sessions have these settings, and one connection kept open.
async fn store_with(url: &str, settings: &str) -> Store {
    connect_with(url, settings).await.must("connect")
}

async fn connect_with(url: &str, settings: &str) -> Result<Store, annals_store::Error> {
    let settings = settings.replace(' ', "%20").replace('=', "%3D");
    let options = StoreOptions::default().connections_max(1).without_notifications();
    options.connect(&format!("{url}?options={settings}")).await
}

fn to(stream: &StreamName) -> Append {
    Append::to(stream, ExpectedVersion::Any, [deposited(1)])
}

async fn execute(connection: &mut PgConnection, statements: &str) {
    let statements = AssertSqlSafe(statements.to_owned());
    sqlx::raw_sql(statements).execute(connection).await.must("execute statements");
}

#[tokio::test]
async fn an_append_that_is_cancelled_while_it_commits_has_an_unknown_outcome() {
    let bed = Testbed::new("slow_commit").await;
    bed.store().append(&to(&account("first"))).await.must("append");
    // On a slow machine a statement that connects may take longer, too.
    let mut connected = None;
    until("a store connects", async || {
        connected = connect_with(&bed.database_url(), SLOW_COMMITS).await.ok();
        connected.is_some()
    })
    .await;
    let store = connected.must("connect");
    let mut late = 0;
    for number in 0..TRIES_MAX {
        let stream = account(number);
        let append = to(&stream);
        let answer = store.append(&append).await;
        let version = bed.store().stream_version(&stream).await.must("read a version");
        match answer {
            Ok(_) => {}
            // Cancelled before its call, while the schema was looked up.
            Err(AppendError::Failed(_)) => assert_eq!(version, None),
            Err(error) => {
                let is_unknown = matches!(error, AppendError::Unknown(_));
                assert!(is_unknown && error.is_retryable(), "{error:?}");
                late += usize::from(version.is_some());
            }
        }
        let settled = bed.store().append(&append).await.must("append again");
        assert_eq!(settled.repeated, version.is_some());
        if late == LATE_CANCELS {
            return;
        }
    }
    panic!("of {TRIES_MAX} appends {late} were cancelled after their commit");
}

#[tokio::test]
async fn an_append_that_is_cancelled_while_it_waits_has_an_unknown_outcome_and_keeps_its_deadline()
{
    let bed = Testbed::new("cancelled").await;
    let stream = account("a");
    bed.store().append(&to(&stream)).await.must("append");
    // Enough to connect, and to look up the schema.
    for settings in ["-c lock_timeout=3000", "-c statement_timeout=3000"] {
        let store = store_with(&bed.database_url(), settings).await;
        let mut holder = bed.store().pool().begin().await.must("begin");
        bed.store().append_in(&mut holder, &to(&stream)).await.must("append");
        let append = to(&stream);
        let error = store.append(&append).await.unwrap_err();
        assert!(matches!(error, AppendError::Unknown(_)) && error.is_retryable(), "{error:?}");
        // The session stays alive.
        assert_eq!(store.pool().size(), 1, "{settings}");
        holder.rollback().await.must("roll back");
        let settled = bed.store().append(&append).await.must("append again");
        assert!(!settled.repeated);
    }
}

#[tokio::test]
async fn an_error_that_can_only_come_before_the_commit_is_a_failure() {
    let bed = Testbed::new("before_commit").await;
    bed.store().append(&to(&account("first"))).await.must("append");
    let before = bed.fingerprint().await;
    let mut administrator = PgConnection::connect(&bed.database_url()).await.must("connect");
    // A missing right, a read-only session, and a constraint that is checked at the commit.
    for settings in ["-c role=annals_read", "-c default_transaction_read_only=on"] {
        let store = store_with(&bed.database_url(), settings).await;
        let error = store.append(&to(&account("a"))).await.unwrap_err();
        assert!(matches!(error, AppendError::Failed(_)), "{settings}: {error:?}");
    }
    execute(&mut administrator, include_str!("sql/deferred_constraint.sql")).await;
    let store = bed.store();
    let refused = Append::to(&account("a"), ExpectedVersion::Any, [closed()]);
    let error = store.append(&refused).await.unwrap_err();
    assert!(matches!(error, AppendError::Failed(_)), "{error:?}");
    let mut transaction = store.pool().begin().await.must("begin");
    store.append_in(&mut transaction, &refused).await.must("append");
    let error = AppendError::from(transaction.commit().await.unwrap_err());
    assert!(matches!(error, AppendError::Failed(_)), "{error:?}");
    assert_eq!(bed.fingerprint().await, before);
    // Right after another append it is a plain statement, whose reply comes before the commit.
    for _ in 0..3 {
        store.append(&to(&account("first"))).await.must("append");
        let error = store.append(&refused).await.unwrap_err();
        assert!(matches!(error, AppendError::Failed(_)), "{error:?}");
        let version = store.stream_version(&account("a")).await.must("read a version");
        assert_eq!(version, None);
    }
}

#[tokio::test]
async fn an_outcome_that_is_unknown_stays_so_when_a_later_try_fails() {
    let bed = Testbed::new("stays_unknown").await;
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let mut administrator = PgConnection::connect(&bed.database_url()).await.must("connect");
    // The settings of the second attempt's session that the first one lacks.
    for (number, setting) in
        ["default_transaction_read_only = on", "role = annals_read"].into_iter().enumerate()
    {
        let stream = account(number);
        let options = StoreOptions::default().connections_max(1).without_notifications();
        let store = options.connect(&proxy.url(&bed.database_url())).await.must("connect");
        let create = Append::to(&stream, ExpectedVersion::Any, [opened("ann"), deposited(1)]);
        store.append(&create).await.must("append");
        while store.pool().num_idle() == 0 {
            tokio::task::yield_now().await;
        }
        let name = bed.name();
        execute(&mut administrator, &format!("alter database {name} set {setting}")).await;
        proxy.lose_next_answer();
        let append = to(&stream);
        let error = store.append(&append).await.unwrap_err();
        assert!(matches!(error, AppendError::Unknown(_)), "{setting}: {error:?}");
        execute(&mut administrator, &format!("alter database {name} reset all")).await;
        let version = bed.store().stream_version(&stream).await.must("read a version");
        assert_eq!(version, Version::new(2), "the answer was lost, and not the append");
        let settled = bed.another_store().await.append(&append).await.must("append again");
        assert!(settled.repeated);
    }
}
