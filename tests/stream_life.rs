//! Streams end: a closed one refuses appends with an error of its own, a truncated one begins
//! behind the removed events, an archived one leaves the table of events and comes back.

use annals_store::{
    Append, AppendError, Decide, DecideError, Error, EventStore, ExpectedVersion, Follow, Read,
    RecordedEvent, Refusal, Store, StreamName, Version,
};
use annals_testkit::{
    Account, Follower, Must, RelayProcess, Testbed, account, deposited, opened, take, until,
};
use futures_util::TryStreamExt;

use crate::projections::{self, LONG, Running, Script, balances, until_begun};

async fn append(store: &Store, stream: &StreamName, sequences: std::ops::Range<i64>) {
    let append = Append::to(stream, ExpectedVersion::Any, sequences.map(deposited));
    store.append(&append).await.must("append");
}

async fn read(store: &Store, stream: &StreamName) -> Vec<RecordedEvent> {
    store.read(Read::stream(stream)).try_collect().await.must("read the stream")
}

fn is_closed(error: &AppendError, stream: &StreamName) -> bool {
    let AppendError::Refused(reasons) = error else { return false };
    matches!(&reasons[..], [Refusal::StreamClosed { stream: closed, .. }] if closed == stream)
}

#[tokio::test]
async fn a_closed_stream_refuses_each_kind_of_append_and_is_read_as_before() {
    let bed = Testbed::new("closed").await;
    let (store, stream, other) = (bed.store(), account("a"), account("b"));
    let first = Append::to(&stream, ExpectedVersion::NoStream, [opened("ann")]);
    store.append(&first).await.must("append");
    assert!(store.close_stream(&stream, "the account is closed").await.must("close"));
    assert!(!store.close_stream(&stream, "again").await.must("close again"));

    for expected in [
        ExpectedVersion::Any,
        ExpectedVersion::StreamExists,
        ExpectedVersion::Exactly(Version::FIRST),
    ] {
        let one = Append::to(&stream, expected, [deposited(1)]);
        let two = Append::to(&stream, expected, [deposited(1), deposited(2)]);
        let both = Append::to(&other, ExpectedVersion::Any, [deposited(1)]);
        let both = both.and_to(&stream, expected, [deposited(2)]);
        for refused in [one, two, both] {
            let error = store.append(&refused).await.unwrap_err();
            assert!(is_closed(&error, &stream), "{expected:?}: {error}");
        }
    }
    let mut transaction = store.pool().begin().await.must("begin");
    let inside = Append::to(&stream, ExpectedVersion::Any, [deposited(1)]);
    let error = store.append_in(&mut transaction, &inside).await.unwrap_err();
    assert!(is_closed(&error, &stream), "{error}");
    // The transaction stays usable.
    let inside = Append::to(&other, ExpectedVersion::Any, [deposited(3)]);
    store.append_in(&mut transaction, &inside).await.must("append to another stream");
    transaction.commit().await.must("commit");
    let decided = store
        .decide(Decide::on(&stream), |_: &Account| {
            Ok::<_, std::fmt::Error>(vec![annals_testkit::AccountClosed { reason: None }.into()])
        })
        .await;
    let Err(DecideError::Append(error)) = decided else { panic!("{decided:?}") };
    assert!(is_closed(&error, &stream), "{error}");

    // A retry is no new append, and a condition on the stream is none to it.
    assert!(store.append(&first).await.must("append again").repeated);
    let checked = Append::to(&other, ExpectedVersion::Any, [deposited(4)]);
    let checked = checked.and_to(&stream, ExpectedVersion::StreamExists, []);
    store.append(&checked).await.must("append under a condition");
    assert_eq!(read(store, &stream).await.len(), 1);
    let life = store.stream_life(&stream).await.must("read the state").must("exist");
    assert!(life.closed_at.is_some() && life.archived_at.is_none());
    assert_eq!(life.version, Version::FIRST);

    assert!(store.reopen_stream(&stream, "a mistake").await.must("open again"));
    append(store, &stream, 1..2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_appends_that_go_together_only_those_to_the_closed_stream_are_refused() {
    const APPENDS: i64 = 200;
    let bed = Testbed::new("closed_together").await;
    let (store, stream, other) = (bed.store(), account("a"), account("b"));
    append(store, &stream, 0..1).await;
    store.close_stream(&stream, "closed").await.must("close");
    let appends = (0..APPENDS).map(|number| {
        let stream = if number % 2 == 0 { stream.clone() } else { other.clone() };
        let append = Append::to(&stream, ExpectedVersion::Any, [deposited(number)]);
        let store = store.clone();
        tokio::spawn(async move { store.append(&append).await })
    });
    let appends: Vec<_> = appends.collect();
    for (number, appended) in appends.into_iter().enumerate() {
        match appended.await.must("append") {
            Ok(_) => assert_eq!(number % 2, 1),
            Err(error) => assert!(number % 2 == 0 && is_closed(&error, &stream), "{error}"),
        }
    }
    assert_eq!((read(store, &stream).await.len(), read(store, &other).await.len()), (1, 100));
}

#[tokio::test]
async fn a_truncated_stream_begins_behind_the_removed_events_and_tells_their_number() {
    let bed = Testbed::new("truncated").await;
    let (store, stream) = (bed.store(), account("a"));
    append(store, &stream, 0..10).await;
    let before = Version::new(6).unwrap();
    let removed = store.truncate_stream(&stream, before, "retention of a year").await;
    assert_eq!(removed.must("truncate"), 6);
    let left = read(store, &stream).await;
    assert_eq!((left.len(), left[0].version, left[0].removed_before), (4, before, 6));
    let loaded = store.load::<Account>(&stream).await.must("load");
    assert_eq!((loaded.removed, loaded.state.cents), (6, 6 + 7 + 8 + 9));
    let life = store.stream_life(&stream).await.must("read the state").must("exist");
    assert_eq!(life.truncated_before, Some(before));
    append(store, &stream, 10..11).await;

    let all = store.truncate_stream(&stream, Version::new(11).unwrap(), "all of it").await;
    assert!(all.is_err(), "the last event was removed");
    let missing = store.truncate_stream(&account("none"), before, "a mistake").await;
    assert!(missing.is_err());
    let silent = store.truncate_stream(&stream, Version::new(8).unwrap(), " ").await;
    assert!(silent.is_err(), "without a reason");
}

#[tokio::test]
async fn an_archived_stream_leaves_the_log_and_comes_back_as_it_was() {
    let bed = Testbed::new("archived").await;
    let (store, stream, other) = (bed.store(), account("a"), account("b"));
    append(store, &stream, 0..5).await;
    append(store, &other, 0..1).await;
    let events = read(store, &stream).await;
    let open = store.archive_stream(&stream, "old").await;
    assert!(open.is_err(), "an open stream was archived");
    store.close_stream(&stream, "old").await.must("close");
    let fingerprint = bed.fingerprint().await;
    assert_eq!(store.archive_stream(&stream, "old").await.must("archive"), 5);
    assert!(read(store, &stream).await.is_empty());
    assert_eq!(store.load::<Account>(&stream).await.must("load").removed, 5);
    assert_eq!(take(store, Follow::all(), 1).await.must("follow")[0].event.stream, other);
    let append = Append::to(&stream, ExpectedVersion::Any, [deposited(9)]);
    assert!(is_closed(&store.append(&append).await.unwrap_err(), &stream));
    assert!(store.reopen_stream(&stream, "needed").await.is_err(), "without its events");

    assert_eq!(store.restore_stream(&stream, "needed").await.must("restore"), 5);
    assert_eq!(bed.fingerprint().await, fingerprint);
    let restored = read(store, &stream).await;
    let ids = |events: &[RecordedEvent]| {
        events.iter().map(|event| (event.id, event.position, event.version)).collect::<Vec<_>>()
    };
    assert_eq!(ids(&restored), ids(&events));
    assert_eq!(restored.iter().map(|event| event.removed_before).sum::<u64>(), 0);
    assert_eq!(take(store, Follow::all(), 6).await.must("follow").len(), 6);
    store.reopen_stream(&stream, "needed").await.must("open");
    store.append(&append).await.must("append");
}

/// Asserts that neither truncation nor archive takes the events, since a reader has not read them.
async fn are_kept(store: &Store, stream: &StreamName, reader: &str) {
    let before = Version::new(3).must("number");
    let truncated = store.truncate_stream(stream, before, "old").await.map(drop);
    let archived = store.archive_stream(stream, "old").await.map(drop);
    for refused in [truncated, archived] {
        let Err(Error::Database { source, .. }) = refused else { panic!("{refused:?}") };
        let source = source.as_database_error().must("be the server's");
        let names = source.message().rsplit(": ").next();
        assert_eq!((source.code().as_deref(), names), (Some("55000"), Some(reader)));
    }
}

#[tokio::test]
async fn events_that_a_projection_has_not_applied_stay() {
    let bed = Testbed::new("not_applied").await;
    let (store, stream, script) = (bed.store(), account("a"), Script::gated());
    append(store, &stream, 0..4).await;
    let _running = Running::start(store, balances(&script), LONG);
    until_begun(&script, 1).await;
    store.close_stream(&stream, "old").await.must("close");
    are_kept(store, &stream, "projection balances version 1").await;
    script.gate.close();
    projections::until(store, 1, |status| status.events == 4).await;
    let before = Version::new(3).must("number");
    assert_eq!(store.truncate_stream(&stream, before, "old").await.must("truncate"), 3);
    assert_eq!(store.archive_stream(&stream, "old").await.must("archive"), 1);
}

#[tokio::test]
async fn events_that_a_relay_has_not_published_stay() {
    let bed = Testbed::new("unpublished").await;
    let (store, stream) = (bed.store(), account("a"));
    append(store, &stream, 0..2).await;
    let follower: Follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    follower.until_count(2).await;
    bed.until_copied().await;
    relay.kill().await;
    append(store, &stream, 2..4).await;
    store.close_stream(&stream, "old").await.must("close");
    let deployment = sqlx::query_scalar(include_str!("sql/deployments.sql"));
    let deployment: String = deployment.fetch_one(store.pool()).await.must("find the deployment");
    are_kept(store, &stream, &format!("deployment {deployment}")).await;
    let relay = RelayProcess::start(&bed.relay());
    follower.until_count(4).await;
    bed.until_copied().await;
    let archives = async || store.archive_stream(&stream, "old").await.is_ok();
    until("the relay has passed the events", archives).await;
    drop(relay);
}
