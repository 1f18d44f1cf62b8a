//! Metrics, alert rules, runbook and dashboard fit together: Prometheus' own checker accepts the
//! metrics and tests the rules, and a real Prometheus that scrapes a running relay answers every
//! query.

use std::collections::BTreeSet;

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    Must, Prometheus, RelayProcess, Testbed, account, deposited, http_get, promtool, until,
};
use serde_json::Value;

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/prometheus");
const ALERTS: &str = include_str!("../ops/prometheus/alerts.yml");
const RUNBOOK: &str = include_str!("../ops/runbook.md");
const OPERATIONS: &str = include_str!("../docs/operations.md");
const DASHBOARD: &str = include_str!("../ops/grafana/annals-relay.json");

async fn append(bed: &Testbed) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
}

/// The names of the relay's metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_of_name(c));
    words.filter(|word| word.starts_with("annals_relay_")).collect()
}

/// The metrics that a relay serves.
fn served(metrics: &str) -> BTreeSet<&str> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).collect()
}

/// The name of a metric without the suffix of a histogram.
fn base<'a>(name: &'a str, served: &BTreeSet<&str>) -> &'a str {
    let parts = ["_bucket", "_sum", "_count"].iter();
    let of_histogram = parts.filter_map(|part| name.strip_suffix(part));
    of_histogram.into_iter().find(|name| served.contains(name)).unwrap_or(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_of_a_running_relay_pass_promtool_and_are_documented() {
    let bed = Testbed::new("promtool").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    let address = relay.http().await;
    append(&bed).await;
    follower.until_count(1).await;
    // Measured once Kafka has answered: a consumer can have the event before.
    let mut metrics = String::new();
    until("the event is counted", async || {
        metrics = http_get(address, "/metrics", "").await.body;
        metrics.contains("annals_relay_events_published_total 1\n")
    })
    .await;
    let checked = promtool(RULES, &["check", "metrics"], &metrics).await;
    assert_eq!(checked, Ok(String::new()));
    let unnamed = promtool(RULES, &["check", "metrics"], "# TYPE lag_ms counter\nlag_ms 1\n").await;
    assert!(unnamed.is_err(), "the checker finds a fault");

    let served = served(&metrics);
    assert!(served.len() > 30, "{served:?}");
    let documented = metrics_in(OPERATIONS);
    let of_relay = served.iter().filter(|name| name.starts_with("annals_relay_"));
    let missing: Vec<_> = of_relay.filter(|name| !documented.contains(**name)).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
    for (file, text) in [("alerts", ALERTS), ("dashboard", DASHBOARD), ("docs", OPERATIONS)] {
        let used = metrics_in(text).into_iter().map(|name| base(name, &served));
        let unknown: Vec<_> = used.filter(|name| !served.contains(name)).collect();
        assert!(unknown.is_empty(), "{file}: no such metrics: {unknown:?}");
    }
    assert!(relay.terminate().await.success());
}

#[tokio::test]
async fn alert_rules_fire_for_their_causes_and_each_has_a_section_of_the_runbook() {
    let tested = promtool(RULES, &["test", "rules", "alerts.test.yml"], "").await;
    assert!(tested.is_ok(), "{tested:?}");
    for file in ["prometheus.yml", "prometheus.compose.yml"] {
        let checked = promtool(RULES, &["check", "config", file], "").await;
        assert!(checked.is_ok_and(|said| said.contains("1 rule files found")), "{file}");
    }
    let names = |text: &'static str, before: &'static str| {
        let names = text.lines().filter_map(move |line| line.trim().strip_prefix(before));
        names.collect::<BTreeSet<_>>()
    };
    let alerts = names(ALERTS, "- alert: ");
    assert!(alerts.len() > 10, "{alerts:?}");
    assert_eq!(alerts, names(RUNBOOK, "## "), "each alert has its section, and no other is there");
    let tests = include_str!("../ops/prometheus/alerts.test.yml");
    let untested: Vec<_> =
        alerts.iter().filter(|alert| !tests.contains(&format!("alertname: {alert}\n"))).collect();
    assert!(untested.is_empty(), "no test fires {untested:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_dashboard_is_answered_by_a_prometheus_that_scrapes_a_relay() {
    let bed = Testbed::new("dashboard").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    let prometheus = Prometheus::scraping(relay.http().await).await;
    // A rate needs a scrape from before the event.
    prometheus.until_answered("annals_relay_ready").await;
    append(&bed).await;
    follower.until_count(1).await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).must("read the dashboard");
    let panels = dashboard["panels"].as_array().must("find the panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<String> =
        targets.filter_map(|target| target["expr"].as_str()).map(of_grafana).collect();
    assert!(queries.len() > 20, "{queries:?}");
    for query in queries {
        prometheus.until_answered(&query).await;
    }
    // The instances from which a person chooses.
    let choice = &dashboard["templating"]["list"];
    let choice = choice.as_array().must("find the variables").iter();
    let choice = choice.filter_map(|of| of["query"]["query"].as_str()).collect::<Vec<_>>();
    assert_eq!(choice, ["label_values(annals_relay_ready, instance)"]);
    prometheus.until_answered("count by (instance) (annals_relay_ready{instance=~\".+\"})").await;
    assert!(relay.terminate().await.success());
}

/// A query as Grafana sends it.
fn of_grafana(query: &str) -> String {
    query.replace("$__rate_interval", "1m").replace("$instance", ".*")
}
