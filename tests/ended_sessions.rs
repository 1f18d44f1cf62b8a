//! Sessions that the server ends, by a timeout or at its shutdown: no acknowledged event is
//! missing, and an event that the store reports as not written is absent.

use std::path::{Path, PathBuf};

use annals_store::{Append, AppendError, ExpectedVersion, Store, StoreOptions, StreamName};
use annals_testkit::{
    Component, Consumed, Dice, History, Load, LoadOptions, Must, Pace, PrivateStack, Recorded,
    Testbed, account, check, deposited, until,
};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;
use tokio::sync::watch;

const LOAD: LoadOptions =
    LoadOptions { writers: 4, streams: 12, ahead_events_max: usize::MAX, pace: Pace::Full };
const SHUTDOWNS: usize = 3;
const EVENTS_TO_A_SHUTDOWN_MAX: usize = 200;

fn to(stream: &StreamName) -> Append {
    Append::to(stream, ExpectedVersion::Any, [deposited(1)])
}

async fn store_of_one_session(url: &str) -> Store {
    let options = StoreOptions::default().connections_max(1).without_notifications();
    options.connect(url).await.must("connect")
}

#[tokio::test]
async fn an_append_that_the_transaction_timeout_ends_has_an_unknown_outcome() {
    // The setting is new in 17.
    let stack = PrivateStack::postgres("18").await;
    let bed = Testbed::on("transaction_timeout", stack.environment().clone()).await;
    let stream = account("a");
    bed.store().append(&to(&stream)).await.must("append");
    // In each session: the append tries again in another one. Long enough for the statements of a
    // connection on a slow machine.
    let limited = format!("{}?options=-c%20transaction_timeout%3D2000", bed.database_url());
    let store = store_of_one_session(&limited).await;
    let mut holder = bed.store().pool().begin().await.must("begin");
    bed.store().append_in(&mut holder, &to(&stream)).await.must("append");
    let append = to(&stream);
    let error = store.append(&append).await.unwrap_err();
    assert!(matches!(error, AppendError::Unknown(_)) && error.is_retryable(), "{error:?}");
    holder.rollback().await.must("roll back");
    let settled = bed.store().append(&append).await.must("append again");
    assert!(!settled.repeated);
    assert_eq!(bed.recorded().await.len(), 2);
}

#[tokio::test]
async fn a_callers_transaction_that_idles_too_long_is_not_recorded_and_says_so() {
    let bed = Testbed::new("idle_in_transaction").await;
    let stream = account("a");
    bed.store().append(&to(&stream)).await.must("append");
    let store = store_of_one_session(&bed.database_url()).await;
    let mut transaction = store.pool().begin().await.must("begin");
    let append = to(&stream);
    store.append_in(&mut transaction, &append).await.must("append");
    let session = sqlx::query_scalar(include_str!("sql/own_session.sql"));
    let session: i32 = session.fetch_one(&mut *transaction).await.must("ask for the session");
    // The last statement: on a slow machine the session may be idle before it for as long.
    let limit = sqlx::raw_sql("set local idle_in_transaction_session_timeout = 50");
    limit.execute(&mut *transaction).await.must("limit how long the transaction may idle");
    let mut other = PgConnection::connect(&bed.database_url()).await.must("connect");
    let has_ended = async || {
        let query = sqlx::query_scalar(include_str!("sql/session_lives.sql")).bind(session);
        let lives: bool = query.fetch_one(&mut other).await.must("look for the session");
        !lives
    };
    until("the session has ended", has_ended).await;
    let error = AppendError::from(transaction.commit().await.unwrap_err());
    assert!(matches!(error, AppendError::Failed(_) | AppendError::Unknown(_)), "{error:?}");
    assert_eq!(bed.recorded().await.len(), 1);
    let settled = bed.store().append(&append).await.must("append again");
    assert!(!settled.repeated);
}

/// The file with the server's process id.
async fn pid_file(bed: &Testbed) -> PathBuf {
    let query = sqlx::query_scalar(include_str!("sql/data_directory.sql"));
    let directory: String = query.fetch_one(bed.store().pool()).await.must("find the data");
    Path::new(&directory).join("postmaster.pid")
}

/// Sends the server a signal, and waits until it has ended.
async fn shut_down(pid_file: &Path, signal: &str) {
    let pid = std::fs::read_to_string(pid_file).must("read the server's process id");
    let pid = pid.lines().next().must("read the server's process id").to_owned();
    let told = Command::new("kill").args([signal, &pid]).status().await.must("signal the server");
    assert!(told.success(), "{told}");
    let process = Path::new("/proc").join(pid);
    until("the server has ended", async || !process.exists()).await;
}

/// As if a consumer had received exactly the recorded events.
fn as_consumed(recorded: &[Recorded]) -> Vec<Consumed> {
    let consumed = |(offset, event): (usize, &Recorded)| Consumed {
        id: event.id,
        stream: event.stream.clone(),
        version: event.version,
        payload: event.payload.clone(),
        topic: "tables".to_owned(),
        partition: 0,
        offset: i64::try_from(offset).must("count"),
    };
    recorded.iter().enumerate().map(consumed).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_survive_fast_and_immediate_shutdowns_or_were_never_acknowledged() {
    // Each commit takes a while: many are in progress when the server receives the signal.
    let settings = ["commit_delay=20000", "commit_siblings=0"];
    let stack = PrivateStack::postgres_with("", &settings).await;
    let bed = Testbed::on("shutdowns", stack.environment().clone()).await;
    let pid_file = pid_file(&bed).await;
    let mut dice = Dice::of_this_run();
    let (_nobody_consumes, consumed) = watch::channel(0);
    let load = Load::start(bed.store(), &LOAD, &mut dice, &consumed);
    for _ in 0..SHUTDOWNS {
        for signal in ["-INT", "-QUIT"] {
            let moment = load.acknowledged() + 1 + dice.below(EVENTS_TO_A_SHUTDOWN_MAX);
            load.until_acknowledged(moment).await;
            shut_down(&pid_file, signal).await;
            stack.start(Component::Postgres).await;
        }
    }
    let attempts = load.stop().await;
    let recorded = bed.recorded().await;
    let consumed = as_consumed(&recorded);
    assert_eq!(check(&History { attempts, recorded, consumed }), []);
}
