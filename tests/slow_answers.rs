//! Where Kafka answers slowly, what takes many round trips must not take longer than a transaction
//! may: it would be aborted and tried again for ever. A topic that takes long to prepare delays its
//! category only.

use std::time::Duration;

use annals_store::{Append, ExpectedVersion, NewEvent, StreamName};
use annals_testkit::{
    CATEGORY, Follower, Must, RelayProcess, Testbed, TwoDoors, account, check, configure_topic,
    create_topic, deposited, deposited_large,
};
use sqlx::{Connection, PgConnection};

const EVENTS: i64 = 300;
const STREAMS: i64 = 15;
/// If each event took one, all would take 7 times as long as a transaction may.
const ROUND_TRIP: Duration = Duration::from_millis(50);
const TIMEOUT: &str = "ANNALS_RELAY__KAFKA__TRANSACTION_TIMEOUT_MS";
const TRANSACTION_TIMEOUT_MS: &str = "2000";
/// Of a topic: below the size of a large event, and above that of several small ones.
const BATCH_BYTES_MAX: &str = "3000";

/// A relay of a Kafka behind a link, frozen, with events that wait for it.
async fn with_waiting_events(kafka: &TwoDoors, label: &str) -> (Testbed, Follower, RelayProcess) {
    let bed = Testbed::on(label, kafka.environment().clone()).await;
    create_topic(&bed.environment().kafka, &bed.topic(CATEGORY), 4).await;
    let settings = bed.relay().kafka(&kafka.other()).variable(TIMEOUT, TRANSACTION_TIMEOUT_MS);
    // It is frozen for a while, and keeps its lease.
    let settings = settings.variable("ANNALS_RELAY__RELAY__LEASE_MS", "600000");
    let relay = RelayProcess::start(&settings.variable("ANNALS_RELAY__KAFKA__COMPRESSION", "none"));
    let follower = bed.follow();
    append(&bed, "first", deposited(0)).await;
    follower.until_count(1).await;
    relay.freeze().await;
    for number in 0..STREAMS {
        let events = (0..EVENTS / STREAMS).map(deposited);
        let append = Append::to(&account(number), ExpectedVersion::Any, events);
        bed.store().append(&append).await.must("append");
    }
    (bed, follower, relay)
}

async fn append(bed: &Testbed, stream: &str, event: NewEvent) {
    let append = Append::to(&account(stream), ExpectedVersion::Any, [event]);
    bed.store().append(&append).await.must("append");
}

async fn limit_batches(bed: &Testbed) {
    let brokers = &bed.environment().kafka;
    configure_topic(brokers, &bed.topic(CATEGORY), "max.message.bytes", BATCH_BYTES_MAX).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_event_among_many_is_found_and_the_others_are_published() {
    let kafka = TwoDoors::linked("").await;
    let (bed, follower, mut relay) = with_waiting_events(&kafka, "slow_search").await;
    append(&bed, "large", deposited_large(0)).await;
    append(&bed, "last", deposited(1)).await;
    limit_batches(&bed).await;
    kafka.link().delay_answers(ROUND_TRIP);
    relay.thaw().await;
    relay.quarantines_for("record", "account-large").await;
    follower.until_count(usize::try_from(EVENTS + 2).must("count")).await;
    kafka.link().mend();
    assert!(relay.terminate().await.success());
    let violations = check(&bed.history(Vec::new()).await);
    assert_eq!(violations.len(), 1, "all but the refused one: {violations:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_batches_are_sent_in_several_transactions() {
    let kafka = TwoDoors::linked("").await;
    let (bed, follower, mut relay) = with_waiting_events(&kafka, "slow_batches").await;
    limit_batches(&bed).await;
    kafka.link().delay_answers(ROUND_TRIP);
    relay.thaw().await;
    follower.until_count(usize::try_from(EVENTS + 1).must("count")).await;
    kafka.link().mend();
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);

    kafka.link().delay_answers(ROUND_TRIP);
    let slow = bed.relay().kafka(&kafka.other());
    let slow = slow.variable(TIMEOUT, TRANSACTION_TIMEOUT_MS);
    let slow = slow.variable("ANNALS_RELAY__KAFKA__COMPRESSION", "none");
    let replayed = slow.must_run(&["replay", "--all", "--reason", "a test"]).await;
    assert!(replayed.contains(&format!("replay 1: {} events", EVENTS + 1)), "{replayed}");
    kafka.link().mend();
}

/// The relay records in a table what it knows of topics: while it is locked, none can be prepared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_topics_cannot_be_prepared_categories_whose_topics_are_ready_flow() {
    let bed = Testbed::new("slow_topics").await;
    let brokers = &bed.environment().kafka;
    let [in_ledger, in_new] =
        ["ledger-a", "new-a"].map(|name| StreamName::new(name).must("name a stream"));
    let append_to = async |stream: &StreamName| {
        let event = deposited(1).for_category(stream.category());
        let append = Append::to(stream, ExpectedVersion::Any, [event]);
        bed.store().append(&append).await.must("append");
    };
    let (accounts, ledgers) = (bed.follow(), Follower::start(brokers, &[&bed.topic("ledger")]));
    let mut relay = RelayProcess::start(&bed.relay());
    append(&bed, "a", deposited(0)).await;
    append_to(&in_ledger).await;
    accounts.until_count(1).await;
    ledgers.until_count(1).await;
    let mut locked = PgConnection::connect(&bed.database_url()).await.must("connect");
    let lock = sqlx::raw_sql(include_str!("sql/lock_topics.sql"));
    lock.execute(&mut locked).await.must("lock a table");

    append_to(&in_new).await;
    append(&bed, "a", deposited(1)).await;
    accounts.until_count(2).await;
    relay.quarantines_for("topic", "new").await;
    // What a refused record makes the relay look up again is the topic of the record.
    limit_batches(&bed).await;
    append(&bed, "large", deposited_large(0)).await;
    relay.quarantines_for("record", "account-large").await;
    append_to(&in_ledger).await;
    ledgers.until_count(2).await;
    assert!(!relay.has_event("outage_began"), "the relay waited as a whole");

    locked.close().await.must("unlock the table");
    Follower::start(brokers, &[&bed.topic("new")]).until_count(1).await;
    append(&bed, "a", deposited(2)).await;
    accounts.until_count(3).await;
    assert!(relay.terminate().await.success());
}
