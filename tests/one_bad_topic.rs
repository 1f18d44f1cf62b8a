//! A topic that cannot be written to holds its category, and all other categories are published;
//! and no transaction is tried for ever at a size that cannot succeed in time.

use annals_store::{Append, ExpectedVersion, NewEvent, StreamName};
use annals_testkit::{
    ACCESS_LISTS, CATEGORY, Component, Ending, FaultyLink, Follower, Isolation, Must, Operation,
    PrivateStack, RelayProcess, RelaySettings, Resource, Right, Testbed, ThreeBrokers, TwoDoors,
    account, allow, check, configure_topic, create_replicated_topic, create_topic, create_topic_on,
    deny, deposited, deposited_large, grant, limit_writing, read_topic, withdraw, write_records,
};
use uuid::Uuid;

use crate::checked_before_start::{ERRORS, findings, has};
use Operation::{Describe, DescribeConfigs, Write};

/// A broker whose other listener accepts one user with this password.
const LOGIN: &str = "listener.name.other.sasl.enabled.mechanisms=PLAIN\n\
    listener.name.other.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
    user_relay=\"the_password\";\n";
const LOGS_IN: &str = "{ \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"PLAIN\", \
    \"sasl.username\" = \"relay\", \"sasl.password\" = \"the_password\" }";
/// A relay that is frozen for a while keeps its lease, however slow the machine is.
const LEASE: (&str, &str) = ("ANNALS_RELAY__RELAY__LEASE_MS", "600000");
const LEDGER: &str = "ledger";
const LATE: &str = "late";

fn ledger() -> StreamName {
    StreamName::new("ledger-1").must("name a stream")
}

async fn append(bed: &Testbed, stream: &StreamName, events: impl IntoIterator<Item = NewEvent>) {
    let events = events.into_iter().map(|event| event.for_category(stream.category()));
    let append = Append::to(stream, ExpectedVersion::Any, events);
    bed.store().append(&append).await.must("append");
}

/// Appends one event to each category in one transaction, so that they are published together.
async fn append_to_both(bed: &Testbed, sequence: i64) {
    let append =
        Append::to(&ledger(), ExpectedVersion::Any, [deposited(sequence).for_category(LEDGER)]);
    let append = append.and_to(&account("a"), ExpectedVersion::Any, [deposited(sequence)]);
    bed.store().append(&append).await.must("append");
}

/// Consumers of the accounts, and of the ledger.
fn followers(bed: &Testbed) -> [Follower; 2] {
    [CATEGORY, LEDGER]
        .map(|category| Follower::start(&bed.environment().kafka, &[&bed.topic(category)]))
}

/// A relay that has published an event of each category, with followers. Then the topic of ledgers
/// has too few replicas, and 19 more events of each category are appended.
async fn starve_ledgers(
    bed: &Testbed,
    brokers: &ThreeBrokers,
    settings: &RelaySettings,
) -> (RelayProcess, [Follower; 2]) {
    let relay = RelayProcess::start(settings);
    append_to_both(bed, 1).await;
    let [accounts, ledgers] = followers(bed);
    accounts.until_count(1).await;
    ledgers.until_count(1).await;

    let topic = bed.topic(LEDGER);
    configure_topic(&bed.environment().kafka, &topic, "min.insync.replicas", "2").await;
    brokers.end_two(Ending::Orderly).await;
    for sequence in 2..=20 {
        append_to_both(bed, sequence).await;
    }
    (relay, [accounts, ledgers])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_without_the_right_to_write_holds_its_category_and_the_others_flow() {
    let kafka = TwoDoors::with_login(&format!("{ACCESS_LISTS}{LOGIN}")).await;
    let bed = Testbed::on("one_right", kafka.environment().clone()).await;
    let broker = &kafka.environment().kafka;
    let settings = bed.relay().impatient().kafka(&kafka.other());
    let mut relay =
        RelayProcess::start(&settings.variable("ANNALS_RELAY__KAFKA__PROPERTIES", LOGS_IN));
    append_to_both(&bed, 1).await;
    let [accounts, ledgers] = followers(&bed);
    accounts.until_count(1).await;
    ledgers.until_count(1).await;

    let topic = bed.topic(LEDGER);
    deny(broker, "relay", Right::Topic(&topic)).await;
    for sequence in 2..=20 {
        append_to_both(&bed, sequence).await;
    }
    let line = relay.quarantines_for("topic", LEDGER).await;
    assert!(line.contains(&topic), "{line}");
    accounts.until_count(20).await;
    // A relay that takes over finds it refused again.
    relay.kill().await;
    relay.restart();
    append_to_both(&bed, 21).await;
    accounts.until_count(21).await;
    assert_eq!(ledgers.count(), 1);

    allow(broker, "relay", Right::Topic(&topic)).await;
    ledgers.until_count(21).await;
    relay.event("quarantine_ended").await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history_of(&[CATEGORY, LEDGER], Vec::new()).await), []);
}

/// In turn, since three brokers take long to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_too_few_replicas_or_without_a_leader_holds_its_category_only() {
    let brokers = ThreeBrokers::up("transaction.state.log.min.isr=1\n").await;
    with_too_few_replicas_without_transactions(&brokers).await;
    with_too_few_replicas_with_transactions(&brokers).await;
    a_topic_that_has_a_leader_again_is_written_to(&brokers).await;
    an_event_that_the_store_lacks_halts_the_relay_once_the_topic_has_a_leader(&brokers).await;
}

async fn with_too_few_replicas_without_transactions(brokers: &ThreeBrokers) {
    let bed = Testbed::on("one_topic_too_few", brokers.environment().clone()).await;
    let settings =
        bed.relay().impatient().variable("ANNALS_RELAY__TOPICS__REPLICATION_FACTOR", "3");
    let settings = settings.variable("ANNALS_RELAY__RELAY__DELIVERY", "at-least-once");
    let (mut relay, [accounts, ledgers]) = starve_ledgers(&bed, brokers, &settings).await;
    relay.quarantines_for("topic", LEDGER).await;
    accounts.until_count(20).await;
    append_to_both(&bed, 21).await;
    accounts.until_count(21).await;

    brokers.start_two().await;
    ledgers.until_count(21).await;
    relay.event("quarantine_ended").await;
    assert!(relay.terminate().await.success());
}

/// Kafka ends no transaction that has written to a partition with too few replicas, and begins no
/// other one under its transactional id.
async fn with_too_few_replicas_with_transactions(brokers: &ThreeBrokers) {
    let bed = Testbed::on("one_topic_stuck", brokers.environment().clone()).await;
    let settings =
        bed.relay().impatient().variable("ANNALS_RELAY__TOPICS__REPLICATION_FACTOR", "3");
    let kafka = &bed.environment().kafka;
    let late = StreamName::new(format!("{LATE}-1")).must("name a stream");
    create_replicated_topic(kafka, &bed.topic(LATE), 4, 3).await;
    configure_topic(kafka, &bed.topic(LATE), "min.insync.replicas", "2").await;
    let (mut relay, [accounts, ledgers]) = starve_ledgers(&bed, brokers, &settings).await;
    relay.event("transactional_ids_busy").await;
    relay.quarantines_for("topic", LEDGER).await;
    accounts.until_count(20).await;
    append_to_both(&bed, 21).await;
    accounts.until_count(21).await;
    assert_eq!(ledgers.count(), 1);

    // A relay that starts meanwhile does not write to the topic, and finds another one that is new
    // to it and has too few replicas, too.
    assert!(relay.terminate().await.success());
    relay.turn_page();
    relay.restart();
    append_to_both(&bed, 22).await;
    accounts.until_count(22).await;
    assert!(!relay.has_event("outage_began"), "it tried the topic");
    append(&bed, &late, [deposited(1)]).await;
    append_to_both(&bed, 23).await;
    relay.quarantines_for("topic", LATE).await;
    accounts.until_count(23).await;
    assert_eq!(ledgers.count(), 1);

    brokers.start_two().await;
    ledgers.until_count(23).await;
    Follower::start(kafka, &[&bed.topic(LATE)]).until_count(1).await;
    relay.event("quarantine_ended").await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history_of(&[CATEGORY, LEDGER, LATE], Vec::new()).await), []);
}

/// A relay that has published an event of each category, and has ended since. The topic of ledgers
/// is on the second broker only.
async fn ledgers_on_the_second(bed: &Testbed) -> (RelayProcess, [Follower; 2]) {
    create_topic_on(&bed.environment().kafka, &bed.topic(LEDGER), 2).await;
    let settings =
        bed.relay().impatient().variable("ANNALS_RELAY__TOPICS__REPLICATION_FACTOR", "3");
    publish_one(bed, &settings).await
}

/// A relay that has published an event of each category, and has ended since.
async fn publish_one(bed: &Testbed, settings: &RelaySettings) -> (RelayProcess, [Follower; 2]) {
    let mut relay = RelayProcess::start(settings);
    append_to_both(bed, 1).await;
    let [accounts, ledgers] = followers(bed);
    accounts.until_count(1).await;
    ledgers.until_count(1).await;
    assert!(relay.terminate().await.success());
    relay.turn_page();
    (relay, [accounts, ledgers])
}

/// A relay that starts compares the records of topics with the store first.
async fn a_topic_that_has_a_leader_again_is_written_to(brokers: &ThreeBrokers) {
    let bed = Testbed::on("one_topic_away", brokers.environment().clone()).await;
    let (mut relay, [accounts, ledgers]) = ledgers_on_the_second(&bed).await;
    brokers.end_two(Ending::Orderly).await;
    relay.restart();
    append_to_both(&bed, 2).await;
    relay.event("topic_not_compared").await;
    relay.quarantines_for("topic", LEDGER).await;
    accounts.until_count(2).await;
    a_topic_without_a_leader_is_named(&bed).await;

    brokers.start_two().await;
    ledgers.until_count(2).await;
    relay.event("quarantine_ended").await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history_of(&[CATEGORY, LEDGER], Vec::new()).await), []);
}

/// Nothing else is an error: the others have one of three replicas, which is all that they need.
async fn a_topic_without_a_leader_is_named(bed: &Testbed) {
    let settings = bed.relay().variable("ANNALS_RELAY__TOPICS__REPLICATION_FACTOR", "3");
    let (code, found) = findings(&settings).await;
    let errors: Vec<_> = found.iter().filter(|(_, severity, _)| severity == "error").collect();
    let part = format!("1 partitions of topic {} have no leader", bed.topic(LEDGER));
    assert!(code == ERRORS && errors.len() == 1, "{found:?}");
    assert!(has(&found, "kafka", "error", &part), "{found:?}");
    let claims = format!("topic {} has 1 of 3 replicas in sync", bed.claims_topic());
    assert!(has(&found, "kafka", "warning", &claims), "{found:?}");
}

/// Both topics have a record behind their recorded ends, and only one of them can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_without_the_right_to_read_gets_nothing_until_its_records_are_compared() {
    let kafka = TwoDoors::with_login(&format!("{ACCESS_LISTS}{LOGIN}")).await;
    let bed = Testbed::on("not_compared", kafka.environment().clone()).await;
    let broker = &kafka.environment().kafka;
    let settings = bed.relay().impatient().kafka(&kafka.other());
    let settings = settings.variable("ANNALS_RELAY__KAFKA__PROPERTIES", LOGS_IN);
    let (mut relay, [accounts, ledgers]) = publish_one(&bed, &settings).await;
    for category in [CATEGORY, LEDGER] {
        let topic = bed.topic(category);
        let published = read_topic(broker, &topic, Isolation::Committed).await;
        write_records(broker, &topic, &published).await;
    }
    let topic = bed.topic(LEDGER);
    let rights = (Resource::Topics(&topic), [Write, Describe, DescribeConfigs]);
    grant(broker, "relay", rights.0, &rights.1).await;
    relay.restart();
    append_to_both(&bed, 2).await;
    let line = relay.event("topic_not_compared").await;
    assert!(line.contains(&topic) && line.contains("authorization"), "{line}");
    relay.quarantines_for("topic", LEDGER).await;
    accounts.until_count(3).await;
    assert_eq!(ledgers.count(), 2);

    withdraw(broker, "relay", rights.0, &rights.1).await;
    ledgers.until_count(3).await;
    relay.event("quarantine_ended").await;
    assert!(relay.terminate().await.success());
}

async fn an_event_that_the_store_lacks_halts_the_relay_once_the_topic_has_a_leader(
    brokers: &ThreeBrokers,
) {
    let bed = Testbed::on("one_topic_diverges", brokers.environment().clone()).await;
    let (mut relay, [accounts, ledgers]) = ledgers_on_the_second(&bed).await;
    let (kafka, topic) = (&bed.environment().kafka, bed.topic(LEDGER));
    let [published] = &read_topic(kafka, &topic, Isolation::Committed).await[..] else {
        panic!("one ledger is published")
    };
    let mut lost = published.clone();
    for (name, value) in &mut lost.headers {
        match name.as_str() {
            "ce_id" => *value = Some(Uuid::new_v4().to_string().into_bytes()),
            "ce_streamversion" => *value = Some(b"2".to_vec()),
            _ => {}
        }
    }
    write_records(kafka, &topic, &[lost]).await;
    // While the topic has a leader.
    ledgers.until_count(2).await;
    brokers.end_two(Ending::Orderly).await;
    relay.restart();
    append_to_both(&bed, 2).await;
    relay.quarantines_for("topic", LEDGER).await;
    accounts.until_count(2).await;

    brokers.start_two().await;
    relay.event_with("halted", &[("cause", "diverged")]).await;
    assert_eq!(ledgers.count(), 2, "the published one and the lost one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_takes_small_batches_gets_no_larger_ones() {
    const EVENTS: i64 = 2_000;
    const SEARCH: &str = "finding_refused";
    /// Of 6,000 events: as with batches of any size.
    const TRANSACTIONS_MAX: f64 = 30.0;
    let bed = Testbed::new("small_batches").await;
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    create_topic(brokers, &topic, 4).await;
    configure_topic(brokers, &topic, "max.message.bytes", "4000").await;
    let stream = account("a");
    let append_all = || append(&bed, &stream, (0..EVENTS).map(deposited));
    append_all().await;
    let settings = bed.relay().variable("ANNALS_RELAY__KAFKA__COMPRESSION", "none");
    let mut relay = RelayProcess::start(&settings.variable(LEASE.0, LEASE.1));
    let follower = bed.follow();
    follower.until_count(2_000).await;
    assert!(!relay.has_event(SEARCH), "a batch was too large");

    // The size is looked up again after the first refusal.
    relay.freeze().await;
    configure_topic(brokers, &topic, "max.message.bytes", "2000").await;
    append_all().await;
    relay.thaw().await;
    follower.until_count(4_000).await;
    relay.freeze().await;
    append_all().await;
    relay.thaw().await;
    follower.until_count(6_000).await;
    assert_eq!(relay.text().matches(SEARCH).count(), 1);
    let transactions = relay.metric("annals_relay_transactions_total{outcome=\"committed\"}").await;
    assert!(transactions < TRANSACTIONS_MAX, "{transactions} transactions");
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

/// The database needs 50 s to send what there is room for, and the relay waits for 30.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_page_that_a_slow_database_cannot_send_in_time_the_first_events_are_published() {
    const EVENTS: i64 = 400;
    const BYTES_PER_SECOND: u32 = 100_000;
    let bed = Testbed::new("slow_database").await;
    let (link, database_url) = FaultyLink::before(&bed.database_url()).await;
    let settings = bed.relay().database(&database_url).variable(LEASE.0, LEASE.1);
    let mut relay = RelayProcess::start(&settings);
    let follower = bed.follow();
    append(&bed, &account("first"), [deposited(0)]).await;
    follower.until_count(1).await;
    relay.freeze().await;
    append(&bed, &account("a"), (0..EVENTS).map(deposited_large)).await;
    link.slow_down(BYTES_PER_SECOND);
    relay.thaw().await;
    follower.until_count(10).await;
    assert!(follower.count() < 200, "the connection was not slow");
    link.mend();
    follower.until_count(usize::try_from(EVENTS + 1).must("count")).await;
    assert!(!relay.has_event("outage_began"), "a page took too long");
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_a_quota_makes_too_slow_is_tried_again_in_smaller_ones() {
    const EVENTS: i64 = 80;
    const BYTES_PER_SECOND: f64 = 40_000.0;
    const LARGE_AGAIN: i64 = 200;
    const ROUNDS_MAX: i64 = 10;
    let stack = PrivateStack::up(&[Component::Kafka]).await;
    let bed = Testbed::on("quota", stack.environment().clone()).await;
    // Long before it is exceeded: a broker learns of a quota after the controller has acknowledged
    // it.
    limit_writing(&bed.environment().kafka, Some(BYTES_PER_SECOND)).await;
    let settings = bed.relay().impatient().variable("ANNALS_RELAY__KAFKA__COMPRESSION", "none");
    let mut relay = RelayProcess::start(&settings.variable(LEASE.0, LEASE.1));
    let follower = bed.follow();
    append(&bed, &account("first"), [deposited(0)]).await;
    follower.until_count(1).await;
    relay.freeze().await;
    // 1 MB in one transaction is 100,000 bytes a second, since Kafka takes the mean of ten seconds.
    // It comes in four requests: Kafka delays the third one for 3 s and the last for 10, and the
    // relay waits for 3.
    for number in 0..EVENTS {
        append(&bed, &account(number % 10), [deposited_large(number)]).await;
    }
    relay.thaw().await;
    relay.waits_for("kafka").await;
    for events in [EVENTS / 2, EVENTS] {
        follower.until_count(usize::try_from(events + 1).must("count")).await;
    }
    limit_writing(&bed.environment().kafka, None).await;
    let small = large_transactions(&relay).await;
    // They are larger again after some commits.
    for round in 1..=ROUNDS_MAX {
        append(&bed, &account("last"), (0..LARGE_AGAIN).map(deposited_large)).await;
        let published = EVENTS + 1 + round * LARGE_AGAIN;
        follower.until_count(usize::try_from(published).must("count")).await;
        if large_transactions(&relay).await > small {
            break;
        }
        assert!(round < ROUNDS_MAX, "transactions stay small");
    }
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

/// The number of committed transactions of more events than the quota lets through in time.
async fn large_transactions(relay: &RelayProcess) -> f64 {
    let all = relay.metric("annals_relay_batch_events_count").await;
    all - relay.metric("annals_relay_batch_events_bucket{le=\"100\"}").await
}
