//! Of several writers at one version of a stream, one wins; the others receive the conflict.

use std::sync::Arc;

use annals_store::{
    APPEND_BYTES_MAX, Append, AppendCondition, AppendError, ExpectedVersion, Refusal, Store,
    StreamName, Tag, Version,
};
use annals_testkit::{Must, Testbed, account, closed, deposited, deposited_for, opened};
use tokio::sync::Barrier;

const WRITERS: usize = 12;
const ROUNDS: i64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_appends_at_one_version_exactly_one_wins() {
    let bed = Testbed::new("one_wins").await;
    let stream = account("a");
    let start = Arc::new(Barrier::new(WRITERS));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| tokio::spawn(race(bed.store().clone(), stream.clone(), Arc::clone(&start))))
        .collect();
    let mut wins = vec![0; usize::try_from(ROUNDS).unwrap()];
    for writer in writers {
        for round in writer.await.must("race") {
            wins[round] += 1;
        }
    }
    assert!(wins.iter().all(|wins| *wins == 1), "winners of each round: {wins:?}");
    let recorded = bed.recorded().await;
    let versions: Vec<_> = recorded.iter().map(|event| event.version).collect();
    assert_eq!(versions, (0..ROUNDS).collect::<Vec<_>>());
}

/// The rounds that this writer won.
async fn race(store: Store, stream: StreamName, start: Arc<Barrier>) -> Vec<usize> {
    let mut won = Vec::new();
    for round in 0..ROUNDS {
        let expected: ExpectedVersion = Version::new(round - 1).into();
        let append = Append::to(&stream, expected, [deposited(round)]);
        start.wait().await;
        match store.append(&append).await {
            Ok(appended) => {
                assert_eq!(appended.events[0].0, Version::new(round).unwrap());
                won.push(usize::try_from(round).unwrap());
            }
            Err(error) => {
                let conflict = error.conflict_of(&stream).must("lose by a conflict");
                assert_eq!((conflict.expected, conflict.actual), (expected, Version::new(round)));
            }
        }
        start.wait().await;
    }
    won
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_try_again_after_a_conflict_leave_no_version_out_and_none_twice() {
    let bed = Testbed::new("try_again").await;
    let stream = account("a");
    let writers: Vec<_> =
        (0..WRITERS).map(|_| tokio::spawn(insist(bed.store().clone(), stream.clone()))).collect();
    let mut answered = Vec::new();
    for writer in writers {
        answered.extend(writer.await.must("write"));
    }
    answered.sort_unstable();
    let all: Vec<_> = (0..i64::try_from(WRITERS).unwrap() * ROUNDS).collect();
    assert_eq!(answered, all);
    let recorded: Vec<_> = bed.recorded().await.iter().map(|event| event.version).collect();
    assert_eq!(recorded, all);
}

/// The versions at which this writer's events were acknowledged.
async fn insist(store: Store, stream: StreamName) -> Vec<i64> {
    let mut expected = ExpectedVersion::NoStream;
    let mut versions = Vec::new();
    while i64::try_from(versions.len()).unwrap() < ROUNDS {
        match store.append(&Append::to(&stream, expected, [deposited(1)])).await {
            Ok(appended) => {
                let version = appended.events[0].0;
                versions.push(version.get());
                expected = ExpectedVersion::Exactly(version);
            }
            Err(error) => {
                expected = error.conflict_of(&stream).must("lose by a conflict").actual.into();
            }
        }
    }
    versions
}

#[tokio::test]
async fn a_conflict_carries_the_events_since_the_expected_version_if_asked_for() {
    let bed = Testbed::new("carries").await;
    let stream = account("a");
    let events = [opened("ann"), deposited(1), deposited(2), deposited(3)];
    bed.store()
        .append(&Append::to(&stream, ExpectedVersion::NoStream, events))
        .await
        .must("append");

    let stale = Append::to(&stream, ExpectedVersion::Exactly(Version::FIRST), [deposited(9)]);
    let stale = stale.with_conflict_events(2);
    // A store that has seen none of these schemas yet must still be able to decode the events.
    let error = bed.another_store().await.append(&stale).await.unwrap_err();
    let conflict = error.conflict_of(&stream).must("lose by a conflict");
    let carried: Vec<_> = conflict
        .events
        .iter()
        .map(|event| (event.version.get(), event.decode::<annals_testkit::AccountEvent>().unwrap()))
        .collect();
    let deposit = |sequence| {
        let note = String::new();
        annals_testkit::MoneyDeposited { sequence, cents: sequence, note }.into()
    };
    assert_eq!(carried, [(1, deposit(1)), (2, deposit(2))]);
    assert_eq!(conflict.actual, Version::new(3));
}

#[tokio::test]
async fn the_events_in_a_conflict_are_limited_by_their_size() {
    let bed = Testbed::new("limited").await;
    let (stream, tag) = (account("a"), Tag::new("large").must("make a tag"));
    // Each has some 900 kB: together more than one value of JSON can have.
    let large = |sequence| deposited_for(sequence, &"x".repeat(900_000)).with_tag(&tag);
    let open = Append::to(&stream, ExpectedVersion::NoStream, [opened("ann")]);
    bed.store().append(&open).await.must("append");
    for sequence in [0, 25, 50, 75] {
        let events = (sequence..sequence + 25).map(large);
        let append = Append::to(&stream, ExpectedVersion::Any, events);
        bed.store().append(&append).await.must("append");
    }
    let under = AppendCondition::no_event_with(tag.clone());
    let late = Append::to(&account("b"), ExpectedVersion::NoStream, [opened("bob")]).under(under);
    let error = bed.store().append(&late.with_conflict_events(100)).await.unwrap_err();
    let conflict = error.conflict_of_tag(&tag).must("lose by an event with the tag");
    assert_eq!(conflict.events.len(), 8);

    let stale = Append::to(&stream, ExpectedVersion::Exactly(Version::FIRST), [deposited(9)]);
    let stale = stale.with_conflict_events(100);
    let mut transaction = bed.store().pool().begin().await.must("begin");
    let error = bed.store().append_in(&mut transaction, &stale).await.unwrap_err();
    let conflict = error.conflict_of(&stream).must("lose by a conflict");
    let carried = conflict.events.iter().map(|event| event.version.get());
    assert!(carried.eq(1..9), "{} events", conflict.events.len());
    assert_eq!(conflict.actual, Version::new(100));
    // The refusal leaves the transaction usable.
    let append =
        Append::to(&stream, ExpectedVersion::Exactly(Version::new(100).unwrap()), [closed()]);
    bed.store().append_in(&mut transaction, &append).await.must("append after the refusal");
    transaction.commit().await.must("commit");
}

#[tokio::test]
async fn an_append_is_limited_by_its_size() {
    let bed = Testbed::new("append_size").await;
    let events = (0..80).map(|sequence| deposited_for(sequence, &"x".repeat(900_000)));
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, events);
    let refused = bed.store().append(&append).await.unwrap_err();
    assert!(
        matches!(&refused, AppendError::Refused(refusals) if matches!(
            refusals.as_slice(), [Refusal::Limit { max: APPEND_BYTES_MAX, .. }]
        )),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_existing_stream_can_be_demanded() {
    let bed = Testbed::new("demanded").await;
    let stream = account("a");
    let demand = Append::to(&stream, ExpectedVersion::StreamExists, [deposited(1)]);
    let error = bed.store().append(&demand).await.unwrap_err();
    assert!(matches!(error, AppendError::Refused(_)), "{error}");
    assert_eq!(error.conflict_of(&stream).must("find the conflict").actual, None);

    let create = Append::to(&stream, ExpectedVersion::NoStream, [opened("ann")]);
    bed.store().append(&create).await.must("append");
    bed.store().append(&demand).await.must("append to a stream that exists");
}
