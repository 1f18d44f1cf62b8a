//! A standby is promoted that had not got everything that was published: the relay halts before it publishes anything of
//! the new history, and goes on once somebody has seen what diverges. The same way leads out of lost checkpoints. With
//! `relay.durability = standby` nothing can diverge.

use std::collections::HashSet;

use annals_store::{Append, ExpectedVersion, NewEvent, Store, StoreOptions, StreamName};
use annals_testkit::{
    CATEGORY, Component, Ending, Follower, Isolation, Must, PrivateStack, RelayProcess,
    RelaySettings, Testbed, account, check, delete_topic, deposited, opened, read_topic,
};
use sqlx::{Connection, PgConnection};

/// A primary and its standby, and a test bed on the primary.
struct Pair {
    primary: PrivateStack,
    standby: PrivateStack,
    bed: Testbed,
}

impl Pair {
    async fn new(label: &str) -> Self {
        let primary = PrivateStack::up(&[Component::Postgres]).await;
        primary.end(Component::Postgres, Ending::Orderly).await;
        let standby = PrivateStack::standby_of(&primary).await;
        primary.start(Component::Postgres).await;
        let bed = Testbed::on(label, primary.environment().clone()).await;
        Self { primary, standby, bed }
    }

    fn standby_url(&self) -> String {
        self.standby.environment().url_of_database(self.bed.name())
    }

    /// Waits until the standby has so many events.
    async fn until_replicated(&self, events: i64) -> PgConnection {
        loop {
            if let Ok(Some(connection)) = has_events(&self.standby_url(), events).await {
                return connection;
            }
        }
    }

    /// The standby gets nothing more from its primary.
    async fn cut_off(standby: &mut PgConnection) {
        let stop = include_str!("sql/stop_following.sql");
        sqlx::query(stop).execute(&mut *standby).await.must("stop following");
        let reload = include_str!("sql/reload.sql");
        sqlx::query(reload).execute(&mut *standby).await.must("reload");
        let question = include_str!("sql/is_cut_off.sql");
        loop {
            let is_cut_off: bool =
                sqlx::query_scalar(question).fetch_one(&mut *standby).await.must("ask");
            if is_cut_off {
                return;
            }
        }
    }
}

/// A connection to the database, if it has so many events; an error where it is not there itself, or not whole.
async fn has_events(url: &str, events: i64) -> Result<Option<PgConnection>, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let asked = sqlx::query_scalar(include_str!("sql/has_events.sql")).bind(events);
    let has: bool = asked.fetch_one(&mut connection).await?;
    Ok(has.then_some(connection))
}

async fn append(store: &Store, stream: &StreamName, events: impl IntoIterator<Item = NewEvent>) {
    let append = Append::to(stream, ExpectedVersion::Any, events);
    store.append(&append).await.must("append");
}

fn assert_nothing_twice(follower: &Follower) {
    let ids: HashSet<_> = follower.seen().iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), follower.count(), "something came twice");
}

async fn refused(settings: &RelaySettings) -> String {
    settings.run(&["run"]).await.expect_err("the relay runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_that_lagged_halts_the_relay_until_it_is_rebased() {
    let pair = Pair::new("forked").await;
    let (bed, a) = (&pair.bed, account("a"));
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    append(bed.store(), &a, [opened("ann"), deposited(1), deposited(2), deposited(3)]).await;
    follower.until_count(4).await;
    let mut standby = pair.until_replicated(4).await;
    Pair::cut_off(&mut standby).await;
    let lost = [deposited(4), deposited(5), deposited(6)];
    append(bed.store(), &a, lost).await;
    follower.until_count(7).await;
    pair.primary.end(Component::Postgres, Ending::Crash).await;
    relay.logged("waiting for the database").await;
    relay.kill().await;
    sqlx::query(include_str!("sql/promote.sql")).execute(&mut standby).await.must("promote");

    let promoted = StoreOptions::default().connect(&pair.standby_url()).await.must("connect");
    append(&promoted, &a, [deposited(40)]).await;
    append(&promoted, &account("b"), [opened("bob")]).await;
    let settings = bed.relay().database(&pair.standby_url());
    let said = refused(&settings).await;
    assert!(said.contains("annals-relay rebase"), "{said}");
    let records =
        read_topic(&bed.environment().kafka, &bed.topic(CATEGORY), Isolation::Uncommitted).await;
    assert_eq!(records.len(), 7, "something of the new history is published");

    let arguments = ["rebase", "--reason", "the primary burned down"];
    let listed = settings.run(&[&arguments[..], &["--dry-run"]].concat()).await;
    let listed = listed.unwrap_or_else(|said| panic!("{said}"));
    let diverging: Vec<&str> = listed.lines().filter(|line| line.starts_with("diverges")).collect();
    let [fourth, fifth, sixth] = diverging[..] else { panic!("{listed}") };
    assert!(fourth.contains("account-a version 4: published"), "{fourth}");
    assert!(!fourth.contains("the store has nothing"), "{fourth}");
    assert!(fifth.contains("version 5") && fifth.contains("the store has nothing"), "{fifth}");
    assert!(sixth.contains("version 6") && sixth.contains("the store has nothing"), "{sixth}");
    let said = refused(&settings).await;
    assert!(said.contains("annals-relay rebase"), "a dry run changes nothing: {said}");

    let said = settings.run(&arguments).await.unwrap_or_else(|said| panic!("{said}"));
    assert!(said.contains("begins anew"), "{said}");
    let mut relay = RelayProcess::start(&settings);
    follower.until_count(9).await;
    append(&promoted, &a, [deposited(41)]).await;
    follower.until_count(10).await;
    assert!(relay.terminate().await.success());
    assert_nothing_twice(&follower);
    let versions: Vec<i64> = follower
        .seen()
        .iter()
        .filter(|event| *event.stream == *a.as_str())
        .map(|event| event.version.get())
        .collect();
    assert_eq!(versions, [0, 1, 2, 3, 4, 5, 6, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_that_are_lost_halt_the_relay_until_it_is_rebased() {
    let bed = Testbed::new("lost_checkpoints").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    append(bed.store(), &account("a"), [opened("ann"), deposited(1)]).await;
    append(bed.store(), &account("b"), [opened("bob")]).await;
    follower.until_count(3).await;
    assert!(relay.terminate().await.success());
    delete_topic(&bed.environment().kafka, &bed.checkpoint_topic().await).await;
    append(bed.store(), &account("a"), [deposited(2)]).await;
    let said = refused(&bed.relay()).await;
    assert!(said.contains("annals-relay rebase"), "{said}");
    let said = bed.relay().run(&["rebase", "--reason", " "]).await.expect_err("no reason is given");
    assert!(said.contains("--reason must not be empty"), "{said}");
    let said = bed.relay().run(&["rebase", "--reason", "the topic was deleted"]).await;
    let said = said.unwrap_or_else(|said| panic!("{said}"));
    assert!(said.contains("the store has 3 of these events, and 0 published versions"), "{said}");
    relay.restart();
    follower.until_count(4).await;
    let said = bed.relay().run(&["rebase", "--reason", "again"]).await.expect_err("a relay runs");
    assert!(said.contains(" run: a"), "{said}");
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_standby_asked_for_nothing_is_published_that_no_standby_has() {
    let pair = Pair::new("on_standby").await;
    let (bed, a) = (&pair.bed, account("a"));
    let follower = bed.follow();
    let settings = bed.relay().variable("ANNALS_RELAY__RELAY__DURABILITY", "standby");
    let mut relay = RelayProcess::start(&settings);
    append(bed.store(), &a, [opened("ann")]).await;
    follower.until_count(1).await;
    drop(pair.until_replicated(1).await);
    pair.standby.end(Component::Postgres, Ending::Orderly).await;
    append(bed.store(), &a, [deposited(1)]).await;
    relay.logged("waiting for a standby of the database").await;
    assert_eq!(follower.count(), 1);
    pair.standby.start(Component::Postgres).await;
    follower.until_count(2).await;
    relay.logged("after waiting for a standby of the database").await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}
