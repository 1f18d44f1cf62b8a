//! A snapshot changes how fast a state is loaded, never which state: on a real store and in memory,
//! after crashes, changes of the state's schema, and removed events.

use std::time::Duration;

use annals_store::{
    Aggregate, Append, EventStore, ExpectedVersion, MemoryStore, Snapshots, Store, StreamName,
    Version,
};
use annals_testkit::{
    AccountEvent, DEADLINE, MoneyDeposited, Must, Testbed, account, closed, deposited, opened,
    remove_events, until,
};
use serde::{Deserialize, Serialize};

const EVERY: u32 = 10;

/// Counts its deposits; `FACTOR` and `SCHEMA` are those of a version of the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counted<const SCHEMA: u8> {
    cents: i64,
    deposits: i64,
}

impl<const SCHEMA: u8> Aggregate for Counted<SCHEMA> {
    type Event = AccountEvent;

    fn apply(&mut self, event: AccountEvent) {
        if let AccountEvent::MoneyDeposited(MoneyDeposited { cents, .. }) = event {
            self.cents += cents * i64::from(SCHEMA);
            self.deposits += 1;
        }
    }

    fn snapshots() -> Option<Snapshots<Self>> {
        let schema = match SCHEMA {
            1 => include_str!("avro/CountedState.v1.avsc"),
            _ => include_str!("avro/CountedState.v2.avsc"),
        };
        Some(Snapshots::every(EVERY, schema))
    }
}

/// The same state without snapshots.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plain(Counted<1>);

impl Aggregate for Plain {
    type Event = AccountEvent;

    fn apply(&mut self, event: AccountEvent) {
        self.0.apply(event);
    }
}

async fn deposit<const SCHEMA: u8>(store: &impl EventStore, stream: &StreamName, cents: i64) {
    let event = MoneyDeposited { sequence: 0, cents, note: String::new() };
    let decision = |_: &Counted<SCHEMA>| Ok::<_, std::fmt::Error>(vec![event.clone().into()]);
    store.decide(stream, decision).await.must("deposit");
}

async fn fill(store: &impl EventStore, stream: &StreamName, events: i64) {
    let append = Append::to(stream, ExpectedVersion::Any, (1..=events).map(deposited));
    store.append(&append).await.must("append");
}

/// Asserts that the state is that of all events.
async fn check_state(store: &impl EventStore, stream: &StreamName) -> Counted<1> {
    let loaded = store.load::<Counted<1>>(stream).await.must("load");
    let plain = store.load::<Plain>(stream).await.must("load without snapshots");
    assert_eq!((&loaded.state, loaded.version), (&plain.state.0, plain.version));
    assert_eq!(loaded.removed, plain.removed);
    loaded.state
}

/// Versions of the stream's snapshots, by state schema.
async fn snapshots(store: &Store, stream: &StreamName) -> Vec<i64> {
    let query = sqlx::query_scalar(include_str!("sql/snapshots.sql")).bind(stream.as_str());
    query.fetch_all(store.pool()).await.must("read the snapshots")
}

async fn until_snapshots(store: &Store, stream: &StreamName, versions: &[i64]) {
    let what = format!("snapshots at {versions:?}");
    until(&what, async || snapshots(store, stream).await == versions).await;
}

/// Puts a state that no events make into the snapshots: a load that uses it is seen.
async fn falsify(store: &Store, stream: &StreamName) {
    let query = sqlx::query(include_str!("sql/falsify_snapshots.sql")).bind(stream.as_str());
    query.execute(store.pool()).await.must("change the snapshots");
}

/// The content of the changed snapshots: 7 cents, 0 deposits.
const FALSE: Counted<1> = Counted { cents: 7, deposits: 0 };

#[test]
fn the_states_of_these_tests_fit_their_schemas() {
    Counted::<1>::snapshots().must("have snapshots").verify().unwrap();
    let wrong = Snapshots::<String>::every(1, include_str!("avro/CountedState.v1.avsc"));
    wrong.verify().unwrap_err();
    Snapshots::<Counted<1>>::every(1, "no schema").verify().unwrap_err();
}

#[tokio::test]
async fn a_snapshot_is_written_after_every_n_events_and_used() {
    let bed = Testbed::new("every_n").await;
    let (store, stream) = (bed.store(), account("a"));
    for cents in 1..=9 {
        deposit::<1>(store, &stream, cents).await;
    }
    assert_eq!(snapshots(store, &stream).await, [0_i64; 0]);
    deposit::<1>(store, &stream, 10).await;
    until_snapshots(store, &stream, &[9]).await;
    for cents in 11..=20 {
        deposit::<1>(store, &stream, cents).await;
    }
    until_snapshots(store, &stream, &[19]).await;
    for cents in 21..=25 {
        deposit::<1>(store, &stream, cents).await;
    }
    assert_eq!(check_state(store, &stream).await, Counted { cents: 325, deposits: 25 });

    // A load begins with the snapshot and reads the six events behind it.
    falsify(store, &stream).await;
    let loaded = store.load::<Counted<1>>(&stream).await.must("load");
    let behind: i64 = (21..=25).sum();
    assert_eq!(loaded.state, Counted { cents: FALSE.cents + behind, deposits: 5 });
    assert_eq!(loaded.version, Version::new(24));
    // An earlier moment does not use it.
    let at = Version::new(18).must("make a version");
    let earlier = store.load_at::<Counted<1>>(&stream, at).await.must("load");
    assert_eq!(earlier.state, Counted { cents: (1..=19).sum(), deposits: 19 });
    let at = earlier.version.must("have a version").next();
    let same = store.load_at::<Counted<1>>(&stream, at).await.must("load");
    assert_eq!(same.state, FALSE);
}

#[tokio::test]
async fn snapshots_of_a_decision_on_several_aggregates_are_written_for_each() {
    let bed = Testbed::new("several_snapshots").await;
    let (store, [one, other]) = (bed.store(), ["one", "other"].map(account));
    fill(store, &one, 15).await;
    fill(store, &other, 3).await;
    let event = || vec![MoneyDeposited { sequence: 0, cents: 1, note: String::new() }.into()];
    let decision = |_: &(Counted<1>, Counted<1>)| Ok::<_, std::fmt::Error>((event(), event()));
    store.decide((&one, &other), decision).await.must("decide");
    until_snapshots(store, &one, &[15]).await;
    assert_eq!(snapshots(store, &other).await, [0_i64; 0]);
    check_state(store, &one).await;
}

#[tokio::test]
async fn a_snapshot_of_another_state_schema_is_ignored() {
    let bed = Testbed::new("state_schema").await;
    let (store, stream) = (bed.store(), account("a"));
    fill(store, &stream, 20).await;
    assert_eq!(store.save_snapshot::<Counted<1>>(&stream).await.must("save"), Version::new(19));
    let sum: i64 = (1..=20).sum();
    let changed = store.load::<Counted<2>>(&stream).await.must("load");
    assert_eq!(changed.state, Counted { cents: 2 * sum, deposits: 20 });
    // Both versions of the program run at once, and each has its own.
    store.save_snapshot::<Counted<2>>(&stream).await.must("save");
    fill(store, &stream, 1).await;
    let changed = store.load::<Counted<2>>(&stream).await.must("load");
    assert_eq!(changed.state, Counted { cents: 2 * sum + 2, deposits: 21 });
    check_state(store, &stream).await;
    assert_eq!(snapshots(store, &stream).await, [19, 19]);
}

#[tokio::test]
async fn snapshots_can_be_deleted_at_any_time_and_damaged_ones_are_ignored() {
    let bed = Testbed::new("deletable").await;
    let (store, stream) = (bed.store(), account("a"));
    fill(store, &stream, 20).await;
    store.save_snapshot::<Counted<1>>(&stream).await.must("save");
    let damage = sqlx::query(include_str!("sql/damage_snapshots.sql"));
    damage.execute(store.pool()).await.must("damage the snapshots");
    check_state(store, &stream).await;
    store.delete_snapshots(&stream).await.must("delete");
    assert_eq!(snapshots(store, &stream).await, [0_i64; 0]);
    check_state(store, &stream).await;
    assert_eq!(store.save_snapshot::<Plain>(&stream).await.must("save"), None);
    assert_eq!(store.save_snapshot::<Counted<1>>(&account("b")).await.must("save"), None);
}

#[tokio::test]
async fn an_earlier_snapshot_does_not_replace_a_later_one() {
    let bed = Testbed::new("later_snapshot").await;
    let (store, stream) = (bed.store(), account("a"));
    fill(store, &stream, 20).await;
    store.save_snapshot::<Counted<1>>(&stream).await.must("save");
    falsify(store, &stream).await;
    // As a task that was slow would: the same version again.
    store.save_snapshot::<Counted<1>>(&stream).await.must("save");
    assert_eq!(store.load::<Counted<1>>(&stream).await.must("load").state, FALSE);
}

#[tokio::test]
async fn a_decision_does_not_wait_for_its_snapshot_and_a_crash_before_it_loses_nothing() {
    let bed = Testbed::new("crash_before").await;
    let (store, stream) = (bed.another_store().await, account("a"));
    fill(&store, &stream, 20).await;
    let mut locked = bed.store().pool().begin().await.must("begin");
    let lock = sqlx::query(include_str!("sql/lock_snapshots.sql"));
    lock.execute(&mut *locked).await.must("lock the snapshots");
    for cents in 21..=25 {
        // Returns, although the snapshot cannot be written; the later ones are not even begun.
        deposit_unread(&store, &stream, cents).await;
    }
    bed.until_waiting_for_a_lock().await;
    let ended = sqlx::query(include_str!("sql/end_other_sessions.sql")).execute(&mut *locked);
    ended.await.must("end the sessions of the process");
    locked.rollback().await.must("roll back");
    let store = bed.another_store().await;
    assert_eq!(snapshots(&store, &stream).await, [0_i64; 0]);
    let state = check_state(&store, &stream).await;
    assert_eq!(state, Counted { cents: (1..=25).sum(), deposits: 25 });
    // The next decision saves it.
    deposit::<1>(&store, &stream, 26).await;
    until_snapshots(&store, &stream, &[25]).await;
}

/// A decision whose load does not read the snapshots, which are locked.
async fn deposit_unread(store: &Store, stream: &StreamName, cents: i64) {
    let decided = tokio::time::timeout(DEADLINE, deposit::<1>(store, stream, cents)).await;
    decided.must("decide without waiting for a snapshot");
}

#[tokio::test]
async fn a_snapshot_does_not_keep_an_event_that_an_administrator_removed() {
    let bed = Testbed::new("removed_snapshot").await;
    let (store, [stream, other]) = (bed.store(), ["a", "b"].map(account));
    for stream in [&stream, &other] {
        fill(store, stream, 20).await;
        store.save_snapshot::<Counted<1>>(stream).await.must("save");
    }
    // A snapshot that is written while the removal commits has the event still.
    let kept: Vec<(i64, Vec<u8>)> = sqlx::query_as(include_str!("sql/snapshot_states.sql"))
        .bind(stream.as_str())
        .fetch_all(store.pool())
        .await
        .must("read the snapshot");
    remove_events(store, &stream, 5..6).await;
    assert_eq!(snapshots(store, &stream).await, [0_i64; 0]);
    assert_eq!(snapshots(store, &other).await, [19]);
    let written = sqlx::query(include_str!("sql/write_snapshot.sql"));
    let written = written.bind(stream.as_str()).bind(kept[0].0).bind(kept[0].1.as_slice());
    written.execute(store.pool()).await.must("write the late snapshot");

    let state = check_state(store, &stream).await;
    assert_eq!(state, Counted { cents: (1..=20).sum::<i64>() - 6, deposits: 19 });
    store.save_snapshot::<Counted<1>>(&stream).await.must("save");
    falsify(store, &stream).await;
    let loaded = store.load::<Counted<1>>(&stream).await.must("load");
    assert_eq!((loaded.state, loaded.removed), (FALSE, 1), "the new snapshot is valid");
}

#[tokio::test]
async fn a_store_in_memory_has_snapshots_too() {
    let (store, stream) = (MemoryStore::new(), account("a"));
    for cents in 1..=25 {
        deposit::<1>(&store, &stream, cents).await;
        tokio::task::yield_now().await;
    }
    let state = check_state(&store, &stream).await;
    assert_eq!(state, Counted { cents: 325, deposits: 25 });
    assert_eq!(store.save_snapshot::<Counted<1>>(&stream).await.must("save"), Version::new(24));
    check_state(&store, &stream).await;
    store.delete_snapshots(&stream).await.must("delete");
    check_state(&store, &stream).await;

    // Not one with events that were removed since.
    store.save_snapshot::<Counted<1>>(&stream).await.must("save");
    let before = Version::new(5).must("make a version");
    assert_eq!(store.truncate_stream(&stream, before, "retention").await.must("truncate"), 5);
    assert_eq!(check_state(&store, &stream).await.deposits, 20);
    store.save_snapshot::<Counted<1>>(&stream).await.must("save");
    let loaded = store.load::<Counted<1>>(&stream).await.must("load");
    assert_eq!((loaded.state.deposits, loaded.removed), (20, 5));
}

#[tokio::test]
async fn other_events_of_the_stream_count_towards_the_next_snapshot() {
    let bed = Testbed::new("other_events").await;
    let (store, stream) = (bed.store(), account("a"));
    let append = Append::to(&stream, ExpectedVersion::NoStream, (0..9).map(|_| opened("ann")));
    store.append(&append).await.must("append");
    deposit::<1>(store, &stream, 1).await;
    until_snapshots(store, &stream, &[9]).await;
    store.append(&Append::to(&stream, ExpectedVersion::Any, [closed()])).await.must("append");
    check_state(store, &stream).await;
}

/// Saves its state after a load that took longer than `MILLIS`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Counted")]
struct Costly<const MILLIS: u64> {
    cents: i64,
    deposits: i64,
}

impl<const MILLIS: u64> Aggregate for Costly<MILLIS> {
    type Event = AccountEvent;

    fn apply(&mut self, event: AccountEvent) {
        if let AccountEvent::MoneyDeposited(MoneyDeposited { cents, .. }) = event {
            self.cents += cents;
            self.deposits += 1;
        }
    }

    fn snapshots() -> Option<Snapshots<Self>> {
        let schema = include_str!("avro/CountedState.v1.avsc");
        Some(Snapshots::when_load_takes(Duration::from_millis(MILLIS), schema))
    }
}

#[tokio::test]
async fn a_snapshot_is_written_after_a_load_that_took_long_and_not_after_a_quick_one() {
    const HOUR: u64 = 3_600_000;
    let bed = Testbed::new("by_cost").await;
    let (store, stream) = (bed.store(), account("a"));
    fill(store, &stream, 100).await;
    let event = MoneyDeposited { sequence: 0, cents: 1, note: String::new() };
    let quick = |_: &Costly<HOUR>| Ok::<_, std::fmt::Error>(vec![event.clone().into()]);
    store.decide(&stream, quick).await.must("decide");
    assert_eq!(snapshots(store, &stream).await, [0; 0]);
    let slow = |_: &Costly<0>| Ok::<_, std::fmt::Error>(vec![event.clone().into()]);
    store.decide(&stream, slow).await.must("decide");
    until_snapshots(store, &stream, &[101]).await;
    let loaded = store.load::<Costly<0>>(&stream).await.must("load");
    assert_eq!((loaded.state.deposits, loaded.state.cents), (102, 5_052));
}
