//! The relay tells over HTTP whether it publishes and what it waits for, also while a component is
//! away, and whether its event loop turns.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    ALL_SHARDS, FaultyLink, HttpAnswer, Must, RelayProcess, Testbed, TwoDoors, account, deposited,
    http_address, http_get, until,
};
use tokio::io::{AsyncBufReadExt, BufReader};

async fn append(bed: &Testbed) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_ready_once_it_publishes_and_serves_its_metrics() {
    let bed = Testbed::new("ready").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    let address = relay.http().await;
    relay.publishes(ALL_SHARDS).await;
    append(&bed).await;
    follower.until_count(1).await;
    let ready = HttpAnswer::until(address, "/health/ready", 200).await;
    let said = ready.json();
    assert_eq!(said["status"], "ready");
    assert_eq!(said["instance"], "a");
    assert_eq!(said["shards"].as_array().map(Vec::len), Some(8));
    assert_eq!(http_get(address, "/health/live", "").await.status, 200);
    // Counted once Kafka has answered: a consumer can have the event before.
    let counted = "annals_relay_events_published_total 1\n";
    until("the event is counted", async || {
        http_get(address, "/metrics", "").await.body.contains(counted)
    })
    .await;
    let metrics = http_get(address, "/metrics", "").await;
    assert!(metrics.head.to_lowercase().contains("text/plain; version=0.0.4"), "{}", metrics.head);
    for line in [
        "annals_relay_ready 1",
        "annals_relay_owned_shards 8",
        "annals_relay_waiting{for=\"kafka\"} 0",
        "annals_relay_failures_total{class=\"fatal\"} 0",
    ] {
        assert!(metrics.body.lines().any(|said| said == line), "{line}\n{}", metrics.body);
    }
    for of in ["page", "transaction", "commit", "registry_request"] {
        let count = metrics.metric(&format!("annals_relay_{of}_duration_seconds_count"));
        assert!(count > Some(0.0), "{of}\n{}", metrics.body);
    }
    assert_eq!(metrics.metric("annals_relay_batch_events_sum"), Some(1.0), "{}", metrics.body);
    let delay = metrics.metric("annals_relay_publish_delay_seconds_sum");
    assert!(delay > Some(0.0), "{}", metrics.body);
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_kafka_is_away_it_is_alive_and_not_ready_and_says_why() {
    let kafka = TwoDoors::linked("").await;
    let bed = Testbed::on("not_ready", kafka.environment().clone()).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay().impatient().kafka(&kafka.other()));
    let address = relay.http().await;
    append(&bed).await;
    follower.until_count(1).await;
    relay.turn_page();
    kafka.link().cut();
    append(&bed).await;
    relay.keeps_waiting_for("kafka").await;
    let refused = http_get(address, "/health/ready", "").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let said = refused.json();
    assert_eq!(said["status"], "waiting");
    assert_eq!(said["waiting_for"], "kafka");
    assert!(said["error"].as_str().is_some_and(|error| !error.is_empty()), "{said}");
    assert!(said["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{said}");
    assert!(said["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{said}");
    assert_eq!(http_get(address, "/health/live", "").await.status, 200);
    let metrics = http_get(address, "/metrics", "").await;
    assert_eq!(metrics.metric("annals_relay_waiting{for=\"kafka\"}"), Some(1.0), "{metrics:?}");
    assert_eq!(metrics.metric("annals_relay_ready"), Some(0.0), "{metrics:?}");
    let failures = metrics.metric("annals_relay_failures_total{class=\"unavailable\"}");
    assert!(failures > Some(0.0), "{metrics:?}");
    kafka.link().mend();
    follower.until_count(2).await;
    HttpAnswer::until(address, "/health/ready", 200).await;
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_silent_it_answers_and_names_it() {
    let bed = Testbed::new("silent_ready").await;
    let follower = bed.follow();
    let (database, near) = FaultyLink::before(&bed.database_url()).await;
    let mut relay = RelayProcess::start(&bed.relay().impatient().database(&near));
    let address = relay.http().await;
    append(&bed).await;
    follower.until_count(1).await;
    database.silence();
    relay.keeps_waiting_for("database").await;
    let refused = http_get(address, "/health/ready", "").await;
    assert_eq!((refused.status, &refused.json()["waiting_for"]), (503, &"database".into()));
    assert_eq!(http_get(address, "/health/live", "").await.status, 200);
    assert_eq!(http_get(address, "/metrics", "").await.status, 200);
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_its_database_answers_it_is_alive_and_waits_for_it() {
    let bed = Testbed::new("waits_at_start").await;
    let (database, near) = FaultyLink::before(&bed.database_url()).await;
    database.cut();
    let mut relay = RelayProcess::start(&bed.relay().impatient().database(&near));
    let address = relay.http().await;
    relay.waits_for("database").await;
    let refused = http_get(address, "/health/ready", "").await;
    assert_eq!((refused.status, &refused.json()["waiting_for"]), (503, &"database".into()));
    assert_eq!(http_get(address, "/health/live", "").await.status, 200);
    database.mend();
    HttpAnswer::until(address, "/health/ready", 200).await;
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_whose_event_loop_hangs_is_not_alive() {
    let bed = Testbed::new("hung").await;
    // A full pipe blocks the thread that writes to it: the event loop logs.
    let settings = bed
        .relay()
        .variable("ANNALS_RELAY__HTTP__HUNG_MS_MAX", "1000")
        .variable("ANNALS_RELAY__LOG__LEVEL", "trace");
    let mut relay = settings.start_unread();
    let mut log = BufReader::new(relay.stderr.take().must("read the relay's log")).lines();
    let address = loop {
        let line = log.next_line().await.must("read a line").must("find the relay's address");
        if line.contains("http_listening") {
            break http_address(&line);
        }
    };
    let hung = HttpAnswer::until(address, "/health/live", 503).await;
    assert_eq!(hung.json()["status"], "hung");
    // On a slow machine it can have been slow only, before the pipe was full.
    let is_hung = async || {
        let refused = http_get(address, "/health/ready", "").await;
        refused.status == 503 && refused.json()["status"] == "hung"
    };
    until("it is not ready since it hangs", is_hung).await;
    assert_eq!(http_get(address, "/metrics", "").await.status, 200);
    // It goes on as soon as its log is read.
    let reading = tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    HttpAnswer::until(address, "/health/live", 200).await;
    relay.kill().await.must("kill the relay");
    reading.await.must("read the log to its end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_need_the_token_and_a_second_relay_a_port_of_its_own() {
    let bed = Testbed::new("token").await;
    let mut relay =
        RelayProcess::start(&bed.relay().variable("ANNALS_RELAY__HTTP__TOKEN", "s3cret"));
    let address = relay.http().await;
    assert_eq!(http_get(address, "/metrics", "").await.status, 401);
    let with_token = http_get(address, "/metrics", "Authorization: Bearer s3cret\r\n").await;
    assert_eq!(with_token.status, 200);
    let second = bed.relay().instance("b");
    let second = second.variable("ANNALS_RELAY__HTTP__LISTEN", &address.to_string());
    let mut second = RelayProcess::start(&second);
    assert!(!second.ended().await.success());
    let said = second.event_with("halted", &[("cause", "http")]).await;
    assert!(said.contains(&address.to_string()) && !said.contains("s3cret"), "{said}");
    assert!(relay.terminate().await.success());
}
