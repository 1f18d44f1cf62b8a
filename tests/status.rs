//! `status` says whether a deployment publishes, how far each shard and each category is, what each
//! relay waits for, and which transactions are open; counts are exact for a usual backlog.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    CATEGORY, HttpAnswer, Must, RelayProcess, RelaySettings, Testbed, TwoDoors, account, deposited,
    http_get, opened,
};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

const READY: i32 = 0;
const NOT_READY: i32 = 3;

async fn append(bed: &Testbed, stream: &str) {
    let append = Append::to(&account(stream), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
}

/// Asks until the answer is as wanted.
async fn until(settings: &RelaySettings, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut status = Value::Null;
    let asked = async || {
        (_, status) = settings.status().await;
        wanted(&status)
    };
    annals_testkit::until("the wanted status", asked).await;
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_ready_while_relays_own_its_shards_and_its_lag_ends_at_zero() {
    let bed = Testbed::new("status_ready").await;
    let follower = bed.follow();
    append(&bed, "a").await;
    append(&bed, "a").await;
    let (code, status) = bed.relay().status().await;
    assert_eq!((code, &status["is_ready"]), (NOT_READY, &false.into()));
    assert_eq!(status["not_ready"][0], "no relay owns shards 0,1,2,3,4,5,6,7");
    assert_eq!(
        (&status["lag"]["events"], &status["lag"]["is_estimate"]),
        (&2.into(), &false.into())
    );
    assert_eq!(status["categories"][CATEGORY]["events"], 2);
    assert!(status["lag"]["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{status}");
    assert_eq!(status["delivery"], Value::Null);
    let partitions = "select count(*) from pg_inherits where inhparent = 'annals.outbox'::regclass";
    let partitions = sqlx::query_scalar(partitions).fetch_one(bed.store().pool()).await;
    let partitions: i64 = partitions.must("count the partitions of the outbox");
    let outbox = (&status["outbox_partitions"], &status["droppable_partitions"]);
    assert_eq!(outbox, (&partitions.into(), &0.into()));

    let mut relay = RelayProcess::start(&bed.relay());
    follower.until_count(2).await;
    let settings = bed.relay();
    let status = until(&settings, |status| {
        status["is_ready"] == true
            && status["lag"]["events"] == 0
            && status["relays"][0]["report"].is_object()
    });
    let status = status.await;
    assert_eq!(status["delivery"], "exactly-once");
    assert_eq!(status["generation"], 1);
    assert_eq!(status["shards"][7]["owner"], "a");
    assert!(status["shards"][7]["epoch"].as_i64().is_some_and(|epoch| epoch > 0), "{status}");
    assert_eq!(status["relays"][0]["instance"], "a");
    assert_eq!(status["unfenced_transactional_ids"], 0);
    assert_eq!(bed.relay().status().await.0, READY);
    let text = bed.relay().run(&["status"]).await.unwrap();
    assert!(text.contains("deployment test@") && text.contains("): ready\n"), "{text}");
    assert!(text.contains("0 events wait to be published"), "{text}");
    let part = format!("\n{partitions} partitions of the outbox, 0 of them published\n");
    assert!(text.contains(&part), "{text}");
    relay.kill().await;
    let status = until(&bed.relay(), |status| status["shards"][0]["owner"].is_null()).await;
    assert_eq!(status["is_ready"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_event_counts_as_waiting_and_its_open_transaction_is_named() {
    let bed = Testbed::new("status_late").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let name = sqlx::raw_sql("set application_name = 'importer'");
    name.execute(&mut connection).await.must("name the session");
    let pid: i32 = sqlx::query_scalar(include_str!("sql/own_session.sql"))
        .fetch_one(&mut connection)
        .await
        .must("read the session's id");
    let login: String = sqlx::query_scalar("select session_user::text")
        .fetch_one(&mut connection)
        .await
        .must("read the session's login");
    let mut open = connection.begin().await.must("begin");
    let late = Append::to(&account("late"), ExpectedVersion::NoStream, [opened("ann")]);
    bed.store().append_in(&mut open, &late).await.must("append");
    append(&bed, "a").await;
    follower.until_count(1).await;
    assert!(relay.terminate().await.success());

    let (_, status) = bed.relay().status().await;
    assert_eq!(status["lag"]["events"], 0, "what is not committed does not wait: {status}");
    let blocker = &status["open_transactions"][0];
    assert_eq!(blocker["pid"], pid);
    assert_eq!(blocker["application"], "importer");
    assert_eq!(blocker["login"], login);
    assert!(blocker["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{status}");
    assert!(blocker["query"].as_str().is_some_and(|query| query.contains("append")), "{status}");
    open.commit().await.must("commit");
    // Its position is below the checkpoint.
    let (_, status) = bed.relay().status().await;
    assert_eq!(status["lag"]["events"], 1, "{status}");
    assert_eq!(status["categories"][CATEGORY]["events"], 1, "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_waits_is_named_with_what_it_waits_for() {
    let kafka = TwoDoors::linked("").await;
    let bed = Testbed::on("status_waits", kafka.environment().clone()).await;
    let follower = bed.follow();
    let settings = bed.relay().impatient().kafka(&kafka.other());
    let mut relay = RelayProcess::start(&settings);
    append(&bed, "a").await;
    follower.until_count(1).await;
    relay.turn_page();
    kafka.link().cut();
    append(&bed, "a").await;
    relay.waits_for("kafka").await;
    let status = until(&settings, |status| status["relays"][0]["report"]["status"] == "waiting");
    let status = status.await;
    assert_eq!(status["is_ready"], false);
    assert_eq!(status["relays"][0]["report"]["waiting_for"], "kafka");
    let why = status["not_ready"].to_string();
    assert!(why.contains("relay a is waiting for kafka since "), "{why}");
    assert_eq!(status["lag"]["events"], 1);
    let mut open = PgConnection::connect(&bed.database_url()).await.must("connect");
    let mut open = open.begin().await.must("begin");
    let late = Append::to(&account("late"), ExpectedVersion::NoStream, [opened("ann")]);
    bed.store().append_in(&mut open, &late).await.must("append");
    metrics_are_those_of(&relay, &status).await;
    open.rollback().await.must("roll back");
    kafka.link().mend();
    follower.until_count(2).await;
    assert!(relay.terminate().await.success());
}

/// Waits until the relay serves what `status` says: one event of one shard and category waits, and
/// one transaction is open.
async fn metrics_are_those_of(relay: &RelayProcess, status: &Value) {
    let shards = status["shards"].as_array().must("have shards").iter();
    let waiting: Vec<&Value> = shards.filter(|of| of["lag"]["events"] == 1).collect();
    let [shard] = waiting[..] else { panic!("one shard has an event: {status}") };
    let of_shard = |name: &str| format!("annals_relay_{name}{{shard=\"{}\"}}", shard["shard"]);
    let of_category =
        |name: &str| format!("annals_relay_category_{name}{{category=\"{CATEGORY}\"}}");
    let same = [
        ("annals_relay_unpublished_events".to_owned(), &status["lag"]["events"]),
        (of_shard("lag_events"), &shard["lag"]["events"]),
        (of_category("lag_events"), &status["categories"][CATEGORY]["events"]),
        ("annals_relay_generation".to_owned(), &status["generation"]),
        ("annals_relay_outbox_partitions".to_owned(), &status["outbox_partitions"]),
        ("annals_relay_outbox_droppable_partitions".to_owned(), &status["droppable_partitions"]),
    ];
    let ages = [
        of_shard("lag_seconds"),
        of_category("lag_seconds"),
        "annals_relay_oldest_unpublished_seconds".to_owned(),
        "annals_relay_open_transaction_seconds".to_owned(),
    ];
    let address = relay.http().await;
    let mut differ = Vec::new();
    let are_same = async || {
        let served = http_get(address, "/metrics", "").await;
        differ = different(&served, &same, &ages);
        differ.is_empty()
    };
    annals_testkit::until("the metrics are those of status", are_same).await;
}

/// The series that do not have the value of `status`, or no age.
fn different(served: &HttpAnswer, same: &[(String, &Value)], ages: &[String]) -> Vec<String> {
    let differs = |(series, value): &&(String, &Value)| served.metric(series) != value.as_f64();
    let numbers = same.iter().filter(differs).map(|(series, _)| series.clone());
    let has_no_age = |series: &&String| served.metric(series).is_none_or(|age| age <= 0.0);
    numbers.chain(ages.iter().filter(has_no_age).cloned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_backlog_is_estimated_near_the_truth() {
    let bed = Testbed::new("status_large").await;
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let fill = sqlx::raw_sql(include_str!("sql/fill_backlog.sql"));
    fill.execute(&mut connection).await.must("fill the store");
    let (_, status) = bed.relay().status().await;
    assert_eq!(status["lag"]["is_estimate"], true);
    near(&status["lag"]["events"], 60_000, "all");
    let seconds = status["lag"]["seconds"].as_f64().must("read the age");
    assert!(seconds > 59_990.0, "the oldest event is found: {status}");
    let of_category =
        |row: &PgRow| status["categories"][row.get::<&str, _>("category")]["events"].clone();
    let of_shard = |row: &PgRow| {
        let shard = usize::try_from(row.get::<i32, _>("shard")).must("read a shard");
        status["shards"][shard]["lag"]["events"].clone()
    };
    let rows = sqlx::query(include_str!("sql/backlog_by_category.sql")).fetch_all(&mut connection);
    for row in rows.await.must("count the events of categories") {
        near(&of_category(&row), row.get("events"), "a category");
    }
    let rows = sqlx::query(include_str!("sql/backlog_by_shard.sql")).fetch_all(&mut connection);
    for row in rows.await.must("count the events of shards") {
        near(&of_shard(&row), row.get("events"), "a shard");
    }
}

fn near(found: &Value, truth: i64, what: &str) {
    let found = found.as_i64().must("read a number of events");
    assert!((found - truth).abs() * 20 < truth, "{what}: estimated {found}, true {truth}");
}
