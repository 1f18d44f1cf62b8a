//! The same event ids give the original answer, for any expected version and any caller.

use std::sync::Arc;

use annals_store::{
    Append, AppendError, Appended, EventId, ExpectedVersion, Metadata, Refusal, Store,
    StoreOptions, Version,
};
use annals_testkit::{
    FaultyLink, Must, Testbed, account, closed, deposited, deposited_for, dropped_after, opened,
    remove_events,
};
use tokio::sync::Barrier;

const TASKS: usize = 10;
const MODES: [ExpectedVersion; 4] = [
    ExpectedVersion::Any,
    ExpectedVersion::NoStream,
    ExpectedVersion::StreamExists,
    ExpectedVersion::Exactly(Version::FIRST),
];

#[tokio::test]
async fn a_retry_gets_the_original_answer_in_every_mode() {
    let bed = Testbed::new("every_mode").await;
    let store = bed.store();
    for (number, expected) in MODES.into_iter().enumerate() {
        let stream = account(number);
        if matches!(expected, ExpectedVersion::StreamExists | ExpectedVersion::Exactly(_)) {
            store
                .append(&Append::to(&stream, ExpectedVersion::NoStream, [opened("ann")]))
                .await
                .must("append");
        }
        let append = Append::to(&stream, expected, [deposited(1), deposited(2)]);
        let original = store.append(&append).await.must("append");
        assert!(!original.repeated);
        // Meanwhile the stream advances: the expectation no longer holds, and does not matter.
        store
            .append(&Append::to(&stream, ExpectedVersion::Any, [deposited(3)]))
            .await
            .must("append");
        let before = bed.fingerprint().await;

        let again = store.append(&append).await.must("append again");
        assert!(again.repeated, "{expected}");
        assert_eq!((&again.events, again.recorded_at), (&original.events, original.recorded_at));
        let mut transaction = store.pool().begin().await.must("begin");
        let inside = store.append_in(&mut transaction, &append).await.must("append again");
        transaction.commit().await.must("commit");
        assert_eq!(inside, again);
        assert_eq!(bed.fingerprint().await, before, "{expected}");
    }
}

#[tokio::test]
async fn a_retry_of_an_append_to_several_streams_gets_the_original_answer() {
    let bed = Testbed::new("several").await;
    let [left, right] = ["left", "right"].map(account);
    let append = Append::to(&right, ExpectedVersion::NoStream, [opened("ann"), deposited(1)])
        .and_to(&left, ExpectedVersion::NoStream, [opened("bob")]);
    let original = bed.store().append(&append).await.must("append");
    let again = bed.another_store().await.append(&append).await.must("append again");
    assert_eq!((again.repeated, again.events), (true, original.events));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_tasks_with_the_same_events_record_them_once_and_get_one_answer() {
    let bed = Testbed::new("ten_tasks").await;
    for (round, expected) in MODES.into_iter().cycle().take(20).enumerate() {
        let stream = account(round);
        let is_new = matches!(expected, ExpectedVersion::Any | ExpectedVersion::NoStream);
        if !is_new {
            let create = Append::to(&stream, ExpectedVersion::NoStream, [opened("ann")]);
            bed.store().append(&create).await.must("append");
        }
        let append = Arc::new(Append::to(&stream, expected, [deposited(1), deposited(2)]));
        let start = Arc::new(Barrier::new(TASKS));
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| append_at(Arc::clone(&start), bed.store().clone(), Arc::clone(&append)))
            .map(tokio::spawn)
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.must("append"));
        }
        assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.events == answers[0].events), "{answers:?}");
        let version = bed.store().stream_version(&stream).await.must("read a version");
        assert_eq!(version, Version::new(if is_new { 1 } else { 2 }));
    }
}

async fn append_at(start: Arc<Barrier>, store: Store, append: Arc<Append>) -> Appended {
    start.wait().await;
    store.append(&append).await.must("append")
}

#[tokio::test]
async fn an_id_that_is_taken_by_other_content_is_refused_with_the_field_that_differs() {
    let bed = Testbed::new("id_taken").await;
    let (id, stream) = (EventId::generate(), account("a"));
    let original = deposited_for(1, "rent").with_id(id);
    bed.store()
        .append(&Append::to(&stream, ExpectedVersion::Any, [original.clone()]))
        .await
        .must("append");
    let before = bed.fingerprint().await;

    let cases = [
        (&stream, deposited_for(1, "food").with_id(id), vec!["payload"]),
        (&account("b"), original.clone(), vec!["stream"]),
        (&stream, closed().with_id(id), vec!["event_type", "schema", "payload"]),
    ];
    for (stream, event, expected) in cases {
        let append = Append::to(stream, ExpectedVersion::Any, [event]);
        let error = bed.store().append(&append).await.unwrap_err();
        let AppendError::Refused(refusals) = &error else { panic!("{error:?}") };
        let [Refusal::IdTaken { event_id, stream: holder, differs }] = refusals.as_slice() else {
            panic!("{error}")
        };
        assert_eq!((*event_id, holder.as_str()), (id, "account-a"));
        assert_eq!(*differs, expected, "{error}");
    }
    assert_eq!(bed.fingerprint().await, before);
}

#[tokio::test]
async fn a_retry_with_other_metadata_and_headers_gets_the_original_answer_and_changes_nothing() {
    let bed = Testbed::new("other_metadata").await;
    let (event, stream) = (deposited(1), account("a"));
    let original = Append::to(&stream, ExpectedVersion::NoStream, [event.clone()]);
    let original = bed.store().append(&original).await.must("append");
    let before = bed.fingerprint().await;
    let id = || Some(EventId::generate().get());
    let retries = [
        event.clone().with_metadata(Metadata { correlation_id: id(), ..Metadata::default() }),
        event.clone().with_metadata(Metadata { causation_id: id(), ..Metadata::default() }),
        event.clone().with_metadata(Metadata { actor: Some("eve".into()), ..Metadata::default() }),
        event.clone().with_metadata(Metadata {
            traceparent: Some("00-02".into()),
            tracestate: Some("a=b".into()),
            ..Metadata::default()
        }),
        event.clone().with_header("tenant", "t1"),
    ];
    for retry in retries {
        let append = Append::to(&stream, ExpectedVersion::NoStream, [retry]);
        let again = bed.store().append(&append).await.must("append again");
        assert_eq!((again.repeated, again.events), (true, original.events.clone()));
        let mut transaction = bed.store().pool().begin().await.must("begin");
        let inside = bed.store().append_in(&mut transaction, &append).await.must("append again");
        transaction.commit().await.must("commit");
        assert!(inside.repeated);
    }
    assert_eq!(bed.fingerprint().await, before);
}

#[tokio::test]
async fn an_append_that_shares_only_some_ids_with_another_is_refused() {
    let bed = Testbed::new("partly").await;
    let (stream, known) = (account("a"), deposited(1));
    bed.store()
        .append(&Append::to(&stream, ExpectedVersion::Any, [known.clone()]))
        .await
        .must("append");
    let before = bed.fingerprint().await;
    let mixed = Append::to(&stream, ExpectedVersion::Any, [known.clone(), deposited(2)]);
    let error = bed.store().append(&mixed).await.unwrap_err();
    let AppendError::Refused(refusals) = &error else { panic!("{error:?}") };
    let [Refusal::PartlyKnown { event_ids }] = refusals.as_slice() else { panic!("{error}") };
    assert_eq!(*event_ids, [known.id()]);
    assert_eq!(bed.fingerprint().await, before);
}

/// By a single call, in a transaction, and in calls that arrive together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_does_not_record_an_event_again_that_was_removed_meanwhile() {
    let bed = Testbed::new("removed_since").await;
    let store = bed.store();
    let appends: Vec<_> = (0..20)
        .map(|number| {
            Append::to(&account(number), ExpectedVersion::Any, [opened("ann"), deposited(number)])
        })
        .collect();
    let mut originals = Vec::new();
    for append in &appends {
        originals.push(store.append(append).await.must("append"));
    }
    for number in 0..10 {
        // All events of the append, or one of them.
        let first = if number < 5 { 0 } else { 1 };
        remove_events(store, &account(number), first..2).await;
    }
    let before = bed.fingerprint().await;
    let again = futures_util::future::join_all(appends.iter().map(|append| store.append(append)));
    for (again, original) in again.await.into_iter().zip(&originals) {
        let again = again.must("append again");
        assert!(again.repeated);
        assert_eq!(again.events, original.events);
    }
    let alone = store.append(&appends[0]).await.must("append again");
    let mut transaction = store.pool().begin().await.must("begin");
    let inside = store.append_in(&mut transaction, &appends[0]).await.must("append again");
    transaction.commit().await.must("commit");
    assert_eq!((&alone.events, &inside.events), (&originals[0].events, &originals[0].events));
    assert_eq!(bed.fingerprint().await, before);
}

#[tokio::test]
async fn a_reply_to_commit_that_is_lost_changes_nothing_in_any_mode() {
    let bed = Testbed::new("lost_reply").await;
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    // One connection and no notifications, so that only the intended answer can be lost.
    let options = StoreOptions::default().connections_max(1).without_notifications();
    let store = options.connect(&proxy.url(&bed.database_url())).await.must("connect");
    let warm = Append::to(&account("warm"), ExpectedVersion::Any, [opened("ann"), deposited(1)]);
    store.append(&warm).await.must("append");
    for (number, expected) in MODES.into_iter().enumerate() {
        let [alone, inside] = ["alone", "inside"].map(|how| account(format!("{how}-{number}")));
        if !matches!(expected, ExpectedVersion::Any | ExpectedVersion::NoStream) {
            let create = Append::to(&alone, ExpectedVersion::NoStream, [opened("ann")]).and_to(
                &inside,
                ExpectedVersion::NoStream,
                [opened("bob")],
            );
            store.append(&create).await.must("append");
        }
        let append = |stream| Append::to(stream, expected, [deposited(1), deposited(2)]);
        let lost = append(&alone);
        // The pool checks a just returned connection: that answer is not the intended one.
        while store.pool().num_idle() == 0 {
            tokio::task::yield_now().await;
        }
        proxy.lose_next_answer();
        let appended = store.append(&lost).await.must("append, though the reply was lost");
        assert!(appended.repeated, "{expected}: the reply was not lost");

        let lost = append(&inside);
        let mut transaction = store.pool().begin().await.must("begin");
        let original = store.append_in(&mut transaction, &lost).await.must("append");
        proxy.quiet().await;
        proxy.lose_next_answer();
        let unknown = AppendError::from(transaction.commit().await.unwrap_err());
        assert!(
            matches!(unknown, AppendError::Unknown(_)) && unknown.is_retryable(),
            "{unknown:?}"
        );
        let settled = store.append(&lost).await.must("append again");
        assert_eq!((settled.repeated, settled.events), (true, original.events), "{expected}");
    }
    let recorded = bed.recorded().await;
    assert_eq!(recorded.len(), 2 + MODES.len() * 4 + 4, "events are missing or double");
}

#[tokio::test]
async fn an_append_dropped_at_any_await_point_is_recorded_whole_or_not_and_once_when_repeated() {
    let bed = Testbed::new("dropped").await;
    // Through the proxy, on this thread, no answer can arrive while this task runs: each await
    // point is reached with the answer outstanding.
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let url = proxy.url(&bed.database_url());
    // A store with empty caches registers the schemas first; another one only appends.
    let connect = async || Store::connect(&url).await.must("connect");
    let fresh = drop_at_each_await_point(&bed, "fresh", &connect).await;
    let store = connect().await;
    let first = [opened("ann"), deposited(1)];
    store.append(&Append::to(&account("first"), ExpectedVersion::Any, first)).await.must("append");
    let warm = drop_at_each_await_point(&bed, "warm", async || store.clone()).await;
    assert!(warm >= 2 && fresh > warm, "dropped at {fresh} and {warm} await points: too few");
    let recorded = bed.recorded().await;
    assert_eq!(recorded.len(), 2 + 3 * (fresh + warm + 2), "events are missing or double");
}

/// The number of await points of the append.
async fn drop_at_each_await_point(
    bed: &Testbed,
    name: &str,
    store: impl AsyncFn() -> Store,
) -> usize {
    for polls in 0.. {
        let stream = account(format!("{name}-{polls}"));
        let events = [opened("ann"), deposited(1), deposited(2)];
        let append = Append::to(&stream, ExpectedVersion::NoStream, events);
        let finished = dropped_after(polls, store().await.append(&append)).await.is_some();
        // The dropped call's statement may still run: the retry waits for it at the stream's row.
        let settled = bed.store().append(&append).await.must("repeat a dropped append");
        let versions: Vec<_> = settled.events.iter().map(|(version, _)| version.get()).collect();
        assert_eq!(versions, [0, 1, 2]);
        assert_eq!(
            bed.store().stream_version(&stream).await.must("read a version"),
            Version::new(2)
        );
        if finished {
            return polls;
        }
    }
    unreachable!("an append ends")
}
