//! A store moves into another cluster: by a dump, by logical replication, by an upgrade. There
//! append, follow and relay refuse until an operator declares that the store lives there now
//! (`annals-relay adopt`). Then all of them continue, and no event is lost or repeated, also if the
//! cluster's transaction ids begin anew.

use std::collections::HashSet;

use annals_store::{Append, Checkpoint, ExpectedVersion, Follow, NewEvent, Store};
use annals_testkit::{
    CATEGORY, Component, Dump, Ending, FaultyLink, Follower, Must, PrivateStack, RelayProcess,
    RelaySettings, Testbed, account, check, copy_database, create_database, deposited,
    drop_database, opened, take, until,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

const ADOPT: [&str; 3] = ["adopt", "--reason", "the old machine is retired"];
/// The number of events before the move, the last of them not yet published.
const BEFORE: usize = 6;

async fn append(store: &Store, id: &str, events: impl IntoIterator<Item = NewEvent>) -> Vec<Uuid> {
    let append = Append::to(&account(id), ExpectedVersion::Any, events);
    let ids = append.events().map(|event| event.id().get()).collect();
    store.append(&append).await.must("append");
    ids
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.must("connect")
}

/// The ids of the next so many events.
async fn followed(store: &Store, follow: Follow, events: usize) -> Vec<Uuid> {
    let taken = take(store, follow, events).await.must("follow");
    taken.iter().map(|followed| followed.event.id.get()).collect()
}

/// A store with a relay that reaches the database through a link that can lead elsewhere.
struct Published {
    bed: Testbed,
    source: PrivateStack,
    link: FaultyLink,
    settings: RelaySettings,
    relay: RelayProcess,
    consumer: Follower,
    /// The checkpoint of a follower that has had all but the last event.
    checkpoint: Checkpoint,
    /// The last event, which neither the follower nor the relay had.
    waiting: Uuid,
}

impl Published {
    /// The relay is cut off, and the source still runs.
    async fn new(source: PrivateStack) -> Self {
        let bed = Testbed::on("moved", source.environment().clone()).await;
        // The events have ids that a younger cluster has not issued yet.
        let use_up = include_str!("sql/use_up_transaction_ids.sql");
        sqlx::raw_sql(use_up).execute(bed.store().pool()).await.must("use up transaction ids");
        let (link, near) = FaultyLink::before(&bed.database_url()).await;
        let settings = bed.relay().impatient().database(&near);
        let consumer = bed.follow();
        let mut relay = RelayProcess::start(&settings);
        let events = [opened("ann"), deposited(1), deposited(2)];
        append(bed.store(), "a", events).await;
        append(bed.store(), "b", [opened("bob"), deposited(1)]).await;
        consumer.until_count(BEFORE - 1).await;
        bed.until_copied().await;
        let taken = take(bed.store(), Follow::all(), BEFORE - 1).await.must("follow");
        let checkpoint = taken.last().must("follow some events").checkpoint.clone();
        relay.turn_page();
        link.cut();
        relay.waits_for("database").await;
        let waiting = append(bed.store(), "a", [deposited(3)]).await[0];
        Self { source, bed, link, settings, relay, consumer, checkpoint, waiting }
    }

    /// The database is on another server now, complete.
    async fn has_come_to(mut self, target: &PrivateStack) {
        let bed = self.bed.moved_to(target.environment()).await;
        self.link.lead_to(&target.postgres_address());
        self.link.mend();
        self.everybody_refuses(&bed).await;
        let adopted = self.settings.run(&ADOPT).await;
        adopted.unwrap_or_else(|said| panic!("{said}"));
        self.everybody_goes_on(&bed).await;
        a_new_deployment_publishes_all(&bed).await;
        assert_eq!(check(&bed.history(Vec::new()).await), []);
    }

    async fn everybody_refuses(&mut self, bed: &Testbed) {
        assert!(!self.relay.ended().await.success(), "the relay ended without an error");
        self.relay.event_with("halted", &[("cause", "other_cluster")]).await;
        let said = self.settings.run(&["run"]).await.expect_err("the relay runs");
        assert!(said.contains("annals-relay adopt"), "{said}");
        let said = self.settings.run_for_code(&["check"]).await.1;
        assert!(said.contains("the store belongs to another database cluster: "), "{said}");
        let new = Append::to(&account("a"), ExpectedVersion::Any, [deposited(40)]);
        let said = bed.store().append(&new).await.expect_err("it is appended");
        assert!(said.to_string().contains("annals-relay adopt"), "{said}");
        assert!(!said.is_retryable(), "{said}");
        for follow in [Follow::all(), Follow::all().after(self.checkpoint.clone())] {
            let said = take(bed.store(), follow, 1).await.err().must("be refused");
            assert!(said.to_string().contains("annals-relay adopt"), "{said}");
            assert!(!said.is_retryable(), "{said}");
        }
        assert_eq!(self.consumer.count(), BEFORE - 1, "something is published");
    }

    async fn everybody_goes_on(&mut self, bed: &Testbed) {
        let highest = bed.recorded().await.last().must("find the last event").position;
        let mut expected = vec![self.waiting];
        expected.extend(append(bed.store(), "a", [deposited(40)]).await);
        expected.extend(append(bed.store(), "c", [opened("cid")]).await);
        let recorded = bed.recorded().await;
        let new = recorded.iter().filter(|event| event.position > highest).count();
        assert_eq!(new, 2, "new events stand below old ones");
        let follow = Follow::all().after(self.checkpoint.clone());
        assert_eq!(followed(bed.store(), follow, 3).await, expected);
        let all: Vec<Uuid> = recorded.iter().map(|event| event.id).collect();
        assert_eq!(followed(bed.store(), Follow::all(), all.len()).await, all);

        self.relay.restart();
        self.consumer.until_count(BEFORE + 2).await;
        append(bed.store(), "c", [deposited(1)]).await;
        self.consumer.until_count(BEFORE + 3).await;
        assert!(self.relay.terminate().await.success());
    }
}

/// Another deployment with topics of its own begins with the first event ever recorded.
async fn a_new_deployment_publishes_all(bed: &Testbed) {
    let prefix = format!("{}second-", bed.topic_prefix());
    let topic = format!("{prefix}{CATEGORY}");
    let consumer = Follower::start(&bed.environment().kafka, &[&topic]);
    let settings = bed
        .relay()
        .instance("second")
        .variable("ANNALS_RELAY__RELAY__DEPLOYMENT", "second")
        .variable("ANNALS_RELAY__TOPICS__PREFIX", &prefix);
    let mut relay = RelayProcess::start(&settings);
    let all: HashSet<Uuid> = bed.recorded().await.into_iter().map(|event| event.id).collect();
    consumer.until_count(all.len()).await;
    assert!(relay.terminate().await.success());
    let seen: HashSet<Uuid> = consumer.seen().iter().map(|event| event.event_id).collect();
    assert_eq!((seen, consumer.count()), (all.clone(), all.len()));
}

/// A cluster with the roles of Annals, as after a restore of `pg_dumpall --roles-only`.
async fn younger(version: &str) -> PrivateStack {
    let target = PrivateStack::postgres(version).await;
    let roles = Testbed::on("roles", target.environment().clone()).await;
    drop(roles);
    target
}

async fn by_a_dump_into(version: &str) {
    let published = Published::new(PrivateStack::postgres("15").await).await;
    let target = younger(version).await;
    let url = target.environment().url_of_database(published.bed.name());
    let dump = Dump::of(&published.bed.database_url()).await;
    published.source.end(Component::Postgres, Ending::Orderly).await;
    create_database(target.environment(), published.bed.name()).await;
    dump.restore(&url).await;
    published.has_come_to(&target).await;
}

async fn execute(connection: &mut PgConnection, statement: &'static str, action: &str) {
    sqlx::raw_sql(statement).execute(connection).await.must(action);
}

/// Waits until a copy has everything, up to its source's current log.
async fn until_replicated(copy: &mut PgConnection, events: usize) {
    let question = include_str!("sql/is_replicated.sql");
    let is_replicated = async || {
        let asked = sqlx::query_scalar(question).bind(i64::try_from(events).unwrap());
        asked.fetch_one(&mut *copy).await.must("query the replicated events")
    };
    until("all is replicated", is_replicated).await;
}

async fn by_logical_replication_into(version: &str) {
    let published = Published::new(PrivateStack::postgres("15").await).await;
    let target = younger(version).await;
    let source_url = published.bed.database_url();
    let url = target.environment().url_of_database(published.bed.name());
    create_database(target.environment(), published.bed.name()).await;
    Dump::of_schema(&source_url).await.restore(&url).await;
    let mut source = connect(&source_url).await;
    execute(&mut source, include_str!("sql/create_publication.sql"), "publish").await;
    let mut copy = connect(&url).await;
    let subscribe = include_str!("sql/create_subscription.sql").replace("the_source", &source_url);
    sqlx::raw_sql(AssertSqlSafe(subscribe)).execute(&mut copy).await.must("subscribe");
    until_replicated(&mut copy, BEFORE).await;
    execute(&mut copy, include_str!("sql/drop_subscription.sql"), "end the subscription").await;
    published.source.end(Component::Postgres, Ending::Orderly).await;
    published.has_come_to(&target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_dump_into_a_younger_cluster() {
    by_a_dump_into("15").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_dump_into_a_younger_cluster_of_a_later_version() {
    by_a_dump_into("18").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_logical_replication_into_a_younger_cluster() {
    by_logical_replication_into("15").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_logical_replication_into_a_younger_cluster_of_a_later_version() {
    by_logical_replication_into("18").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_an_upgrade() {
    upgraded(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs pip, which downloads pg_upgrade of version 18: make test-upgrade"]
async fn by_an_upgrade_to_a_later_version() {
    upgraded(Some("18")).await;
}

async fn upgraded(version: Option<&str>) {
    let published = Published::new(PrivateStack::up(&[Component::Postgres]).await).await;
    published.source.end(Component::Postgres, Ending::Orderly).await;
    let target = PrivateStack::upgrade_of(&published.source, version).await;
    published.has_come_to(&target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_for_staging_never_publishes_into_topics_of_production() {
    let bed = Testbed::new("production").await;
    let consumer = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    append(bed.store(), "a", [opened("ann"), deposited(1)]).await;
    consumer.until_count(2).await;
    assert!(relay.terminate().await.success());
    let staging = format!("{}_staging", bed.name());
    copy_database(bed.environment(), bed.name(), &staging).await;
    let url = bed.environment().url_of_database(&staging);
    let settings = bed.relay().database(&url).instance("staging");
    let adopted = settings.run(&["adopt", "--copy", "--reason", "for staging"]).await;
    adopted.unwrap_or_else(|said| panic!("{said}"));

    let copy = Store::connect(&url).await.must("connect to the copy");
    append(&copy, "a", [deposited(20)]).await;
    let mut refused = RelayProcess::start(&settings);
    let said = refused.quarantines("account").await;
    assert!(said.contains(&bed.topic_prefix()), "{said}");
    assert!(refused.terminate().await.success());
    let prefix = format!("{}staging-", bed.topic_prefix());
    let elsewhere = Follower::start(&bed.environment().kafka, &[&format!("{prefix}{CATEGORY}")]);
    let own = settings.variable("ANNALS_RELAY__TOPICS__PREFIX", &prefix);
    let mut staging_relay = RelayProcess::start(&own);
    elsewhere.until_count(3).await;
    assert!(staging_relay.terminate().await.success());

    relay.restart();
    append(bed.store(), "a", [deposited(2)]).await;
    consumer.until_count(3).await;
    assert!(relay.terminate().await.success());
    drop(copy);
    drop_database(bed.environment(), &staging).await;
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}
