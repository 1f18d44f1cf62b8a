//! Events and their outbox rows are recorded together, under the version check, or not at all.

use annals_store::{Append, ExpectedVersion, Refusal, Store, StreamName};
use annals_testkit::{Must, Testbed, account, deposited, in_time, opened};
use sqlx::Row;

const EXACTLY_7: ExpectedVersion = match annals_store::Version::new(7) {
    Some(version) => ExpectedVersion::Exactly(version),
    None => ExpectedVersion::Any,
};

#[tokio::test]
async fn stale_writer_gets_a_conflict_and_records_nothing() {
    let bed = Testbed::new("stale_writer").await;
    let stream = account("a");
    let first = Append::to(&stream, ExpectedVersion::NoStream, [opened("ann"), deposited(1)]);
    bed.store().append(&first).await.must("append");
    let before = bed.fingerprint().await;

    for stale in [
        ExpectedVersion::NoStream,
        ExpectedVersion::Exactly(annals_store::Version::FIRST),
        EXACTLY_7,
    ] {
        let append = Append::to(&stream, stale, [deposited(2)]);
        let error = bed.store().append(&append).await.unwrap_err();
        let conflict = error.conflict_of(&stream).must("find the conflict");
        assert_eq!((&conflict.stream, conflict.expected), (&stream, stale));
        assert_eq!(conflict.actual, annals_store::Version::new(1));
        assert!(conflict.events.is_empty(), "events that were not requested");
        assert!(!error.is_retryable());
    }
    assert_eq!(bed.fingerprint().await, before);
}

#[tokio::test]
async fn every_failed_check_of_an_append_is_reported_and_nothing_is_recorded() {
    let bed = Testbed::new("every_failed_check").await;
    let [there, missing, fine] = ["there", "missing", "fine"].map(account);
    let existing = Append::to(&there, ExpectedVersion::Any, [opened("ann")]);
    bed.store().append(&existing).await.must("append");
    let before = bed.fingerprint().await;

    let append = Append::to(&fine, ExpectedVersion::NoStream, [opened("bob")])
        .and_to(&there, ExpectedVersion::NoStream, [deposited(1)])
        .and_check(&missing, ExpectedVersion::StreamExists);
    let error = bed.store().append(&append).await.unwrap_err();
    let annals_store::AppendError::Refused(refusals) = &error else { panic!("{error:?}") };
    assert!(refusals.iter().all(|refusal| matches!(refusal, Refusal::Conflict(_))), "{refusals:?}");
    assert_eq!(refusals.len(), 2, "{error}");
    assert_eq!(error.conflict_of(&there).unwrap().actual, annals_store::Version::new(0));
    let of_missing = error.conflict_of(&missing).unwrap();
    assert_eq!((of_missing.expected, of_missing.actual), (ExpectedVersion::StreamExists, None));
    assert_eq!(bed.fingerprint().await, before);
}

#[tokio::test]
async fn a_stream_that_is_only_checked_does_not_begin_to_exist() {
    let bed = Testbed::new("only_checked").await;
    let [written, checked] = ["written", "checked"].map(account);
    let append = Append::to(&written, ExpectedVersion::NoStream, [opened("ann")])
        .and_check(&checked, ExpectedVersion::NoStream);
    bed.store().append(&append).await.must("append");
    assert_eq!(bed.store().stream_version(&checked).await.must("read a version"), None);
    assert_eq!(bed.recorded().await.len(), 1);
}

#[tokio::test]
async fn rollback_of_the_callers_transaction_leaves_no_trace() {
    let bed = Testbed::new("rollback").await;
    let [old, new] = ["old", "new"].map(account);
    let existing = Append::to(&old, ExpectedVersion::Any, [opened("ann")]);
    bed.store().append(&existing).await.must("append");
    let before = bed.fingerprint().await;

    let append = Append::to(&old, ExpectedVersion::StreamExists, [deposited(1)]).and_to(
        &new,
        ExpectedVersion::NoStream,
        [opened("bob"), deposited(2)],
    );
    let mut transaction = bed.store().pool().begin().await.must("begin");
    let appended = bed.store().append_in(&mut transaction, &append).await.must("append");
    assert_eq!(appended.events.len(), 3);
    transaction.rollback().await.must("roll back");

    assert_eq!(bed.fingerprint().await, before);
    let again = bed.store().append(&append).await.must("append the rolled back events");
    assert!(!again.repeated, "a rolled-back append was taken for recorded");
}

#[tokio::test]
async fn refusal_leaves_the_callers_transaction_usable() {
    let bed = Testbed::new("usable").await;
    let stream = account("a");
    let mut transaction = bed.store().pool().begin().await.must("begin");
    let wrong = Append::to(&stream, ExpectedVersion::StreamExists, [deposited(1)]);
    let error = bed.store().append_in(&mut transaction, &wrong).await.unwrap_err();
    assert!(error.conflict_of(&stream).is_some(), "{error}");

    let right = Append::to(&stream, ExpectedVersion::NoStream, [opened("ann")]);
    bed.store().append_in(&mut transaction, &right).await.must("append after a refusal");
    transaction.commit().await.must("commit");
    let recorded = bed.recorded().await;
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0].stream, stream.as_str());
}

#[tokio::test]
async fn a_transaction_left_open_holds_back_only_appends_to_its_own_streams() {
    let bed = Testbed::new("holds_back").await;
    // The first append of a deposit: its schema must be registered outside this open transaction.
    let store = bed.another_store().await;
    let mut open = store.pool().begin().await.must("begin");
    let own = Append::to(&account("own"), ExpectedVersion::NoStream, [deposited(1)]);
    store.append_in(&mut open, &own).await.must("append");
    for other in [&store, bed.store()] {
        let stream = account(deposited(0).id());
        let append = Append::to(&stream, ExpectedVersion::NoStream, [deposited(2)]);
        in_time(other.append(&append)).await.must("append beside an open transaction");
    }
    open.rollback().await.must("roll back");
    store.append(&own).await.must("append the rolled back events");
}

#[tokio::test]
async fn commit_of_the_callers_transaction_records_all_it_appended() {
    let bed = Testbed::new("commit").await;
    let [first, second] = ["first", "second"].map(account);
    let mut transaction = bed.store().pool().begin().await.must("begin");
    for stream in [&first, &second] {
        let append = Append::to(stream, ExpectedVersion::NoStream, [opened("ann"), deposited(1)]);
        bed.store().append_in(&mut transaction, &append).await.must("append");
    }
    assert_eq!(bed.recorded().await, [], "seen before it was committed");
    transaction.commit().await.must("commit");
    assert_eq!(bed.recorded().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_an_append_to_two_streams_whole_or_not_at_all() {
    let bed = Testbed::new("whole").await;
    let streams = ["left", "right"].map(account);
    let writer = tokio::spawn(append_to_both(bed.store().clone(), streams.clone(), 200));
    let names = streams.each_ref().map(StreamName::as_str);
    while !writer.is_finished() {
        let rows =
            sqlx::query(include_str!("sql/versions.sql")).bind(names).fetch_all(bed.store().pool());
        let rows = rows.await.must("read versions");
        let versions: Vec<i64> = rows.iter().map(|row| row.get("version")).collect();
        assert!(
            versions.is_empty() || versions.len() == 2 && versions[0] == versions[1],
            "{versions:?}"
        );
    }
    writer.await.must("write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_to_the_same_streams_in_opposite_order_do_not_deadlock() {
    let bed = Testbed::new("opposite").await;
    let [left, right] = ["left", "right"].map(account);
    let orders = [[&left, &right], [&right, &left]].map(|order| order.map(Clone::clone));
    let writers = (0..8).map(|number| {
        tokio::spawn(append_to_both(bed.store().clone(), orders[number % 2].clone(), 50))
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.must("write");
    }
    for stream in [&left, &right] {
        let version = bed.store().stream_version(stream).await.must("read a version");
        assert_eq!(version, annals_store::Version::new(8 * 50 - 1));
    }
}

/// Each append writes to both; without a retry, so that a deadlock shows as an error.
async fn append_to_both(store: Store, [first, second]: [StreamName; 2], appends: i64) {
    for number in 0..appends {
        let append = Append::to(&first, ExpectedVersion::Any, [deposited(number)]).and_to(
            &second,
            ExpectedVersion::Any,
            [deposited(number)],
        );
        store.append(&append).await.must("append");
    }
}
