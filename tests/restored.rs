//! A database is restored to an earlier state, from a dump or from a snapshot of its volume. If
//! published events are missing, the relay halts before it publishes anything else, and lists them;
//! a follower fails only if events are missing that it had. If nothing is missing, both continue by
//! themselves.

use std::collections::HashSet;

use annals_store::{Append, Checkpoint, ExpectedVersion, Follow, NewEvent, Store};
use annals_testkit::{
    CATEGORY, Dump, Follower, Isolation, Must, PrivateStack, RelayProcess, Snapshot, Testbed,
    account, check, create_database, deposited, drop_database, opened, read_topic, rename_database,
    take,
};
use uuid::Uuid;

/// The way the state was saved.
enum Kept {
    Dump(Dump),
    Volume(Snapshot),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Dump,
    Volume,
}

/// Whether the relay runs while the database goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    RelayRuns,
    RelayIsStopped,
}

impl Way {
    async fn keep(self, stack: &PrivateStack, bed: &Testbed) -> Kept {
        match self {
            Self::Dump => Kept::Dump(Dump::of(&bed.database_url()).await),
            Self::Volume => Kept::Volume(stack.snapshot().await),
        }
    }
}

impl Kept {
    /// Restores the state, under the same name and on the same server.
    async fn restore(&self, stack: &PrivateStack, bed: &Testbed) {
        match self {
            Self::Volume(snapshot) => stack.restore(snapshot).await,
            Self::Dump(dump) => {
                let environment = stack.environment();
                // Beside the old one, so that no client ever sees an incomplete database.
                let part = format!("{}_part", bed.name());
                create_database(environment, &part).await;
                dump.restore(&environment.url_of_database(&part)).await;
                drop_database(environment, bed.name()).await;
                rename_database(environment, &part, bed.name()).await;
            }
        }
    }
}

/// A store with a relay, and a saved state of it.
struct Published {
    bed: Testbed,
    stack: PrivateStack,
    consumer: Follower,
    relay: RelayProcess,
    kept: Kept,
    /// The checkpoint of a follower when the state was saved.
    checkpoint: Checkpoint,
}

impl Published {
    async fn new(stack: PrivateStack, way: Way) -> Self {
        let bed = Testbed::on("restored", stack.environment().clone()).await;
        let consumer = bed.follow();
        let relay = RelayProcess::start(&bed.relay().impatient());
        let events = [opened("ann"), deposited(1), deposited(2), deposited(3)];
        append(bed.store(), "a", events).await;
        consumer.until_count(4).await;
        bed.until_copied().await;
        let taken = take(bed.store(), Follow::all(), 4).await.must("follow");
        let checkpoint = taken.last().must("follow four events").checkpoint.clone();
        let kept = way.keep(&stack, &bed).await;
        Self { stack, bed, consumer, relay, kept, checkpoint }
    }

    /// Restores the state, and appends events that did not exist before.
    async fn go_back(&mut self, meanwhile: Meanwhile) -> [Uuid; 2] {
        if meanwhile == Meanwhile::RelayIsStopped {
            assert!(self.relay.terminate().await.success());
        }
        self.kept.restore(&self.stack, &self.bed).await;
        let store = self.bed.store();
        [append(store, "a", [deposited(40)]).await[0], append(store, "b", [opened("bob")]).await[0]]
    }

    /// The relay's output before it ends by itself.
    async fn refusal(&mut self, meanwhile: Meanwhile) -> String {
        if meanwhile == Meanwhile::RelayRuns {
            assert!(!self.relay.ended().await.success(), "the relay ended without an error");
            return self.relay.event_with("halted", &[("cause", "diverged")]).await;
        }
        self.bed.relay().run(&["run"]).await.expect_err("the relay runs")
    }
}

async fn append(store: &Store, id: &str, events: impl IntoIterator<Item = NewEvent>) -> Vec<Uuid> {
    let append = Append::to(&account(id), ExpectedVersion::Any, events);
    let ids = append.events().map(|event| event.id().get()).collect();
    store.append(&append).await.must("append");
    ids
}

/// The ids of the next so many events after a checkpoint.
async fn followed(store: &Store, after: &Checkpoint, events: usize) -> Vec<Uuid> {
    let follow = Follow::all().after(after.clone());
    let taken = take(store, follow, events).await.must("follow");
    taken.iter().map(|followed| followed.event.id.get()).collect()
}

fn assert_nothing_twice(consumer: &Follower) {
    let ids: HashSet<_> = consumer.seen().iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), consumer.count(), "something came twice");
}

async fn with_loss(stack: PrivateStack, way: Way, meanwhile: Meanwhile) {
    let mut published = Published::new(stack, way).await;
    append(published.bed.store(), "a", [deposited(4), deposited(5), deposited(6)]).await;
    published.consumer.until_count(7).await;
    let taken = take(published.bed.store(), Follow::all(), 7).await.must("follow");
    let lost = taken.last().must("follow seven events").checkpoint.clone();
    let new = published.go_back(meanwhile).await;

    let said = published.refusal(meanwhile).await;
    assert!(said.contains("annals-relay rebase"), "{said}");
    let bed = &published.bed;
    let records =
        read_topic(&bed.environment().kafka, &bed.topic(CATEGORY), Isolation::Uncommitted).await;
    assert_eq!(records.len(), 7, "something of the new history is published");

    // This follower lost none of its events, the other one lost some.
    assert_eq!(followed(bed.store(), &published.checkpoint, 2).await, new);
    let told = take(bed.store(), Follow::all().after(lost), 1).await;
    let told = told.err().must("receive the error about missing events");
    assert!(!told.is_retryable(), "{told}");

    let arguments = ["rebase", "--reason", "the disk was full"];
    let listed = bed.relay().run(&[&arguments[..], &["--dry-run"]].concat()).await;
    let listed = listed.unwrap_or_else(|said| panic!("{said}"));
    for version in ["account-a version 4", "account-a version 5", "account-a version 6"] {
        assert!(listed.contains(version), "{listed}");
    }
    bed.relay().run(&arguments).await.unwrap_or_else(|said| panic!("{said}"));
    let mut relay = RelayProcess::start(&bed.relay());
    published.consumer.until_count(9).await;
    append(bed.store(), "b", [deposited(41)]).await;
    published.consumer.until_count(10).await;
    assert!(relay.terminate().await.success());
    assert_nothing_twice(&published.consumer);
}

async fn without_loss(stack: PrivateStack, way: Way, meanwhile: Meanwhile) {
    let mut published = Published::new(stack, way).await;
    let new = published.go_back(meanwhile).await;
    if meanwhile == Meanwhile::RelayIsStopped {
        published.relay.restart();
    }
    published.consumer.until_count(6).await;
    let store = published.bed.store();
    assert_eq!(followed(store, &published.checkpoint, 2).await, new);
    append(store, "b", [deposited(41)]).await;
    published.consumer.until_count(7).await;
    assert!(published.relay.terminate().await.success());
    assert_eq!(check(&published.bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_lacks_published_events_halts_a_relay_that_starts() {
    let stack = PrivateStack::postgres("15").await;
    with_loss(stack, Way::Dump, Meanwhile::RelayIsStopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_lacks_published_events_halts_a_relay_that_runs() {
    let stack = PrivateStack::postgres("15").await;
    with_loss(stack, Way::Dump, Meanwhile::RelayRuns).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_lacks_published_events_halts_a_relay_that_starts() {
    let stack = PrivateStack::postgres("15").await;
    with_loss(stack, Way::Volume, Meanwhile::RelayIsStopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_lacks_published_events_halts_a_relay_that_runs() {
    let stack = PrivateStack::postgres("18").await;
    with_loss(stack, Way::Volume, Meanwhile::RelayRuns).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_dump_of_everything_all_go_on_by_themselves() {
    let stack = PrivateStack::postgres("15").await;
    without_loss(stack, Way::Dump, Meanwhile::RelayIsStopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_dump_of_everything_a_relay_that_runs_goes_on_by_itself() {
    let stack = PrivateStack::postgres("15").await;
    without_loss(stack, Way::Dump, Meanwhile::RelayRuns).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_volume_with_everything_all_go_on_by_themselves() {
    let stack = PrivateStack::postgres("18").await;
    without_loss(stack, Way::Volume, Meanwhile::RelayIsStopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_volume_with_everything_a_relay_that_runs_goes_on_by_itself() {
    let stack = PrivateStack::postgres("15").await;
    without_loss(stack, Way::Volume, Meanwhile::RelayRuns).await;
}
