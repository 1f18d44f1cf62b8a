//! Acknowledged events survive any crash of the database, refused ones are absent, and a repeated
//! append settles an unknown outcome.

use annals_store::{Error, Store, StoreOptions};
use annals_testkit::{
    Component, Consumed, DEADLINE, Dice, Ending, History, Load, LoadOptions, Must, Outcome, Pace,
    PrivateStack, Recorded, Testbed, Violation, check, repetitions,
};
use tokio::sync::watch;

use crate::audit_log::annals;

/// Maximum number of acknowledged events from one start of the database to its next crash.
const EVENTS_TO_A_CRASH_MAX: usize = 300;
const LOAD: LoadOptions =
    LoadOptions { writers: 8, streams: 12, ahead_events_max: usize::MAX, pace: Pace::Full };

/// As if a consumer had received exactly the recorded events: here only the writers and the tables
/// are compared.
fn as_consumed(recorded: &[Recorded]) -> Vec<Consumed> {
    let number = |number: usize| i64::try_from(number).unwrap();
    let events = recorded.iter().enumerate();
    events
        .map(|(offset, event)| Consumed {
            id: event.id,
            stream: event.stream.clone(),
            version: event.version,
            payload: event.payload.clone(),
            topic: "tables".to_owned(),
            partition: 0,
            offset: number(offset),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_survive_many_crashes_of_the_database_or_were_never_acknowledged() {
    let stack = PrivateStack::up(&[Component::Postgres]).await;
    let bed = Testbed::on("crashes", stack.environment().clone()).await;
    let mut dice = Dice::of_this_run();
    let (_nobody_consumes, consumed) = watch::channel(0);
    let load = Load::start(bed.store(), &LOAD, &mut dice, &consumed);
    for _ in 0..repetitions(15, 40) {
        let moment = load.acknowledged() + 1 + dice.below(EVENTS_TO_A_CRASH_MAX);
        load.until_acknowledged(moment).await;
        stack.end(Component::Postgres, Ending::Crash).await;
        stack.start(Component::Postgres).await;
    }
    let attempts = load.stop().await;
    let recorded = bed.recorded().await;
    let consumed = as_consumed(&recorded);
    let mut history = History { attempts, recorded, consumed };
    assert_eq!(check(&history), []);

    // The checker proves itself: it finds one missing acknowledged event.
    let acknowledged =
        |attempt: &&annals_testkit::Attempt| attempt.outcome == Outcome::Acknowledged;
    let lost = history.attempts.iter().find(acknowledged).unwrap().events[0].id;
    history.recorded.retain(|event| event.id != lost);
    let missing = |found: &Violation| matches!(found, Violation::AcknowledgedMissing { id, .. } if *id == lost);
    assert!(check(&history).iter().any(missing));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_wait_for_its_disk_is_refused_unless_told() {
    let stack = PrivateStack::up(&[Component::Postgres]).await;
    let bed = Testbed::on("fsync_off", stack.environment().clone()).await;
    for setting in include_str!("sql/fsync_off.sql").lines().filter(|line| !line.starts_with("--"))
    {
        sqlx::raw_sql(setting).execute(bed.store().pool()).await.must("turn fsync off");
    }
    // The server applies the setting with a delay.
    let url = bed.database_url();
    let connect = || Store::connect(&url);
    let refused = async {
        let mut answer = connect().await;
        while answer.is_ok() {
            answer = connect().await;
        }
        answer
    };
    let refused = tokio::time::timeout(DEADLINE, refused).await.must("be refused").unwrap_err();
    assert!(matches!(refused, Error::NotDurable), "{refused:?}");
    assert!(refused.to_string().contains("fsync"), "{refused}");
    assert!(matches!(bed.store().migrate().await, Err(Error::NotDurable)));
    let told = StoreOptions::default().allow_fsync_off().connect(&bed.database_url()).await;
    told.must("connect with the option").migrate().await.must("migrate with the option");

    // The commands have the option, too.
    let (code, said) = bed.relay().run_for_code(&["migrate"]).await;
    assert!(code == 1 && said.contains("database.allow_fsync_off"), "{said}");
    let told = bed.relay().variable("ANNALS_RELAY__DATABASE__ALLOW_FSYNC_OFF", "true");
    told.must_run(&["migrate"]).await;
    assert!(!annals(&bed, &["log"]).status.success());
    assert!(annals(&bed, &["--allow-fsync-off", "log"]).status.success());
}
