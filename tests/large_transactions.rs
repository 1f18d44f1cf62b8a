//! Transactions of thousands of events, as imports make them: each event comes once and in order,
//! and small appends at the same time do not wait for the large one.

use std::collections::{BTreeMap, HashSet};

use annals_store::{Append, ExpectedVersion, Follow, Followed, Store};
use annals_testkit::{Must, RelayProcess, Testbed, account, check, deposited, take};
use futures_util::{StreamExt, stream};
use sqlx::{Connection, PgConnection};

/// The maximum number of events of an append.
const EVENTS_OF_AN_APPEND: i64 = 10_000;
const STREAMS_OF_AN_APPEND: i64 = 100;
const TRANSACTIONS: i64 = 4;
const APPENDS_OF_ONE: i64 = 10;
const SMALL_APPENDS: usize = 50;

/// How often a row of an event may be read, by all that a relay does. A page that reads a whole
/// transaction again and again reads each row once for each page.
const READS_MAX: usize = 6;

/// The number of rows of events and of the outbox that were read so far.
async fn rows_read(bed: &Testbed) -> usize {
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let read = sqlx::query_scalar::<_, i64>(include_str!("sql/rows_read.sql"));
    usize::try_from(read.fetch_one(&mut connection).await.must("read statistics")).must("count")
}

/// Ten thousand events of a hundred streams.
fn large(number: i64) -> Append {
    let each = EVENTS_OF_AN_APPEND / STREAMS_OF_AN_APPEND;
    (0..STREAMS_OF_AN_APPEND).fold(Append::default(), |append, of| {
        let stream = account(format!("large-{}-{of}", number % 2));
        append.and_to(&stream, ExpectedVersion::Any, (0..each).map(deposited))
    })
}

async fn append_small(store: &Store, name: &str, appends: usize) {
    for number in 0..appends {
        let stream = account(format!("{name}-{}", number % 7));
        let append = Append::to(&stream, ExpectedVersion::Any, [deposited(1)]);
        store.append(&append).await.must("append");
    }
}

/// Whether each event came once, and those of each stream in version order from the first on.
fn are_each_once_and_in_order(followed: &[Followed]) -> bool {
    let mut next: BTreeMap<&str, i64> = BTreeMap::new();
    let mut ids = HashSet::new();
    followed.iter().all(|Followed { event, .. }| {
        let version = next.entry(event.stream.as_str()).or_default();
        *version += 1;
        ids.insert(event.id) && event.version.get() == *version - 1
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_transactions_are_published_and_followed_event_by_event_once_and_in_order() {
    let bed = Testbed::new("large").await;
    let store = bed.store();
    let pages = bed.relay().variable("ANNALS_RELAY__RELAY__BATCH_EVENTS_MAX", "2000");
    let mut relay = RelayProcess::start(&pages);
    let large_ones = stream::iter(0..TRANSACTIONS)
        .map(|number| async move { store.append(&large(number)).await.must("append") })
        .buffer_unordered(2)
        .count();
    tokio::join!(large_ones, append_small(store, "beside", SMALL_APPENDS));
    let follower = bed.follow();
    let events = usize::try_from(TRANSACTIONS * EVENTS_OF_AN_APPEND).must("count") + SMALL_APPENDS;
    follower.until_count(events).await;

    // An event that is appended while a large transaction is open is published before that one is
    // committed.
    let mut transaction = store.pool().begin().await.must("begin");
    for number in 0..APPENDS_OF_ONE {
        store.append_in(&mut transaction, &large(number)).await.must("append");
        append_small(store, "meanwhile", SMALL_APPENDS / 10).await;
    }
    follower.until_count(events + SMALL_APPENDS / 2).await;
    transaction.commit().await.must("commit");
    append_small(store, "after", SMALL_APPENDS / 2).await;
    let events = events
        + SMALL_APPENDS
        + SMALL_APPENDS / 2
        + usize::try_from(APPENDS_OF_ONE * EVENTS_OF_AN_APPEND).must("count");
    follower.until_count(events).await;
    assert!(relay.terminate().await.success());
    // Its sessions have ended, and with that the server counts all that they read.
    let read = rows_read(&bed).await;
    assert!(read <= READS_MAX * events, "the relay read {read} rows for {events} events");
    assert_eq!(check(&bed.history(Vec::new()).await), []);
    let followed = take(store, Follow::all(), events).await.must("follow");
    assert!(are_each_once_and_in_order(&followed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lives_through_a_large_transaction_gets_each_event_once_and_in_order() {
    let bed = Testbed::new("large_followed").await;
    let store = bed.store();
    append_small(store, "before", 7).await;
    let large_events = usize::try_from(2 * EVENTS_OF_AN_APPEND).must("count");
    let events = 7 + SMALL_APPENDS + large_events;
    let live = tokio::spawn({
        let store = bed.another_store().await;
        async move { take(&store, Follow::all(), events).await }
    });
    let mut transaction = store.pool().begin().await.must("begin");
    store.append_in(&mut transaction, &large(0)).await.must("append");
    append_small(store, "meanwhile", SMALL_APPENDS).await;
    // Its window begins during the open transaction.
    let early = take(store, Follow::all(), 7 + SMALL_APPENDS).await.must("follow");
    store.append_in(&mut transaction, &large(1)).await.must("append");
    transaction.commit().await.must("commit");
    let checkpoint = early.last().must("find the last event").checkpoint.clone();
    let late = take(store, Follow::all().after(checkpoint), large_events).await.must("follow");
    assert!(are_each_once_and_in_order(&[early, late].concat()));
    let live = live.await.must("end").must("follow");
    assert!(live.len() == events && are_each_once_and_in_order(&live));
}
