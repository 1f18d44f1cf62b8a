//! An append inside a caller's transaction of any isolation level: a refusal leaves it usable, and
//! a lost race is a typed error, never a wrong answer.

use annals_store::{Append, AppendError, ExpectedVersion, Version};
use annals_testkit::{Must, Testbed, account, deposited, opened};
use futures_util::future::join_all;
use sqlx::{PgTransaction, Row};

const LEVELS: [&str; 2] = [
    "set transaction isolation level repeatable read",
    "set transaction isolation level serializable",
];

/// A transaction whose snapshot is taken now.
async fn begin(bed: &Testbed, level: &'static str) -> PgTransaction<'static> {
    let mut transaction = bed.store().pool().begin().await.must("begin");
    sqlx::raw_sql(level).execute(&mut *transaction).await.must("set the isolation level");
    let count =
        sqlx::query(include_str!("sql/count_events.sql")).fetch_one(&mut *transaction).await;
    let _: i64 = count.must("take a snapshot").get("events");
    transaction
}

#[tokio::test]
async fn a_lost_race_in_a_transaction_of_any_level_is_typed_and_retryable() {
    for level in LEVELS {
        let bed = Testbed::new("lost_race").await;
        let (new, old) = (account("new"), account("old"));
        let first = Append::to(&old, ExpectedVersion::NoStream, [opened("ann")]);
        bed.store().append(&first).await.must("append");
        let expectations = [
            (&new, ExpectedVersion::NoStream),
            (&new, ExpectedVersion::Any),
            (&old, ExpectedVersion::Exactly(Version::FIRST)),
            (&old, ExpectedVersion::Any),
        ];
        for (stream, expected) in expectations {
            let mut late = begin(&bed, level).await;
            let winner = Append::to(stream, ExpectedVersion::Any, [deposited(1)]);
            bed.store().append(&winner).await.must("append");
            let append = Append::to(stream, expected, [deposited(2)]);
            let lost = bed.store().append_in(&mut late, &append).await.unwrap_err();
            assert!(matches!(lost, AppendError::LostRace(_)), "{level}, {expected}: {lost:?}");
            assert!(lost.is_retryable());
            late.rollback().await.must("roll back");

            // Run again, it sees the faster append.
            let mut again = begin(&bed, level).await;
            let decided = bed.store().append_in(&mut again, &append).await;
            match expected {
                ExpectedVersion::Any => drop(decided.must("append")),
                _ => assert!(decided.unwrap_err().conflict_of(stream).is_some()),
            }
            again.rollback().await.must("roll back");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_only_checked_is_as_it_was_checked_at_any_level() {
    for level in LEVELS {
        let bed = Testbed::new("only_checked").await;
        let (checked, written) = (account("checked"), account("written"));
        for stream in [&checked, &written] {
            let append = Append::to(stream, ExpectedVersion::NoStream, [opened("ann")]);
            bed.store().append(&append).await.must("append");
        }
        let mut late = begin(&bed, level).await;
        let winner = Append::to(&checked, ExpectedVersion::Any, [deposited(1)]);
        bed.store().append(&winner).await.must("append");
        // The snapshot has the version that is checked, and the stream has a later one.
        let append = Append::to(&written, ExpectedVersion::Any, [deposited(2)])
            .and_check(&checked, ExpectedVersion::Exactly(Version::FIRST));
        let lost = bed.store().append_in(&mut late, &append).await.unwrap_err();
        assert!(matches!(lost, AppendError::LostRace(_)), "{level}: {lost:?}");
        late.rollback().await.must("roll back");
        assert_eq!(bed.recorded().await.len(), 3);
    }
}

#[tokio::test]
async fn a_race_that_is_found_by_the_commit_is_typed_and_retryable_too() {
    let bed = Testbed::new("lost_at_commit").await;
    let warm = Append::to(&account("warm"), ExpectedVersion::Any, [opened("ann")]);
    bed.store().append(&warm).await.must("append");
    // Each has counted the events, and adds one that the other has not counted.
    let [mut one, mut other] = [begin(&bed, LEVELS[1]).await, begin(&bed, LEVELS[1]).await];
    for (transaction, id) in [(&mut one, "one"), (&mut other, "other")] {
        let append = Append::to(&account(id), ExpectedVersion::NoStream, [opened("ann")]);
        bed.store().append_in(transaction, &append).await.must("append");
    }
    one.commit().await.must("commit");
    let lost = AppendError::from(other.commit().await.unwrap_err());
    assert!(matches!(lost, AppendError::LostRace(_)) && lost.is_retryable(), "{lost:?}");
    assert_eq!(bed.recorded().await.len(), 2);
}

#[tokio::test]
async fn a_refusal_leaves_a_transaction_of_any_level_usable() {
    for level in LEVELS {
        let bed = Testbed::new("usable").await;
        let mut transaction = begin(&bed, level).await;
        // The first use of a schema: its registration is later than this transaction's snapshot.
        let opens = Append::to(&account("a"), ExpectedVersion::NoStream, [opened("ann")]);
        let lost = bed.store().append_in(&mut transaction, &opens).await.unwrap_err();
        assert!(matches!(lost, AppendError::LostRace(None)), "{lost:?}");
        transaction.rollback().await.must("roll back");

        let mut transaction = begin(&bed, level).await;
        bed.store().append_in(&mut transaction, &opens).await.must("append");
        let refused = Append::to(&account("a"), ExpectedVersion::NoStream, [opened("bob")]);
        let refusal = bed.store().append_in(&mut transaction, &refused).await.unwrap_err();
        assert!(refusal.conflict_of(&account("a")).is_some(), "{refusal:?}");
        transaction.commit().await.must("commit");
        assert_eq!(bed.recorded().await.len(), 1);
    }
}

#[tokio::test]
async fn one_id_appended_to_two_streams_at_once_is_recorded_once_and_refused_once() {
    let bed = Testbed::new("one_id").await;
    let event = opened("ann");
    let [one, other] = ["a", "b"].map(account);
    let first = Append::to(&one, ExpectedVersion::Any, [event.clone()]);
    let second = Append::to(&other, ExpectedVersion::Any, [event]);
    let mut open = bed.store().pool().begin().await.must("begin");
    bed.store().append_in(&mut open, &first).await.must("append");
    let store = bed.store().clone();
    let waiting = tokio::spawn(async move { store.append(&second).await });
    bed.until_waiting_for_a_lock().await;
    open.commit().await.must("commit");
    let refused = waiting.await.must("append").unwrap_err();
    assert!(refused.to_string().contains("another stream"), "{refused}");
    assert_eq!(bed.recorded().await.len(), 1);
}

async fn stream_rows(bed: &Testbed) -> Vec<String> {
    let rows = sqlx::query_scalar(include_str!("sql/stream_rows.sql"));
    rows.fetch_all(bed.store().pool()).await.must("find the rows of streams")
}

/// With a row version per append, each append would read all those that an open snapshot keeps.
#[tokio::test]
async fn appends_beside_an_open_snapshot_do_not_update_the_rows_of_their_streams() {
    let bed = Testbed::new("open_snapshot").await;
    let deposit = |stream: u32| Append::to(&account(stream), ExpectedVersion::Any, [deposited(1)]);
    let at_once = async |of_each: u32| {
        let appends: Vec<_> = (0..30 * of_each).map(|number| deposit(number % 30)).collect();
        let results = join_all(appends.iter().map(|append| bed.store().append(append))).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    };
    at_once(1).await;
    let snapshot = begin(&bed, LEVELS[0]).await;
    let before = stream_rows(&bed).await;
    assert_eq!(before.len(), 30);
    // Alone, one of each stream in a call, several of a stream in a call, and to several streams.
    for _ in 0..5 {
        bed.store().append(&deposit(0)).await.must("append");
    }
    at_once(1).await;
    at_once(2).await;
    let several = deposit(0).and_to(&account(1), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&several).await.must("append");
    assert_eq!(stream_rows(&bed).await, before);
    snapshot.rollback().await.must("roll back");
}
