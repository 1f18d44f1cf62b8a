//! PostgreSQL crashes and issues transaction ids again whose first transactions never reached the
//! disk: rolled back, committed asynchronously, or Annals' own notifications. A follower that
//! counted them as ended, and lives through the crash, misses no event that is committed under them
//! later; nor does a relay whose committed checkpoint counts them as ended.

use std::pin::pin;

use annals_store::{Append, Category, Checkpoint, ExpectedVersion, Follow, Followed, Store};
use annals_testkit::{
    CATEGORY, Component, DEADLINE, Ending, FaultyLink, Follower, Must, PrivateStack, RelayProcess,
    Testbed, account, check, deposited,
};
use futures_util::{Stream, TryStreamExt};
use sqlx::postgres::PgListener;
use sqlx::{Connection, PgConnection};

use crate::projections::{LONG, Running, Script, balances, check_exactly_once, until};

/// Unflushed log stays in memory, so that the crash need not come within milliseconds.
const SETTINGS: [&str; 1] = ["wal_writer_delay=10s"];
const APPENDS: i64 = 20;
/// Now and then the log is written to the disk for other reasons, too, and on a slow machine since
/// those seconds are over; a crash after that proves nothing.
const ROUNDS_MAX: usize = 20;
/// A relay that cannot renew its lease for a while keeps it.
const LEASE_MS: &str = "120000";

/// Transactions that consume ids without waiting for the disk.
#[derive(Debug, Clone, Copy)]
enum Unflushed {
    Rollbacks,
    AsynchronousCommits,
    Hints,
}

impl Unflushed {
    async fn happen(self, bed: &Testbed) {
        let statement = match self {
            Self::Rollbacks => include_str!("sql/roll_back.sql"),
            Self::AsynchronousCommits => include_str!("sql/commit_asynchronously.sql"),
            Self::Hints => return hints(bed.store()).await,
        };
        let mut connection = connect(bed).await;
        sqlx::raw_sql(statement).execute(&mut connection).await.must("use up transaction ids");
    }
}

/// Notifications, one after the other, until each was received: its transaction has ended.
async fn hints(store: &Store) {
    let mut listener = PgListener::connect_with(store.pool()).await.must("listen");
    listener.listen(store.notify_channel()).await.must("listen");
    for _ in 0..5 {
        store.notify_followers();
        let heard = tokio::time::timeout(DEADLINE, listener.recv()).await;
        heard.must("wait for a hint").must("wait for a hint");
    }
}

async fn connect(bed: &Testbed) -> PgConnection {
    PgConnection::connect(&bed.database_url()).await.must("connect")
}

async fn next_transaction_id(bed: &Testbed) -> i64 {
    let question = sqlx::query_scalar(include_str!("sql/next_transaction_id.sql"));
    question.fetch_one(&mut connect(bed).await).await.must("ask for the next transaction id")
}

async fn append(store: &Store, number: i64) {
    let append = Append::to(&account(number), ExpectedVersion::Any, [deposited(number)]);
    store.append(&append).await.must("append");
}

/// A store with a relay that lives through the crash.
struct Published {
    bed: Testbed,
    link: FaultyLink,
    relay: RelayProcess,
    consumer: Follower,
}

impl Published {
    async fn new(stack: &PrivateStack, label: &str, delivery: &str) -> Self {
        let bed = Testbed::on(label, stack.environment().clone()).await;
        let (link, near) = FaultyLink::before(&bed.database_url()).await;
        let settings = bed
            .relay()
            .impatient()
            .database(&near)
            .variable("ANNALS_RELAY__RELAY__DELIVERY", delivery)
            .variable("ANNALS_RELAY__RELAY__LEASE_MS", LEASE_MS);
        let consumer = bed.follow();
        let relay = RelayProcess::start(&settings);
        Self { bed, link, relay, consumer }
    }

    /// Appends, and waits until the relay is idle.
    async fn settle(&self) {
        let wanted = self.consumer.count() + 1;
        append(self.bed.store(), 0).await;
        self.consumer.until_count(wanted).await;
        self.bed.until_copied().await;
    }

    /// From here on no lease is renewed and no state is reported: each waits for the disk, and
    /// flushes everything written before. Ends with the connection.
    async fn silence(&self) -> PgConnection {
        self.lock(include_str!("sql/lock_sessions.sql")).await
    }

    /// From here on no checkpoint is copied: that flushes the log as well. Ends with the
    /// connection.
    async fn keep_from_copying(&self) -> PgConnection {
        self.lock(include_str!("sql/keep_from_copying.sql")).await
    }

    async fn lock(&self, statement: &'static str) -> PgConnection {
        let mut connection = connect(&self.bed).await;
        sqlx::raw_sql(statement).execute(&mut connection).await.must("lock a table");
        connection
    }

    /// The unflushed transactions run between the commit of an event and the query of the relay
    /// that finds it: the checkpoint with the event, in Kafka, counts them as ended.
    async fn publish_after(&self, unflushed: Unflushed) {
        self.relay.freeze().await;
        let wanted = self.consumer.count() + 1;
        append(self.bed.store(), 1).await;
        unflushed.happen(&self.bed).await;
        self.relay.thaw().await;
        self.consumer.until_count(wanted).await;
    }

    /// The relay reconnects, and every recorded event comes, once and in order.
    async fn assert_nothing_is_lost(mut self) {
        let recorded = self.bed.recorded().await;
        self.link.mend();
        self.consumer.caught_up(&recorded).await;
        assert!(self.relay.terminate().await.success());
        assert_eq!(check(&self.bed.history(Vec::new()).await), []);
    }
}

/// The next so many events of a follower that lives through the crash, by their stream and version.
async fn take(
    log: &mut (impl Stream<Item = Result<Followed, annals_store::Error>> + Unpin),
    events: i64,
) -> Checkpoint {
    let mut checkpoint = None;
    for number in 0..events {
        let next = tokio::time::timeout(DEADLINE, log.try_next()).await;
        let next = next.unwrap_or_else(|_| panic!("event {number} of {events} does not come"));
        let next = next.must("follow").must("follow for ever");
        assert_eq!(next.event.stream, account(number), "it is passed over");
        checkpoint = Some(next.checkpoint);
    }
    checkpoint.must("take an event")
}

/// Unflushed transactions run; followers and relays see that they have ended; the server crashes,
/// and issues the ids again.
#[expect(clippy::cognitive_complexity, reason = "one story, told in its order")]
async fn nothing_is_lost(version: &str, unflushed: Unflushed) {
    let stack = PrivateStack::postgres_with(version, &SETTINGS).await;
    let exactly = Published::new(&stack, "crashed", "exactly-once").await;
    let at_least = Published::new(&stack, "crashed_alo", "at-least-once").await;
    let mut log = pin!(exactly.bed.store().follow(Follow::all()));
    let of_category = Follow::category(&Category::new(CATEGORY).must("name a category"));
    let mut of_category = pin!(exactly.bed.store().follow(of_category));
    let mut scratch = connect(&exactly.bed).await;
    let create = sqlx::raw_sql(include_str!("sql/scratch.sql")).execute(&mut scratch).await;
    create.must("make a table");
    for _ in 0..ROUNDS_MAX {
        at_least.settle().await;
        exactly.settle().await;
        let silent = (exactly.silence().await, at_least.silence().await);
        let uncopied = exactly.keep_from_copying().await;
        exactly.publish_after(unflushed).await;
        let checkpoint = take(&mut log, 2).await;
        take(&mut of_category, 2).await;
        at_least.bed.until_looked("annals-relay").await;
        let before = next_transaction_id(&exactly.bed).await;
        for published in [&exactly, &at_least] {
            published.link.cut();
        }
        stack.end(Component::Postgres, Ending::Crash).await;
        drop((silent, uncopied));
        stack.start(Component::Postgres).await;
        let are_given_again = next_transaction_id(&exactly.bed).await < before;
        // Both databases consume some of the ids that are issued again.
        for number in 0..APPENDS {
            append(exactly.bed.store(), number).await;
            append(at_least.bed.store(), number).await;
        }
        take(&mut log, APPENDS).await;
        take(&mut of_category, APPENDS).await;
        let mut restarted = pin!(exactly.bed.store().follow(Follow::all().after(checkpoint)));
        take(&mut restarted, APPENDS).await;
        if are_given_again {
            exactly.assert_nothing_is_lost().await;
            return at_least.assert_nothing_is_lost().await;
        }
        exactly.link.mend();
        at_least.link.mend();
        exactly.consumer.caught_up(&exactly.bed.recorded().await).await;
        at_least.consumer.caught_up(&at_least.bed.recorded().await).await;
    }
    panic!("no crash made transaction ids come again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollbacks_of_postgresql_15() {
    Box::pin(nothing_is_lost("15", Unflushed::Rollbacks)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asynchronous_commits_of_postgresql_15() {
    Box::pin(nothing_is_lost("15", Unflushed::AsynchronousCommits)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_of_postgresql_15() {
    Box::pin(nothing_is_lost("15", Unflushed::Hints)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollbacks_of_postgresql_18() {
    Box::pin(nothing_is_lost("18", Unflushed::Rollbacks)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asynchronous_commits_of_postgresql_18() {
    Box::pin(nothing_is_lost("18", Unflushed::AsynchronousCommits)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_of_postgresql_18() {
    Box::pin(nothing_is_lost("18", Unflushed::Hints)).await;
}

/// Returns when a projection has applied every event recorded so far. With connections of its own:
/// those of a pool do not survive a crash.
async fn until_applied(bed: &Testbed) {
    let recorded = u64::try_from(bed.recorded().await.len()).must("count");
    let store = bed.another_store().await;
    until(&store, 1, |status| status.events == recorded).await;
}

/// The runner of a projection lives through the crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_applies_what_is_committed_under_transaction_ids_issued_again() {
    let stack = PrivateStack::postgres_with("18", &SETTINGS).await;
    let bed = Testbed::on("crashed_projection", stack.environment().clone()).await;
    let mut scratch = connect(&bed).await;
    let create = sqlx::raw_sql(include_str!("sql/scratch.sql")).execute(&mut scratch).await;
    create.must("make a table");
    // A lease that is not renewed: a renewal flushes the log. A pool of its own: `until_looked`
    // sees the last statement of each connection.
    let store = bed.another_store().await;
    let _running = Running::start(&store, balances(&Script::plain()), LONG);
    for _ in 0..ROUNDS_MAX {
        append(bed.store(), 0).await;
        until_applied(&bed).await;
        Unflushed::Rollbacks.happen(&bed).await;
        bed.until_looked("annals").await;
        let before = next_transaction_id(&bed).await;
        stack.end(Component::Postgres, Ending::Crash).await;
        stack.start(Component::Postgres).await;
        let are_given_again = next_transaction_id(&bed).await < before;
        for number in 0..APPENDS {
            append(bed.store(), number).await;
        }
        until_applied(&bed).await;
        if are_given_again {
            return check_exactly_once(&bed).await;
        }
    }
    panic!("no crash made transaction ids come again");
}
