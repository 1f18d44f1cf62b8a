//! A standby is promoted that lacks published events: the relay halts before it publishes anything
//! of the new history, writes no checkpoint of the lost one into it, and continues once an operator
//! has seen the divergence. The same procedure recovers from lost checkpoints. With
//! `relay.durability = standby` nothing can diverge. If the standby had everything, relays and
//! followers continue by themselves.

use std::collections::HashSet;

use annals_store::{
    Append, Checkpoint, ExpectedVersion, Follow, NewEvent, Store, StoreOptions, StreamName,
};
use annals_testkit::{
    BaseBackup, CATEGORY, Component, Ending, Environment, FaultyLink, Follower, Isolation, Must,
    PrivateStack, RelayProcess, RelaySettings, Testbed, account, check, configure_topic,
    create_topic, delete_topic, deposited, deposited_large, opened, read_topic, take, until,
    write_records,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A primary and its standby, and a test bed on the primary.
pub(crate) struct Pair {
    pub(crate) bed: Testbed,
    pub(crate) primary: PrivateStack,
    pub(crate) standby: PrivateStack,
}

impl Pair {
    pub(crate) async fn new(label: &str) -> Self {
        Self::of(PrivateStack::up(&[Component::Postgres]).await, label).await
    }

    pub(crate) async fn of(primary: PrivateStack, label: &str) -> Self {
        let kafka = primary.environment().kafka.clone();
        Self::with_kafka(primary, kafka, label).await
    }

    /// With another Kafka than the shared one.
    pub(crate) async fn with_kafka(primary: PrivateStack, kafka: String, label: &str) -> Self {
        primary.end(Component::Postgres, Ending::Orderly).await;
        let standby = PrivateStack::standby_of(&primary).await;
        primary.start(Component::Postgres).await;
        let environment = Environment { kafka, ..primary.environment().clone() };
        let bed = Testbed::on(label, environment).await;
        Self { primary, standby, bed }
    }

    pub(crate) fn standby_url(&self) -> String {
        self.standby.environment().url_of_database(self.bed.name())
    }

    /// Waits until the standby has so many events.
    pub(crate) async fn until_replicated(&self, events: i64) -> PgConnection {
        loop {
            if let Ok(Some(connection)) = has_events(&self.standby_url(), events).await {
                return connection;
            }
        }
    }

    /// The standby receives nothing more from its primary.
    pub(crate) async fn cut_off(standby: &mut PgConnection) {
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

/// A pair with a relay that reaches the database by a name, which may lead to either of the two.
struct Named {
    pair: Pair,
    link: FaultyLink,
    settings: RelaySettings,
    relay: RelayProcess,
    consumer: Follower,
    /// The checkpoint of a follower after four events.
    checkpoint: Checkpoint,
}

impl Named {
    /// Four events are published, and the standby has them.
    async fn new(primary: PrivateStack, delivery: &str) -> Self {
        let pair = Pair::of(primary, "named").await;
        let (link, near) = FaultyLink::before(&pair.bed.database_url()).await;
        let delivery = ("ANNALS_RELAY__RELAY__DELIVERY", delivery);
        let settings =
            pair.bed.relay().impatient().database(&near).variable(delivery.0, delivery.1);
        let consumer = pair.bed.follow();
        let relay = RelayProcess::start(&settings);
        let store = pair.bed.store();
        let events = [opened("ann"), deposited(1), deposited(2), deposited(3)];
        append(store, &account("a"), events).await;
        consumer.until_count(4).await;
        pair.bed.until_copied().await;
        let taken = take(store, Follow::all(), 4).await.must("follow");
        let checkpoint = taken.last().must("follow four events").checkpoint.clone();
        drop(pair.until_replicated(4).await);
        Self { pair, link, settings, relay, consumer, checkpoint }
    }

    /// The standby becomes the primary, and the name leads to it, while the relay waits for the
    /// database.
    async fn fail_over(&mut self, ending: Ending) -> Testbed {
        self.relay.turn_page();
        self.link.cut();
        self.pair.primary.end(Component::Postgres, ending).await;
        self.relay.waits_for("database").await;
        let url = self.pair.standby_url();
        let mut standby = PgConnection::connect(&url).await.must("connect to the standby");
        sqlx::query(include_str!("sql/promote.sql")).execute(&mut standby).await.must("promote");
        self.link.lead_to(&self.pair.standby.postgres_address());
        self.pair.bed.moved_to(self.pair.standby.environment()).await
    }
}

/// The copies of the relay's checkpoints in the database.
async fn copies(bed: &Testbed) -> String {
    let copies = sqlx::query_scalar(include_str!("sql/copies.sql"));
    copies.fetch_one(bed.store().pool()).await.must("read the copies of checkpoints")
}

/// A connection to the database, if it has so many events; an error if it is down or incomplete.
async fn has_events(url: &str, events: i64) -> Result<Option<PgConnection>, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let asked = sqlx::query_scalar(include_str!("sql/has_events.sql")).bind(events);
    let has: bool = asked.fetch_one(&mut connection).await?;
    Ok(has.then_some(connection))
}

async fn incarnation(bed: &Testbed) -> String {
    let incarnation = sqlx::query_scalar(include_str!("sql/incarnation.sql"));
    incarnation.fetch_one(bed.store().pool()).await.must("read the incarnation")
}

/// Whether a checkpoint of an earlier incarnation is written that arrives late, as behind a pooler
/// that kept the statement until a server answered.
async fn writes_late_checkpoints(bed: &Testbed, earlier: &str) -> bool {
    let late = sqlx::query_scalar(include_str!("sql/late_checkpoints.sql")).bind(earlier);
    late.fetch_one(bed.store().pool()).await.must("write a late checkpoint")
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
    relay.waits_for("database").await;
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
    let listed = settings.must_run(&["rebase", "--dry-run"]).await;
    let diverging: Vec<&str> = listed.lines().filter(|line| line.starts_with("diverges")).collect();
    let [fourth, fifth, sixth] = diverging[..] else { panic!("{listed}") };
    assert!(fourth.contains("account-a version 4: published"), "{fourth}");
    assert!(!fourth.contains("the store has nothing"), "{fourth}");
    assert!(fifth.contains("version 5") && fifth.contains("the store has nothing"), "{fifth}");
    assert!(sixth.contains("version 6") && sixth.contains("the store has nothing"), "{sixth}");
    let said = refused(&settings).await;
    assert!(said.contains("annals-relay rebase"), "a dry run changes nothing: {said}");

    let said = settings.run(&arguments).await.unwrap_or_else(|said| panic!("{said}"));
    assert!(said.contains("begins a new generation"), "{said}");
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
    assert!(said.contains("and 0 published versions diverge"), "{said}");
    relay.restart();
    follower.until_count(4).await;
    let said = bed.relay().run(&["rebase", "--reason", "again"]).await.expect_err("a relay runs");
    assert!(said.contains(" run: a"), "{said}");
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_that_are_older_than_their_copies_halt_the_relay_until_it_is_rebased() {
    let bed = Testbed::new("older_checkpoints").await;
    let brokers = &bed.environment().kafka;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    append(bed.store(), &account("a"), [opened("ann"), deposited(1)]).await;
    follower.until_count(2).await;
    assert!(relay.terminate().await.success());
    let topic = bed.checkpoint_topic().await;
    let earlier = read_topic(brokers, &topic, Isolation::Committed).await;
    relay.restart();
    append(bed.store(), &account("a"), [deposited(2)]).await;
    follower.until_count(3).await;
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    // The topic is restored from a copy.
    delete_topic(brokers, &topic).await;
    create_topic(brokers, &topic, 8).await;
    configure_topic(brokers, &topic, "cleanup.policy", "compact").await;
    write_records(brokers, &topic, &earlier).await;
    let said = refused(&bed.relay()).await;
    assert!(said.contains("lost later checkpoints"), "{said}");
    bed.relay().must_run(&["rebase", "--reason", "the topic was restored"]).await;
    relay.restart();
    append(bed.store(), &account("a"), [deposited(3)]).await;
    follower.until_count(4).await;
    assert!(relay.terminate().await.success());
    assert_nothing_twice(&follower);
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

/// Ends a segment of WAL, and waits until so many walsenders say that their clients have flushed
/// it: a base backup says so of whole segments.
async fn flush_segment(primary: &mut PgConnection, walsenders: i64) {
    let end = sqlx::query_scalar(include_str!("sql/end_segment.sql"));
    let end: String = end.fetch_one(&mut *primary).await.must("end a segment");
    let count = include_str!("sql/walsenders_at.sql");
    let have_flushed = async || {
        let count = sqlx::query_scalar(count).bind(&end).fetch_one(&mut *primary);
        let count: i64 = count.await.must("ask the primary");
        count >= walsenders
    };
    until("the segment is flushed", have_flushed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_and_a_base_backup_are_no_standbys_and_neither_is_one_of_another_name() {
    let pair =
        Pair::of(PrivateStack::postgres_with("15", &["wal_level=logical"]).await, "no_standby");
    let pair = pair.await;
    let (bed, a) = (&pair.bed, account("a"));
    let follower = bed.follow();
    let settings = bed.relay().variable("ANNALS_RELAY__RELAY__DURABILITY", "standby");
    append(bed.store(), &a, [opened("ann")]).await;
    drop(pair.until_replicated(1).await);
    pair.standby.end(Component::Postgres, Ending::Orderly).await;
    let mut publisher = PgConnection::connect(&bed.database_url()).await.must("connect");
    sqlx::raw_sql(include_str!("sql/create_publication.sql"))
        .execute(&mut publisher)
        .await
        .must("publish");
    let subscriber = Testbed::new("subscriber").await;
    let subscribe = include_str!("sql/create_subscription_only.sql");
    let subscribe = AssertSqlSafe(subscribe.replace("the_source", &bed.database_url()));
    sqlx::raw_sql(subscribe).execute(subscriber.store().pool()).await.must("subscribe");
    let backup = BaseBackup::of(&bed.database_url()).await;
    append(bed.store(), &a, [deposited(1)]).await;
    flush_segment(&mut publisher, 2).await;
    let mut relay = RelayProcess::start(&settings);
    relay.event("publishing").await;
    for _ in 0..3 {
        flush_segment(&mut publisher, 2).await;
    }
    relay.waits_for("standby").await;
    assert_eq!(follower.count(), 0);
    drop(backup);
    pair.standby.start(Component::Postgres).await;
    follower.until_count(2).await;
    assert!(relay.terminate().await.success());
    let others = settings.variable("ANNALS_RELAY__RELAY__STANDBYS", "elsewhere, nowhere");
    let relay = RelayProcess::start(&others);
    append(bed.store(), &a, [deposited(2)]).await;
    let line = relay.waits_for("standby").await;
    assert!(line.contains("elsewhere"), "{line}");
    assert_eq!(follower.count(), 2);
    let ended = sqlx::raw_sql(include_str!("sql/drop_subscription.sql"));
    ended.execute(subscriber.store().pool()).await.must("drop the subscription");
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
    relay.waits_for("standby").await;
    assert_eq!(follower.count(), 1);
    pair.standby.start(Component::Postgres).await;
    follower.until_count(2).await;
    relay.has_waited_for("standby").await;
    let of_standby = bed.relay().database(&pair.standby_url());
    let said = of_standby.run_for_code(&["check"]).await.1;
    assert!(said.contains("error    database  the server is a standby: "), "{said}");
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

/// The relay lives through the promotion of a standby that lags, and reconnects by name.
async fn nothing_of_the_lost_history_is_written(primary: PrivateStack, delivery: &str) {
    let mut named = Named::new(primary, delivery).await;
    let url = named.pair.standby_url();
    let mut standby = PgConnection::connect(&url).await.must("connect to the standby");
    Pair::cut_off(&mut standby).await;
    let (a, b) = (account("a"), account("b"));
    let lost = [deposited(4), deposited(5), deposited(6)];
    append(named.pair.bed.store(), &a, lost).await;
    named.consumer.until_count(7).await;
    let lost = incarnation(&named.pair.bed).await;
    let promoted = named.fail_over(Ending::Crash).await;
    append(promoted.store(), &a, [deposited(40)]).await;
    append(promoted.store(), &b, [opened("bob")]).await;
    let before = copies(&promoted).await;
    assert!(!writes_late_checkpoints(&promoted, &lost).await);
    named.link.mend();

    assert!(!named.relay.ended().await.success(), "the relay ended without an error");
    named.relay.event_with("halted", &[("cause", "diverged")]).await;
    assert_eq!(copies(&promoted).await, before, "a place of the lost history is written");
    let records = read_topic(
        &promoted.environment().kafka,
        &promoted.topic(CATEGORY),
        Isolation::Uncommitted,
    )
    .await;
    assert_eq!(records.len(), 7, "something of the new history is published");

    let said = named.settings.must_run(&["rebase", "--reason", "the primary burned down"]).await;
    let diverging = said.lines().filter(|line| line.starts_with("diverges")).count();
    assert_eq!(diverging, 3, "{said}");
    named.relay.restart();
    named.consumer.until_count(9).await;
    append(promoted.store(), &b, [deposited(41)]).await;
    named.consumer.until_count(10).await;
    assert!(named.relay.terminate().await.success());
    assert_nothing_twice(&named.consumer);
    assert!(named.consumer.caught_up(&promoted.recorded().await).await, "something is lost");
}

/// The relay lives through a promotion that loses nothing, and so does a follower.
async fn all_go_on_by_themselves(primary: PrivateStack, ending: Ending) {
    let mut named = Named::new(primary, "exactly-once").await;
    let promoted = named.fail_over(ending).await;
    let a = account("a");
    append(promoted.store(), &a, [deposited(4)]).await;
    named.link.mend();
    named.consumer.until_count(5).await;
    let follow = Follow::all().after(named.checkpoint.clone());
    let taken = take(promoted.store(), follow, 1).await.must("continue");
    assert_eq!(taken[0].event.version.get(), 4);
    let follow = Follow::all().after(taken[0].checkpoint.clone());
    append(promoted.store(), &a, [deposited(5)]).await;
    let taken = take(promoted.store(), follow, 1).await.must("continue");
    assert_eq!(taken[0].event.version.get(), 5);
    named.consumer.until_count(6).await;
    assert!(named.relay.terminate().await.success());

    named.relay.restart();
    append(promoted.store(), &a, [deposited(6)]).await;
    named.consumer.until_count(7).await;
    assert!(named.relay.terminate().await.success());
    assert_eq!(check(&promoted.history(Vec::new()).await), []);
}

/// The standby has the event, and lacks its quarantine entry, although the checkpoint in Kafka has
/// passed both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantine_entry_that_a_promotion_loses_halts_the_relay_and_its_events_are_published() {
    let primary = PrivateStack::up(&[Component::Postgres]).await;
    let mut named = Named::new(primary, "exactly-once").await;
    let (brokers, topic) =
        (named.pair.bed.environment().kafka.clone(), named.pair.bed.topic(CATEGORY));
    configure_topic(&brokers, &topic, "max.message.bytes", "3000").await;
    assert!(named.relay.terminate().await.success());
    let a = account("a");
    append(named.pair.bed.store(), &a, [deposited_large(4), deposited(5)]).await;
    for number in 0..60 {
        append(named.pair.bed.store(), &account(number), [opened("bob")]).await;
    }
    let mut standby = named.pair.until_replicated(66).await;
    Pair::cut_off(&mut standby).await;
    // Checkpoints of all shards follow the entry.
    let batches = ("ANNALS_RELAY__RELAY__BATCH_EVENTS_MAX", "5");
    named.relay =
        RelayProcess::start(&named.settings.clone().instance("b").variable(batches.0, batches.1));
    named.relay.quarantines("account-a").await;
    named.consumer.until_count(64).await;

    configure_topic(&brokers, &topic, "max.message.bytes", "1000000").await;
    let promoted = named.fail_over(Ending::Crash).await;
    named.link.mend();
    assert!(!named.relay.ended().await.success(), "the relay goes on without the entry");
    named.relay.event_with("halted", &[("cause", "quarantine_lost")]).await;
    named.settings.must_run(&["rebase", "--reason", "the primary burned down"]).await;
    named.relay.restart();
    named.consumer.until_count(66).await;
    append(promoted.store(), &a, [deposited(6)]).await;
    named.consumer.until_count(67).await;
    assert!(named.relay.terminate().await.success());
    assert_nothing_twice(&named.consumer);
    assert_eq!(check(&promoted.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_lives_through_a_lagging_promotion_writes_nothing_of_the_lost_history() {
    let primary = PrivateStack::postgres("15").await;
    nothing_of_the_lost_history_is_written(primary, "exactly-once").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_on_postgresql_18_that_lives_through_a_lagging_promotion_writes_nothing_of_it() {
    let primary = PrivateStack::postgres("18").await;
    nothing_of_the_lost_history_is_written(primary, "exactly-once").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_delivers_at_least_once_writes_nothing_of_the_lost_history_either() {
    let primary = PrivateStack::up(&[Component::Postgres]).await;
    nothing_of_the_lost_history_is_written(primary, "at-least-once").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_clean_switchover_all_go_on_by_themselves() {
    let primary = PrivateStack::postgres("18").await;
    all_go_on_by_themselves(primary, Ending::Orderly).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_promotion_without_loss_all_go_on_by_themselves() {
    let primary = PrivateStack::postgres("15").await;
    all_go_on_by_themselves(primary, Ending::Crash).await;
}
