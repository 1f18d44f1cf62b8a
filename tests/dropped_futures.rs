//! Any future of the store may be dropped, at any of its await points: no write is incomplete, and
//! the next user of the connection loses nothing, whether it is the store or the application.

use std::pin::pin;

use annals_store::{
    Append, Category, Coalescing, EventStore, ExpectedVersion, Follow, Read, SchemaName, Store,
    StoreOptions, Version, telemetry,
};
use annals_testkit::{
    Account, CATEGORY, FaultyLink, Must, Testbed, account, deposited, dropped_after, opened,
};
use futures_util::TryStreamExt;
use metrics_util::debugging::DebuggingRecorder;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::telemetry::histograms;

/// Events of the log that is read and followed: more than one page of each.
const LOG: i64 = 700;

/// The dropped futures, each with the fewest await points that it has.
const WORKS: [(Work, usize); 10] = [
    (Work::Append, 6),
    (Work::AppendQueued, 6),
    (Work::AppendIn, 8),
    (Work::Read, 5),
    (Work::ReadStreamBackwards, 5),
    (Work::Load, 4),
    (Work::Follow, 6),
    (Work::FollowStream, 4),
    (Work::List, 3),
    (Work::Migrate, 8),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Including the registration of its schemas, which this store sees for the first time.
    Append,
    /// Behind another append, so that it goes to the server in a task of its own.
    AppendQueued,
    AppendIn,
    Read,
    ReadStreamBackwards,
    Load,
    Follow,
    FollowStream,
    List,
    Migrate,
}

impl Work {
    async fn run(self, store: &Store, append: &Append) {
        let log = account("log");
        match self {
            Self::Append => drop(store.append(append).await.must("append")),
            Self::AppendQueued => append_behind_another(store, append).await,
            Self::AppendIn => append_and_commit(store, append).await,
            Self::Read => count(store.read(Read::all().events_max(LOG.unsigned_abs()))).await,
            Self::ReadStreamBackwards => {
                count(store.read(Read::stream(&log).backwards())).await;
            }
            Self::Load => drop(store.load::<Account>(&log).await.must("load")),
            Self::Follow => take(store.follow(Follow::all())).await,
            Self::FollowStream => take(store.follow_stream(&log, Version::FIRST)).await,
            Self::List => {
                let category = Category::new(CATEGORY).must("name a category");
                drop(store.categories().await.must("list the categories"));
                let streams: Vec<_> = store.streams(&category).try_collect().await.must("list");
                assert!(!streams.is_empty());
            }
            Self::Migrate => store.migrate().await.must("migrate"),
        }
    }
}

async fn append_behind_another(store: &Store, append: &Append) {
    let first = Append::to(&account("first"), ExpectedVersion::Any, [deposited(1)]);
    let (first, queued) = tokio::join!(store.append(&first), store.append(append));
    first.must("append");
    queued.must("append");
}

async fn append_and_commit(store: &Store, append: &Append) {
    let mut transaction = store.pool().begin().await.must("begin");
    store.append_in(&mut transaction, append).await.must("append");
    transaction.commit().await.must("commit");
}

async fn count<T>(events: impl futures_util::Stream<Item = Result<T, annals_store::Error>>) {
    let events: Vec<_> = events.try_collect().await.must("read");
    assert_eq!(events.len(), usize::try_from(LOG).unwrap());
}

async fn take<T>(log: impl futures_util::Stream<Item = Result<T, annals_store::Error>>) {
    let mut log = pin!(log);
    for _ in 0..LOG {
        log.try_next().await.must("follow").must("follow for ever");
    }
}

/// One connection, so that the next user certainly gets that of the dropped future.
async fn pool_of_one(url: &str) -> PgPool {
    let pool = PgPoolOptions::new().max_connections(1).connect(url).await.must("connect");
    while pool.num_idle() == 0 {
        tokio::task::yield_now().await;
    }
    pool
}

/// A store with empty caches. A migrating store has a schema of its own, so that there is work.
fn store_over(pool: &PgPool, work: Work, polls: usize) -> Store {
    let options = StoreOptions::default().without_notifications();
    let options = match work {
        Work::Migrate => {
            options.schema(SchemaName::new(format!("late_{polls}")).must("name a schema"))
        }
        Work::AppendQueued => options.coalescing(Coalescing::default().direct_max(1)),
        _ => options,
    };
    options.with_pool(pool.clone())
}

#[tokio::test]
async fn whatever_is_dropped_wherever_the_next_user_of_the_connection_loses_nothing() {
    let bed = Testbed::new("dropped_futures").await;
    let table = include_str!("sql/plain_table.sql");
    sqlx::raw_sql(table).execute(bed.store().pool()).await.must("make a table");
    let log = Append::to(&account("log"), ExpectedVersion::Any, (0..LOG).map(deposited));
    bed.store().append(&log).await.must("append");
    // On this thread, so that no answer arrives while this task runs: every await point is reached.
    let (proxy, _) = FaultyLink::before(&bed.database_url()).await;
    let url = proxy.url(&bed.database_url());
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let mut lost_after = Vec::new();
    for (work, await_points_min) in WORKS {
        let mut await_points = 0;
        loop {
            let next = Box::pin(drop_and_go_on(&bed, &url, work, await_points)).await;
            lost_after.extend(next.is_lost.then_some((work, await_points)));
            match next.is_finished {
                true => break,
                false => await_points += 1,
            }
        }
        assert!(await_points >= await_points_min, "{work:?} was dropped at {await_points} only");
        let times = histograms(&snapshotter).remove(telemetry::APPEND_QUEUE_DURATION);
        let is_queued = times.is_some_and(|times| times.iter().any(|&time| time > 0.0));
        assert_eq!(is_queued, work == Work::AppendQueued, "{work:?}");
    }
    assert_eq!(lost_after, [], "after these an acknowledged insert was lost");
}

struct Next {
    /// The future finished before it was dropped.
    is_finished: bool,
    /// An insert of the application that was acknowledged afterwards is missing.
    is_lost: bool,
}

/// Drops the work after so many polls, and lets the application and another store continue.
async fn drop_and_go_on(bed: &Testbed, url: &str, work: Work, polls: usize) -> Next {
    let pool = pool_of_one(url).await;
    let store = store_over(&pool, work, polls);
    let stream = account(format!("{work:?}-{polls}"));
    let append = Append::to(&stream, ExpectedVersion::NoStream, [opened("ann"), deposited(1)]);
    let is_finished = dropped_after(polls, Box::pin(work.run(&store, &append))).await.is_some();
    let before = count_plain(bed).await;
    let insert = sqlx::query(include_str!("sql/plain_insert.sql")).execute(&pool).await;
    insert.must("insert");
    // No other write on this connection: a later commit would commit the insert, too.
    pool.close().await;
    // If the application's own `begin` was dropped, sqlx 0.9.0 loses the insert:
    // tests/poisoned_connections.rs.
    let is_lost = work != Work::AppendIn && count_plain(bed).await == before;

    let settled = bed.store().append(&append).await.must("append, perhaps again");
    let versions: Vec<_> = settled.events.iter().map(|(version, _)| version.get()).collect();
    assert_eq!(versions, [0, 1], "{work:?} dropped after {polls} polls");
    Next { is_finished, is_lost }
}

async fn count_plain(bed: &Testbed) -> i64 {
    let count = sqlx::query_scalar(include_str!("sql/plain_count.sql"));
    count.fetch_one(bed.store().pool()).await.must("count")
}
