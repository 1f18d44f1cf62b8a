//! Two publications never share a topic unnoticed: no other store, no other deployment, no copy of
//! the database. The second one refuses and names the first; another prefix is a publication of its
//! own.

use annals_store::{Append, ExpectedVersion, NewEvent, Store, StoreOptions, StreamName};
use annals_testkit::{
    ACCESS_LISTS, CATEGORY, Follower, Isolation, Must, RelayProcess, RelaySettings, Right, Testbed,
    TwoDoors, account, allow, deny, deposited, opened, read_topic,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

const SHARED: &str = "ANNALS_RELAY__TOPICS__SHARED";
const SOURCE: &str = "ANNALS_RELAY__RELAY__SOURCE";
const DEPLOYMENT: &str = "ANNALS_RELAY__RELAY__DEPLOYMENT";

fn ledger() -> StreamName {
    StreamName::new("ledger-1").must("name a stream")
}

async fn append(store: &Store, stream: &StreamName, events: impl IntoIterator<Item = NewEvent>) {
    let events = events.into_iter().map(|event| event.for_category(stream.category()));
    let append = Append::to(stream, ExpectedVersion::Any, events);
    store.append(&append).await.must("append");
}

async fn store_id(store: &Store) -> Uuid {
    let id = sqlx::query_scalar(include_str!("sql/store_id.sql"));
    id.fetch_one(store.pool()).await.must("read the store's id")
}

async fn refused(settings: &RelaySettings, arguments: &[&str]) -> String {
    settings.run(arguments).await.expect_err("it is not refused")
}

async fn records(bed: &Testbed, topic: &str) -> usize {
    read_topic(&bed.environment().kafka, topic, Isolation::Uncommitted).await.len()
}

/// Two stores whose relays have the same settings, topics and deployment included.
async fn alike(label: &str) -> (Testbed, Testbed, RelaySettings) {
    let (first, second) = (Testbed::new(label).await, Testbed::new(label).await);
    let settings = second.relay().topic_prefix(&first.topic_prefix()).claims(&first.claims_topic());
    (first, second, settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_with_the_same_names_publish_what_is_their_own_and_the_second_refuses_the_rest()
{
    let (first, second, settings) = alike("same_names").await;
    append(first.store(), &account("a"), [opened("ann"), deposited(1)]).await;
    let waiting = (0..100).map(deposited);
    append(second.store(), &ledger(), waiting).await;
    let accounts = first.follow();
    let ledgers = Follower::start(&first.environment().kafka, &[&first.topic("ledger")]);
    let mut owner = RelayProcess::start(&first.relay());
    accounts.until_count(2).await;
    let mut relay = RelayProcess::start(&settings);
    ledgers.until_count(100).await;

    append(second.store(), &account("b"), [opened("bob")]).await;
    let said = relay.quarantines("account").await;
    let id = store_id(first.store()).await;
    assert!(said.contains(&format!("of store {id}")) && said.contains("source annals"), "{said}");
    assert!(said.contains("topics.prefix"), "{said}");
    append(second.store(), &ledger(), [deposited(100)]).await;
    ledgers.until_count(101).await;
    append(first.store(), &account("a"), [deposited(2)]).await;
    accounts.until_count(3).await;
    assert_eq!(records(&first, &first.topic(CATEGORY)).await, 3);

    // After its owner has released a topic, another store may claim it.
    let release = ["release-topics", "--reason", "moved elsewhere"];
    let said = refused(&first.relay(), &release).await;
    assert!(said.contains(" run: a"), "{said}");
    assert!(owner.terminate().await.success());
    let listed = first.relay().must_run(&[&release[..], &["--dry-run"]].concat()).await;
    assert!(listed.contains(&first.topic(CATEGORY)) && listed.contains("nothing was"), "{listed}");
    first.relay().must_run(&release).await;
    accounts.until_count(4).await;
    let actions = sqlx::query(include_str!("sql/actions.sql")).fetch_all(first.store().pool());
    assert_eq!(actions.await.must("read the recorded actions").len(), 1);
    assert!(relay.terminate().await.success());
    let said = {
        let mut late = RelayProcess::start(&first.relay());
        append(first.store(), &account("a"), [deposited(3)]).await;
        let said = late.quarantines("account").await;
        assert!(late.terminate().await.success());
        said
    };
    assert!(said.contains(&format!("of store {}", store_id(second.store()).await)), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_share_topics_where_all_of_them_say_so_and_have_sources_of_their_own() {
    let (first, second, settings) = alike("shared_topics").await;
    let follower = first.follow();
    append(first.store(), &account("a"), [opened("ann")]).await;
    append(second.store(), &account("b"), [opened("bob")]).await;
    let shared = |settings: RelaySettings, source: &str| {
        settings.variable(SHARED, "true").variable(SOURCE, source)
    };
    let mut owner = RelayProcess::start(&shared(first.relay(), "cell-1"));
    follower.until_count(1).await;
    let mut relay = RelayProcess::start(&settings);
    let said = relay.quarantines("account").await;
    assert!(said.contains("topics.prefix"), "{said}");
    assert!(relay.terminate().await.success());
    let same = shared(settings.clone(), "cell-1")
        .variable("ANNALS_RELAY__LOG__LEVEL", "info,annals_relay::publish::quarantined=debug");
    let mut relay = RelayProcess::start(&same);
    let said = relay.event("category_still_quarantined").await;
    assert!(said.contains("relay.source"), "{said}");
    assert!(relay.terminate().await.success());
    assert_eq!(follower.count(), 1);
    let mut relay = RelayProcess::start(&shared(settings, "cell-2"));
    follower.until_count(2).await;
    append(first.store(), &account("a"), [deposited(1)]).await;
    append(second.store(), &account("b"), [deposited(1)]).await;
    follower.until_count(4).await;
    assert!(owner.terminate().await.success());
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_prefix_is_a_publication_of_its_own_and_the_first_one_goes_on_where_it_was() {
    let bed = Testbed::new("another_prefix").await;
    let prefix = format!("{}other.", bed.topic_prefix());
    append(bed.store(), &account("a"), [opened("ann"), deposited(1), deposited(2)]).await;
    let first = bed.follow();
    let other = Follower::start(&bed.environment().kafka, &[&format!("{prefix}{CATEGORY}")]);
    let mut relay = RelayProcess::start(&bed.relay());
    first.until_count(3).await;
    assert!(relay.terminate().await.success());

    let elsewhere = bed.relay().topic_prefix(&prefix).in_directory("other");
    let mut relay = RelayProcess::start(&elsewhere);
    other.until_count(3).await;
    append(bed.store(), &account("a"), [deposited(3)]).await;
    other.until_count(4).await;
    assert!(relay.terminate().await.success());
    let status = elsewhere.must_run(&["status"]).await;
    assert!(status.contains(&format!("deployment test@{prefix}")), "{status}");
    assert!(status.contains("0 events wait"), "{status}");
    let status = bed.relay().must_run(&["status"]).await;
    assert!(status.contains("1 events wait"), "{status}");

    // Both at once, with one name of the instance.
    let mut relays = [bed.relay(), elsewhere].map(|settings| RelayProcess::start(&settings));
    first.until_count(4).await;
    append(bed.store(), &account("a"), [deposited(4)]).await;
    first.until_count(5).await;
    other.until_count(5).await;
    for relay in &mut relays {
        assert!(relay.terminate().await.success());
    }
    for follower in [first, other] {
        let versions: Vec<i64> = follower.seen().iter().map(|event| event.version.get()).collect();
        assert_eq!(versions, [0, 1, 2, 3, 4], "nothing is lost and nothing comes twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistyped_deployment_refuses_and_names_those_that_there_are() {
    let bed = Testbed::new("mistyped").await;
    append(bed.store(), &account("a"), [opened("ann")]).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    follower.until_count(1).await;
    let mistyped = bed.relay().variable(DEPLOYMENT, "tset");
    let said = refused(&mistyped, &["run"]).await;
    let publication = format!("test@{}", bed.topic_prefix());
    assert!(said.contains(&format!("in this database: {publication}.")), "{said}");
    assert!(said.contains("correct relay.deployment"), "{said}");
    append(bed.store(), &account("a"), [deposited(1)]).await;
    follower.until_count(2).await;
    assert!(relay.terminate().await.success());
    // It left no state: the first publication is the only one.
    let said = refused(&mistyped, &["run"]).await;
    assert!(said.contains(&format!("in this database: {publication}.")), "{said}");
    // Until the first one is released.
    bed.relay().must_run(&["release-topics", "--reason", "renamed"]).await;
    let mut relay = RelayProcess::start(&mistyped);
    follower.until_count(4).await;
    assert!(relay.terminate().await.success());
}

/// Copies of a test's database.
struct Copies<'a>(&'a Testbed);

impl Copies<'_> {
    /// The name of the copy.
    fn name(&self) -> String {
        format!("{}_copy", self.0.name())
    }

    fn url(&self) -> String {
        self.0.environment().url_of_database(&self.name())
    }

    async fn make(&self) {
        self.administer(include_str!("sql/end_sessions.sql")).await;
        self.administer(include_str!("sql/copy_database.sql")).await;
    }

    async fn administer(&self, statement: &str) {
        let statement = statement.replace("the_database", self.0.name());
        let connection = PgConnection::connect(&self.0.environment().database_url).await;
        let mut connection = connection.must("connect");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.must("administer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_database_refuses_and_disturbs_nobody_until_it_takes_the_originals_place() {
    let bed = Testbed::new("copied").await;
    let copies = Copies(&bed);
    append(bed.store(), &account("a"), [opened("ann"), deposited(1)]).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    follower.until_count(2).await;
    // As after a crash: the copy has the transactional ids.
    relay.kill().await;
    copies.make().await;
    relay.restart();
    relay.event("publishing").await;

    let copy = bed.relay().database(&copies.url());
    let said = refused(&copy, &["run"]).await;
    assert!(said.contains(&format!("copy of database {}", bed.name())), "{said}");
    assert!(said.contains("annals-relay adopt") && said.contains("topics.prefix"), "{said}");
    let said = refused(&copy, &["rebase", "--reason", "why not"]).await;
    assert!(said.contains("copy of database"), "{said}");
    append(bed.store(), &account("a"), [deposited(2)]).await;
    follower.until_count(3).await;
    assert!(!relay.has_event("outage_began"), "the original's relay was disturbed");
    // With topics of its own, a copy works.
    let staging = copy.clone().topic_prefix(&format!("{}staging.", bed.topic_prefix()));
    let staged = Follower::start(
        &bed.environment().kafka,
        &[&format!("{}staging.{CATEGORY}", bed.topic_prefix())],
    );
    let mut other = RelayProcess::start(&staging.instance("staging"));
    staged.until_count(2).await;
    assert!(other.terminate().await.success());

    // Dropped, and restored under its name: it replaces the original, and lacks the events recorded
    // after the copy.
    assert!(relay.terminate().await.success());
    copies.administer(include_str!("sql/end_sessions.sql")).await;
    copies.administer(include_str!("sql/drop_database.sql")).await;
    copies.administer(include_str!("sql/rename_copy.sql")).await;
    let said = refused(&bed.relay(), &["run"]).await;
    assert!(said.contains("account-a version 2") && said.contains("annals-relay rebase"), "{said}");
    let rebased = bed.relay().run(&["rebase", "--reason", "restored"]).await;
    let rebased = rebased.unwrap_or_else(|said| panic!("{said}"));
    assert!(rebased.contains("1 published versions diverge"), "{rebased}");
    let mut relay = RelayProcess::start(&bed.relay());
    relay.event("publishing").await;
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_moved_is_published_from_its_new_place_only() {
    let bed = Testbed::new("moved").await;
    let copies = Copies(&bed);
    append(bed.store(), &account("a"), [opened("ann"), deposited(1)]).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    follower.until_count(2).await;
    assert!(relay.terminate().await.success());
    copies.make().await;
    relay.restart();
    relay.event("publishing").await;
    let moved = StoreOptions::default().connect(&copies.url()).await.must("connect");
    let adopt = sqlx::query(include_str!("sql/raise_history.sql"));
    adopt.execute(moved.pool()).await.must("raise the history");
    let mut next = RelayProcess::start(&bed.relay().database(&copies.url()).instance("next"));
    next.event("publishing").await;
    append(&moved, &account("a"), [deposited(2)]).await;
    follower.until_count(3).await;
    // The old relay, which still runs, notices by itself and ends; it does not start again.
    assert!(!relay.ended().await.success());
    relay.event_with("halted", &[("cause", "moved_store")]).await;
    let said = refused(&bed.relay(), &["run"]).await;
    assert!(said.contains("was moved") && said.contains("history 2"), "{said}");
    assert!(next.terminate().await.success());
    moved.pool().close().await;
    copies.administer(include_str!("sql/drop_copy.sql")).await;
}

/// A broker whose other listener accepts one user with this password.
const LOGIN: &str = "listener.name.other.sasl.enabled.mechanisms=PLAIN\n\
    listener.name.other.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
    user_relay=\"the_password\";\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_rights_on_the_topic_of_claims_the_relay_waits_and_says_which_command_gives_them() {
    let kafka = TwoDoors::with_login(&format!("{ACCESS_LISTS}{LOGIN}")).await;
    let bed = Testbed::on("claims_denied", kafka.environment().clone()).await;
    let client = "{ \"security.protocol\" = \"sasl_plaintext\", \
        \"sasl.mechanism\" = \"PLAIN\", \"sasl.username\" = \"relay\", \"sasl.password\" = \"the_password\" }";
    let settings = bed
        .relay()
        .impatient()
        .kafka(&kafka.other())
        .variable("ANNALS_RELAY__KAFKA__PROPERTIES", client);
    append(bed.store(), &account("a"), [opened("ann")]).await;
    let broker = &kafka.environment().kafka;
    deny(broker, "relay", Right::Topics).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&settings);
    let said = relay.waits_for(&format!("topic {}", bed.claims_topic())).await;
    assert!(said.contains("kafka-acls.sh") && said.contains("kafka-topics.sh"), "{said}");
    allow(broker, "relay", Right::Topics).await;
    follower.until_count(1).await;
    assert!(relay.terminate().await.success());
}
