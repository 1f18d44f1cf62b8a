//! A network that silently drops everything ends in a typed error within the deadline of the store,
//! and the store continues once the network works again.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use annals_store::{
    Adoption, Append, AppendError, Category, Error, EventId, ExpectedVersion, Follow, Projection,
    ProjectionError, RecordedEvent, Store, StoreOptions, Version,
};
use annals_testkit::{CATEGORY, DEADLINE, FaultyLink, Must, Testbed, account, deposited, opened};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, TryStreamExt, future};
use sqlx::PgConnection;
use uuid::Uuid;

/// Long enough for an append on a slow machine.
const LIMIT: Duration = Duration::from_secs(3);

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

/// A projection that lets the link fall silent when it applies an event, if it has one.
struct Silencing(Option<FaultyLink>);

impl Projection for Silencing {
    fn name(&self) -> &'static str {
        "silencing"
    }

    fn version(&self) -> u32 {
        1
    }

    fn events(&self) -> Follow {
        Follow::all()
    }

    fn tables(&self) -> &'static str {
        include_str!("sql/balances.sql")
    }

    async fn apply(
        &self,
        _events: &[RecordedEvent],
        _connection: &mut PgConnection,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        if let Some(link) = &self.0 {
            link.silence();
        }
        Ok(())
    }
}

/// A projection of this store, applied up to its first event.
async fn projected(bed: &Testbed) {
    let appended = bed.store().append(&append(0)).await.must("append");
    let runner = bed.store().project(Silencing(None));
    let applied = bed.store().wait_for("silencing", appended.positions(), DEADLINE);
    tokio::select! {
        ended = runner.run(future::pending()) => panic!("the projection ended: {ended:?}"),
        applied = applied => applied.must("apply an event"),
    }
}

/// What is wrong with a call on a link that is silent; nothing if it ends with an error that may be
/// retried.
fn wrong<'a, T, E: Debug + 'a>(
    call: &'static str,
    called: impl Future<Output = Result<T, E>> + 'a,
    is_retryable: fn(&E) -> bool,
) -> LocalBoxFuture<'a, Option<String>> {
    let called = tokio::time::timeout(LIMIT * 3, called);
    let wrong = called.map(move |ended| match ended {
        Err(_elapsed) => Some(format!("{call}: no end")),
        Ok(Ok(_)) => Some(format!("{call}: no error")),
        Ok(Err(error)) if is_retryable(&error) => None,
        Ok(Err(error)) => Some(format!("{call}: {error:?}")),
    });
    wrong.boxed_local()
}

/// Connects so many sessions, for calls that begin when the link is silent.
async fn fill(store: &Store, sessions: usize) {
    let acquired = (0..sessions).map(|_| store.pool().acquire());
    drop(future::try_join_all(acquired).await.must("connect"));
    while store.pool().num_idle() < sessions {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_call_ends_with_an_error_that_may_be_retried() {
    const SESSIONS: usize = 22;
    let bed = Testbed::new("no_answer_calls").await;
    projected(&bed).await;
    let (link, store) = linked(&bed, StoreOptions::default().connections_max(24)).await;
    let store = &store;
    let (category, event) = (Category::new(CATEGORY).must("name it"), EventId::from(Uuid::nil()));
    let mut own = store.pool().acquire().await.must("connect").detach();
    let mut transaction = store.pool().begin().await.must("begin");
    let (inside, inline, new) = (append(1), append(2), [opened("ann")]);
    let new = Append::to(&account("new"), ExpectedVersion::Any, new);
    let (projection, name) = (Silencing(None), "silencing");
    let runner = || store.project(Silencing(None));
    fill(store, SESSIONS).await;
    link.silence();
    let projecting = ProjectionError::is_retryable;
    let calls = [
        wrong("append_in", store.append_in(&mut transaction, &inside), AppendError::is_retryable),
        wrong("a new schema", store.append(&new), AppendError::is_retryable),
        wrong("append_inline", store.append_inline(&inline, &projection), projecting),
        wrong("make_inline", runner().make_inline(Duration::ZERO), projecting),
        wrong("make_followed", runner().make_followed(Duration::ZERO), projecting),
        wrong("wait_for", store.wait_for(name, [], Duration::from_millis(50)), projecting),
        wrong("status", store.projection_status(name), projecting),
        wrong("skip", store.skip_projection_event(name, event, "test"), projecting),
        wrong("switch", store.switch_projection(name, 1, Duration::ZERO), projecting),
        wrong("drop", store.drop_projection(name, 2), projecting),
        wrong("recorded_schemas", store.recorded_schemas(&category), Error::is_retryable),
        wrong("categories", store.categories(), Error::is_retryable),
        wrong("streams", store.streams(&category).try_collect::<Vec<_>>(), Error::is_retryable),
        wrong("end_of_log", store.end_of_log(), Error::is_retryable),
        wrong("identity", store.identity(), Error::is_retryable),
        wrong("adopt", store.adopt("test", Adoption::Moved), Error::is_retryable),
        wrong("check", store.check(), Error::is_retryable),
        wrong("migrate", store.migrate(), Error::is_retryable),
        wrong("drop_published_outbox", store.drop_published_outbox(&mut own), Error::is_retryable),
        wrong("connect_listener", store.connect_listener(), Error::is_retryable),
    ];
    let wrong: Vec<_> = future::join_all(calls).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_append_whose_projection_is_applied_and_whose_commit_is_not_answered_is_unknown() {
    let bed = Testbed::new("no_answer_inline").await;
    projected(&bed).await;
    let inline = bed.store().project(Silencing(None)).make_inline(DEADLINE);
    inline.await.must("make the projection inline");
    let (link, store) = linked(&bed, StoreOptions::default()).await;
    let append = append(1);
    let projection = Silencing(Some(link));
    let appended = store.append_inline(&append, &projection);
    let error = tokio::time::timeout(LIMIT * 3, appended).await.must("end").unwrap_err();
    let is_unknown = matches!(&error, ProjectionError::Append(AppendError::Unknown(_)));
    assert!(is_unknown && error.is_retryable(), "{error:?}");
    if let Some(link) = &projection.0 {
        link.mend();
    }
    store.append_inline(&append, &Silencing(None)).await.must("repeat the append");
    assert_eq!(bed.recorded().await.len(), 2);
}
