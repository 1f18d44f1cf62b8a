//! An append costs one round trip to the server: counted by a proxy, for any number of events and
//! streams.

use annals_store::{
    Append, Category, EventStore, ExpectedVersion, Follow, Key, Read, RecordedEvent, Store,
    StoreOptions, StreamName,
};
use annals_testkit::{
    Account, CATEGORY, FaultyLink, MoneyDeposited, Must, Testbed, account, deposited,
    deposited_for, opened, take,
};
use futures_util::TryStreamExt;

use crate::deciding::append_now;

const APPENDS: usize = 20;
const ROUNDS: usize = 4;
/// The pool's, of a connection that it has not lent for a moment.
const LIVENESS_CHECK: &str = "S";

/// The round trips of one append, without those of earlier work.
async fn round_trips(proxy: &FaultyLink, store: &Store, append: &Append) -> Vec<String> {
    let before = idle(proxy, store).await;
    store.append(append).await.must("append");
    proxy.round_trips_after(before)
}

/// Waits until every connection is back in the pool: no append waits for the round trip of the
/// pool's liveness check.
async fn idle(proxy: &FaultyLink, store: &Store) -> usize {
    loop {
        let round_trips = proxy.quiet().await;
        if store.pool().num_idle() == store.pool().size() as usize {
            return round_trips;
        }
    }
}

/// A store that sends no notifications: they have a connection of their own, which no caller waits
/// for.
async fn connect(proxy: &FaultyLink, bed: &Testbed) -> Store {
    let options = StoreOptions::default().without_notifications();
    options.connect(&proxy.url(&bed.database_url())).await.must("connect")
}

#[tokio::test]
async fn the_caller_of_an_append_waits_for_one_round_trip() {
    let bed = Testbed::new("one_round_trip").await;
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let store = connect(&proxy, &bed).await;
    let warm = Append::to(&account("warm"), ExpectedVersion::Any, [opened("ann"), deposited(1)]);
    for _ in 0..2 {
        store.append(&warm).await.must("append");
    }

    for number in 0..APPENDS {
        let events = (0..10).map(deposited);
        let append = Append::to(&account(number), ExpectedVersion::NoStream, events)
            .and_to(&account("shared"), ExpectedVersion::Any, [deposited(1)])
            .and_check(&account("warm"), ExpectedVersion::StreamExists);
        // Bind, execute, close the portal, sync: sent at once, answered at once. A retry is the
        // same.
        assert_eq!(round_trips(&proxy, &store, &append).await, ["BECS"]);
        assert_eq!(round_trips(&proxy, &store, &append).await, ["BECS"]);
    }
    assert_eq!(bed.recorded().await.len(), 2 + APPENDS * 11);
}

#[tokio::test]
async fn an_append_in_the_callers_transaction_is_one_round_trip() {
    let bed = Testbed::new("one_round_trip_in").await;
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let store = connect(&proxy, &bed).await;
    let append =
        |number: usize| Append::to(&account(number), ExpectedVersion::NoStream, [deposited(1)]);
    // Registers the schema; the first call inside the transaction prepares the statement.
    store.append(&append(0)).await.must("append");
    let mut transaction = store.pool().begin().await.must("begin");
    store.append_in(&mut transaction, &append(1)).await.must("append");

    let before = proxy.quiet().await;
    for number in 0..APPENDS {
        store.append_in(&mut transaction, &append(2 + number)).await.must("append");
    }
    assert_eq!(proxy.round_trips_after(before), ["BECS"; APPENDS]);
    transaction.commit().await.must("commit");
    assert_eq!(bed.recorded().await.len(), 2 + APPENDS);
}

#[tokio::test]
async fn a_conflict_is_learned_with_the_events_since_in_one_round_trip() {
    let bed = Testbed::new("conflict_round_trip").await;
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let store = connect(&proxy, &bed).await;
    let events = [opened("ann"), deposited(1), deposited(2)];
    let first = Append::to(&account("a"), ExpectedVersion::NoStream, events);
    store.append(&first).await.must("append");
    let late = Append::to(&account("a"), ExpectedVersion::NoStream, [opened("bob")]);
    let late = late.with_conflict_events(10);
    store.append(&late).await.unwrap_err();

    let before = idle(&proxy, &store).await;
    let refused = store.append(&late).await.unwrap_err();
    assert_eq!(proxy.round_trips_after(before), ["BECS"]);
    assert_eq!(refused.conflict_of(&account("a")).must("find the conflict").events.len(), 3);
}

/// Decides, while an append of another store comes first; the number of tries.
async fn decide_behind(first: &Store, store: &Store, stream: &StreamName) -> u32 {
    let mut is_first = true;
    let decision = |account: &Account| {
        if std::mem::take(&mut is_first) {
            append_now(first, stream, deposited(1));
        }
        let (sequence, note) = (0, String::new());
        let deposited = MoneyDeposited { sequence, cents: account.cents, note };
        Ok::<_, std::fmt::Error>(vec![deposited.into()])
    };
    store.decide(stream, decision).await.must("decide").tries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_is_made_again_on_the_events_of_its_conflict_without_a_read() {
    let bed = Testbed::new("decided_again").await;
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let options = StoreOptions::default().without_notifications().connections_max(1);
    let store = options.connect(&proxy.url(&bed.database_url())).await.must("connect");
    let stream = account("a");
    // The only connection prepares each statement once.
    let mut round_trips = Vec::new();
    for _ in 0..ROUNDS {
        let before = idle(&proxy, &store).await;
        assert_eq!(decide_behind(bed.store(), &store, &stream).await, 2);
        round_trips = proxy.round_trips_after(before);
        round_trips.retain(|sent| *sent != LIVENESS_CHECK);
    }
    // The load, the append with the conflict, and the next append.
    assert_eq!(round_trips, ["BECS"; 3]);
    assert_eq!(bed.recorded().await.len(), 2 * ROUNDS);
}

#[tokio::test]
async fn between_appends_without_a_pause_there_is_no_round_trip() {
    let bed = Testbed::new("without_a_pause").await;
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let store = connect(&proxy, &bed).await;
    let append =
        |number: usize| Append::to(&account(number), ExpectedVersion::NoStream, [deposited(1)]);
    store.append(&append(0)).await.must("append");

    let before = idle(&proxy, &store).await;
    for number in 0..APPENDS {
        store.append(&append(1 + number)).await.must("append");
    }
    let round_trips = proxy.round_trips_after(before);
    let signs_of_life = round_trips.iter().filter(|sent| *sent == LIVENESS_CHECK).count();
    assert!(signs_of_life <= 1, "{signs_of_life} liveness checks between {APPENDS} appends");
}

#[tokio::test]
async fn whoever_appends_without_a_pause_keeps_nobody_from_the_only_connection() {
    let bed = Testbed::new("only_connection").await;
    let options = StoreOptions::default().without_notifications().connections_max(1);
    let store = options.connect(&bed.database_url()).await.must("connect");
    let appending = async {
        loop {
            let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
            store.append(&append).await.must("append");
        }
    };
    tokio::select! {
        biased;
        () = appending => {}
        acquired = store.pool().acquire() => drop(acquired.must("acquire")),
    }
    // Nor does an append that has just ended.
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    store.append(&append).await.must("append");
    store.pool().begin().await.must("begin").rollback().await.must("roll back");
}

/// Bytes of an event, and how many of them reach the size of a page.
const LARGE: usize = 900_000;
const LARGE_EVENTS: i64 = 30;
const LARGE_TO_A_PAGE: i64 = 5;

/// The versions of a read, and the round trips that it took.
async fn read_large<K: Key>(proxy: &FaultyLink, store: &Store, read: Read<K>) -> (Vec<i64>, usize) {
    let before = idle(proxy, store).await;
    let events: Vec<_> = store.read(read).try_collect().await.must("read");
    let versions = events.iter().map(|event: &RecordedEvent| event.version.get()).collect();
    (versions, proxy.round_trips_after(before).len())
}

#[tokio::test]
async fn pages_of_large_events_are_small() {
    let bed = Testbed::new("large_pages").await;
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let store = connect(&proxy, &bed).await;
    let note = "n".repeat(LARGE);
    // Small events first: their size says nothing about the size of the next ones.
    let small = Append::to(&account("a"), ExpectedVersion::Any, (0..200).map(deposited));
    store.append(&small).await.must("append");
    for sequence in 0..LARGE_EVENTS {
        let large = [deposited_for(200 + sequence, &note)];
        let append = Append::to(&account("a"), ExpectedVersion::Any, large);
        store.append(&append).await.must("append");
    }
    let all: Vec<i64> = (0..200 + LARGE_EVENTS).collect();
    let backwards: Vec<i64> = all.iter().rev().copied().collect();
    let pages = usize::try_from(LARGE_EVENTS / LARGE_TO_A_PAGE).must("count");

    let stream = || Read::stream(&account("a"));
    let (versions, round_trips) = read_large(&proxy, &store, stream()).await;
    assert_eq!(versions, all);
    assert!(round_trips >= pages, "{round_trips} round trips");
    let (versions, round_trips) = read_large(&proxy, &store, stream().backwards()).await;
    assert_eq!(versions, backwards);
    assert!(round_trips >= pages, "{round_trips} round trips");
    let category = Category::new(CATEGORY).must("name a category");
    for read in [Read::category(&category), Read::all()] {
        let (versions, round_trips) = read_large(&proxy, &store, read.clone()).await;
        assert_eq!(versions, all);
        // A page, and the removed events in it.
        assert!(round_trips >= 2 * pages, "{round_trips} round trips");
        let (versions, round_trips) = read_large(&proxy, &store, read.backwards()).await;
        assert_eq!(versions, backwards);
        assert!(round_trips >= 2 * pages, "{round_trips} round trips");
    }
    for follow in [Follow::all(), Follow::category(&category)] {
        let before = idle(&proxy, &store).await;
        let followed = take(&store, follow, all.len()).await.must("follow");
        let versions: Vec<i64> = followed.iter().map(|of| of.event.version.get()).collect();
        assert_eq!(versions, all);
        // A page, the removed events in it, and the end of the log.
        let round_trips = proxy.round_trips_after(before).len();
        assert!(round_trips >= 3 * pages, "{round_trips} round trips");
    }
}
