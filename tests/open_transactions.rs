//! Transactions that stay open, are aborted by the broker, or are ended too late: nothing is
//! repeated, and readers of committed records wait only until this is detected.

use std::collections::HashMap;

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    ALL_SHARDS, CATEGORY, Isolation, Must, RelayProcess, Testbed, TwoDoors, account, check,
    deposited, leave_transactions_open, read_topic, until_forgotten, until_nothing_is_open,
};

/// More than a relay with eight producers at a time needs.
const BYTES_MAX: u64 = 80 * 1024 * 1024;
const TRANSACTION_TIMEOUT: &str = "ANNALS_RELAY__KAFKA__TRANSACTION_TIMEOUT_MS";
/// The broker checks often for timed-out transactions.
const LOOKS_OFTEN: &str = "transaction.abort.timed.out.transaction.cleanup.interval.ms=200\n";

async fn append(bed: &Testbed) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
}

/// The number of occurrences of each event in the topic, aborted transactions included, highest
/// first.
async fn copies(bed: &Testbed) -> Vec<usize> {
    let topic = bed.topic(CATEGORY);
    let records = read_topic(&bed.environment().kafka, &topic, Isolation::Uncommitted).await;
    let mut copies: HashMap<String, usize> = HashMap::new();
    for record in records {
        *copies
            .entry(record.header("ce_id").must("find the event's id").to_owned())
            .or_default() += 1;
    }
    let mut copies: Vec<usize> = copies.into_values().collect();
    copies.sort_unstable_by(|a, b| b.cmp(a));
    copies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_wait_behind_a_frozen_owners_transaction_only_until_another_has_taken_over() {
    let kafka = TwoDoors::linked("").await;
    let bed = Testbed::on("held_back", kafka.environment().clone()).await;
    let follower = bed.follow();
    // The broker itself would abort the transaction long after the test.
    let settings = bed.relay().variable(TRANSACTION_TIMEOUT, "600000");
    let first = RelayProcess::start(&settings.clone().kafka(&kafka.other()));
    append(&bed).await;
    follower.until_count(1).await;
    kafka.link().hold_commits();
    append(&bed).await;
    kafka.link().holds_a_commit().await;
    first.freeze().await;
    let mut second = RelayProcess::start(&settings.instance("b"));
    second.publishes(ALL_SHARDS).await;
    second.event("fencing").await;
    // The first is still frozen, and has sent nothing to the broker.
    append(&bed).await;
    follower.until_count(3).await;
    assert_eq!(
        copies(&bed).await,
        [2, 1, 1],
        "the second event was in an aborted transaction, too"
    );

    // It resumes in the middle of its commit, which arrives at last.
    kafka.link().mend();
    first.thaw().await;
    first.event("lease_lost").await;
    first.event("publishing").await;
    append(&bed).await;
    follower.until_count(4).await;
    assert_eq!(copies(&bed).await, [2, 1, 1, 1], "the first has published nothing of its past");
    assert!(second.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_the_broker_gave_up_while_the_relay_was_frozen_is_published_once() {
    let kafka = TwoDoors::linked(LOOKS_OFTEN).await;
    let bed = Testbed::on("given_up", kafka.environment().clone()).await;
    let follower = bed.follow();
    let settings = bed.relay().kafka(&kafka.other()).variable(TRANSACTION_TIMEOUT, "3000");
    let mut relay = RelayProcess::start(&settings);
    append(&bed).await;
    follower.until_count(1).await;
    relay.turn_page();
    kafka.link().hold_commits();
    append(&bed).await;
    kafka.link().holds_a_commit().await;
    relay.freeze().await;
    until_nothing_is_open(&kafka.environment().kafka, &bed.topic(CATEGORY)).await;
    kafka.link().mend();
    relay.thaw().await;
    follower.until_count(2).await;
    relay.goes_on().await;
    append(&bed).await;
    follower.until_count(3).await;
    assert_eq!(copies(&bed).await, [2, 1, 1]);
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_arrive_after_the_relay_has_given_them_up_commit_nothing() {
    let kafka = TwoDoors::linked(LOOKS_OFTEN).await;
    let bed = Testbed::on("late_commits", kafka.environment().clone()).await;
    let follower = bed.follow();
    let settings = bed.relay().kafka(&kafka.other()).impatient();
    let mut relay = RelayProcess::start(&settings);
    append(&bed).await;
    follower.until_count(1).await;
    relay.turn_page();
    kafka.link().hold_commits();
    append(&bed).await;
    // It has abandoned two commits at least; both are still in flight.
    relay.keeps_waiting_for("kafka").await;
    assert_eq!(follower.count(), 1);
    kafka.link().mend();
    relay.goes_on_after("kafka").await;
    append(&bed).await;
    follower.until_count(3).await;
    assert!(copies(&bed).await[0] > 1, "no commit was late");
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_was_idle_for_longer_than_the_broker_keeps_its_ids_publishes_the_next_event() {
    let kafka = TwoDoors::linked(
        "transactional.id.expiration.ms=1000\ntransaction.remove.expired.transaction.cleanup.interval.ms=200\n",
    )
    .await;
    let bed = Testbed::on("forgotten_ids", kafka.environment().clone()).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    append(&bed).await;
    follower.until_count(1).await;
    relay.turn_page();
    let prefix = format!("{}test.", bed.topic_prefix());
    until_forgotten(&kafka.environment().kafka, &prefix, 2).await;
    append(&bed).await;
    follower.until_count(2).await;
    // On a slow machine the ids are forgotten before the first event, too: the end of that outage
    // can be on this page.
    relay.waits_for("kafka").await;
    relay.has_waited_for("kafka").await;
    append(&bed).await;
    follower.until_count(3).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_open_transactions_of_a_hundred_earlier_owners_are_ended_in_bounded_memory() {
    let bed = Testbed::new("hundred").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    append(&bed).await;
    follower.until_count(1).await;
    assert!(relay.terminate().await.success());

    let ids: Vec<String> =
        (0..100).map(|number| format!("{}test.left-{number}", bed.topic_prefix())).collect();
    let topic = bed.topic(CATEGORY);
    leave_transactions_open(&bed.environment().kafka, &topic, ids.clone()).await;
    let fence = sqlx::query(include_str!("sql/to_fence.sql")).bind(&ids);
    fence.execute(bed.store().pool()).await.must("leave ids to fence");
    append(&bed).await;
    let mut relay = RelayProcess::start(&bed.relay());
    follower.until_count(2).await;
    until_nothing_is_open(&bed.environment().kafka, &topic).await;
    relay.event("fencing").await;
    let bytes = relay.peak_bytes();
    assert!((1..BYTES_MAX).contains(&bytes), "{bytes} bytes");
    assert!(relay.terminate().await.success());
    // Nothing is left for the next relay to fence.
    let mut relay = RelayProcess::start(&bed.relay());
    relay.publishes(ALL_SHARDS).await;
    assert!(!relay.has_event("fencing"), "ids are fenced again");
    assert!(relay.terminate().await.success());
}
