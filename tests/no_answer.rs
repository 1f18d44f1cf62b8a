//! A network that silently drops everything ends in a typed error within the deadline of the store,
//! and the store continues once the network works again.

use std::pin::pin;
use std::time::Duration;

use annals_store::{
    Append, AppendError, Error, ExpectedVersion, Follow, Store, StoreOptions, Version,
};
use annals_testkit::{FaultyLink, Must, Testbed, account, deposited};
use futures_util::{TryStreamExt, future};

/// Long enough for an append on a slow machine.
const LIMIT: Duration = Duration::from_secs(5);

async fn linked(bed: &Testbed, options: StoreOptions) -> (FaultyLink, Store) {
    let (link, url) = FaultyLink::before(&bed.database_url()).await;
    let options = options.deadline(LIMIT).without_notifications();
    (link, options.connect(&url).await.must("connect"))
}

fn append(number: i64) -> Append {
    Append::to(&account("a"), ExpectedVersion::Any, [deposited(number)])
}

async fn ends_and_continues(options: StoreOptions, callers: i64) {
    let bed = Testbed::new("no_answer").await;
    let (link, store) = linked(&bed, options).await;
    store.append(&append(0)).await.must("append");
    link.silence();
    let appends: Vec<_> = (1..=callers).map(append).collect();
    let results = future::join_all(appends.iter().map(|append| store.append(append))).await;
    for result in results {
        let error = result.unwrap_err();
        let is_expected = match &error {
            AppendError::Unknown(_) => true,
            // It waited for a connection.
            AppendError::Failed(sqlx::Error::PoolTimedOut) => true,
            _ => false,
        };
        assert!(is_expected && error.is_retryable(), "{error:?}");
    }
    link.mend();
    for append in &appends {
        store.append(append).await.must("repeat an append");
    }
    assert_eq!(i64::try_from(bed.recorded().await.len()), Ok(callers + 1));
    tokio::time::timeout(LIMIT * 10, store.close()).await.must("close the store");
}

#[tokio::test]
async fn an_append_alone_ends_with_an_unknown_outcome() {
    ends_and_continues(StoreOptions::default().without_coalescing(), 1).await;
}

#[tokio::test]
async fn appends_that_arrive_together_end_with_an_unknown_outcome() {
    ends_and_continues(StoreOptions::default().connections_max(3), 40).await;
}

#[tokio::test]
async fn reads_and_followers_end_with_an_error_that_may_be_retried() {
    let bed = Testbed::new("no_answer_read").await;
    let (link, store) = linked(&bed, StoreOptions::default()).await;
    store.append(&append(0)).await.must("append");
    link.silence();
    let read = store.read_stream(&account("a"), Version::FIRST).try_collect::<Vec<_>>().await;
    let mut log = pin!(store.follow(Follow::all()));
    let followed = log.try_next().await;
    let version = store.stream_version(&account("a")).await;
    for error in [read.unwrap_err(), followed.unwrap_err(), version.unwrap_err()] {
        assert!(matches!(error, Error::Database { .. }) && error.is_retryable(), "{error:?}");
    }
    link.mend();
    let read = store.read_stream(&account("a"), Version::FIRST).try_collect::<Vec<_>>().await;
    assert_eq!(read.must("read").len(), 1);
}
