//! PostgreSQL runs out of disk, or shuts down, while a service appends and follows and a relay
//! publishes: each outcome that the service is told is true, nothing is lost or repeated, and all
//! go on by themselves once there is space or a server again.

use std::collections::HashSet;

use annals_store::{Follow, Followed, Store};
use annals_testkit::{
    Component, DEADLINE, DiskPart, Ending, Follower, Must, Outcomes, PrivateStack, RelayProcess,
    Testbed, check, until,
};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use uuid::Uuid;

const EVENTS: usize = 50;
const DISK_FULL: &str = "53100";
const CANNOT_CONNECT_NOW: &str = "57P03";

/// A service that appends and follows, and a relay.
struct Service {
    bed: Testbed,
    outcomes: Outcomes,
    followed: watch::Receiver<Vec<Uuid>>,
    relay: RelayProcess,
    consumer: Follower,
}

/// The ids that a follower gets, which follows again from its checkpoint after each error that says
/// that it can.
fn follow(store: Store) -> watch::Receiver<Vec<Uuid>> {
    let (ids, followed) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut follow = Follow::all();
        loop {
            follow = follow_until_an_error(&store, follow, &ids).await;
        }
    });
    followed
}

/// Follows until an error; returns where to follow again.
async fn follow_until_an_error(
    store: &Store,
    follow: Follow,
    ids: &watch::Sender<Vec<Uuid>>,
) -> Follow {
    let mut log = Box::pin(store.follow(follow.clone()));
    let mut reached = follow;
    loop {
        let Followed { event, checkpoint, .. } = match log.try_next().await {
            Ok(Some(followed)) => followed,
            Ok(None) => return reached,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                return reached;
            }
        };
        ids.send_modify(|ids| ids.push(event.id.get()));
        reached = Follow::all().after(checkpoint);
    }
}

impl Service {
    async fn on(stack: &PrivateStack, label: &str) -> Self {
        let bed = Testbed::on(label, stack.environment().clone()).await;
        let consumer = bed.follow();
        let relay = RelayProcess::start(&bed.relay().impatient());
        let outcomes = Outcomes::start(bed.store());
        let followed = follow(bed.another_store().await);
        outcomes.until_more(EVENTS).await;
        consumer.until_count(EVENTS).await;
        Self { bed, outcomes, followed, relay, consumer }
    }

    /// All go on, and the recorded, published and followed events are those of the told outcomes.
    async fn assert_all_is_true(mut self) {
        self.outcomes.until_more(EVENTS).await;
        let told = self.outcomes.stop().await;
        let recorded = self.bed.recorded().await;
        let ids: HashSet<Uuid> = recorded.iter().map(|event| event.id).collect();
        assert!(told.acknowledged.is_subset(&ids), "an acknowledged event is not recorded");
        assert!(told.failed.is_disjoint(&ids), "a failed append is recorded");
        assert_eq!(ids.len(), told.acknowledged.len(), "{:?}", told.codes);
        assert!(self.consumer.caught_up(&recorded).await, "something is not published");
        let all = self.followed.wait_for(|followed| followed.len() >= recorded.len());
        tokio::time::timeout(DEADLINE, all).await.must("follow").must("follow");
        let order: Vec<Uuid> = recorded.iter().map(|event| event.id).collect();
        assert_eq!(*self.followed.borrow(), order, "a follower missed or repeated events");
        assert!(self.relay.terminate().await.success());
        assert_eq!(check(&self.bed.history(Vec::new()).await), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_space_for_tables() {
    let stack = PrivateStack::postgres_on_a_small_disk("15").await;
    let service = Service::on(&stack, "full_tables").await;
    stack.fill_disk(DiskPart::Tables);
    service.outcomes.until(|told| told.codes.get(DISK_FULL).is_some_and(|times| *times > 3)).await;
    // The events before are published meanwhile.
    let recorded = service.bed.recorded().await;
    assert!(service.consumer.caught_up(&recorded).await, "something is not published");
    stack.free_disk();
    service.assert_all_is_true().await;
}

/// The server ends itself where it cannot write its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_space_for_the_log() {
    let stack = PrivateStack::postgres_on_a_small_disk("18").await;
    let mut service = Service::on(&stack, "full_log").await;
    let mut connection = PgConnection::connect(&service.bed.database_url()).await.must("connect");
    service.relay.turn_page();
    stack.fill_disk(DiskPart::Log);
    let switch = include_str!("sql/switch_log.sql");
    while sqlx::query(switch).execute(&mut connection).await.is_ok() {}
    service.relay.waits_for("database").await;
    stack.free_disk();
    stack.start(Component::Postgres).await;
    service.relay.has_waited_for("database").await;
    service.assert_all_is_true().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_waits_for_its_sessions_and_ends_them_at_last() {
    let stack = PrivateStack::postgres("15").await;
    let mut service = Service::on(&stack, "shut_down").await;
    service.relay.turn_page();
    stack.begin_smart_shutdown().await;
    until("new sessions are refused", async || {
        let connected = PgConnection::connect(&service.bed.database_url()).await;
        let Err(sqlx::Error::Database(refused)) = connected else { return false };
        assert_eq!(refused.code().as_deref(), Some(CANNOT_CONNECT_NOW), "{refused}");
        true
    })
    .await;
    // The sessions that there are still append and publish.
    service.outcomes.until_more(EVENTS).await;
    service.consumer.until_count(service.consumer.count() + EVENTS).await;
    stack.end(Component::Postgres, Ending::Orderly).await;
    service.relay.waits_for("database").await;
    stack.start(Component::Postgres).await;
    service.relay.has_waited_for("database").await;
    service.assert_all_is_true().await;
}
