//! The log says why a relay waits or ends: with the whole error, as text and as JSON, and an error
//! that ends it once to people.

use std::net::TcpListener;

use annals_testkit::{Must, RelayProcess, RelaySettings, Testbed};
use serde_json::Value;

/// The lines of `run` that ends since the address of its HTTP server is in use.
async fn lines(settings: &RelaySettings, address: &str) -> Vec<String> {
    let settings = settings.clone().variable("ANNALS_RELAY__HTTP__LISTEN", address);
    let said = settings.run(&["run"]).await.expect_err("the relay runs");
    said.lines().filter(|line| line.contains(address)).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_error_that_ends_a_relay_is_logged_with_its_cause_and_said_once() {
    let bed = Testbed::new("halted").await;
    let taken = TcpListener::bind("127.0.0.1:0").must("listen");
    let address = taken.local_addr().must("find the address").to_string();

    let text = lines(&bed.relay(), &address).await;
    assert_eq!(text.len(), 1, "{text:?}");
    assert!(text[0].contains("event=\"halted\" cause=\"http\""), "{text:?}");

    let json = bed.relay().variable("ANNALS_RELAY__LOG__FORMAT", "json");
    let json = lines(&json, &address).await;
    assert_eq!(json.len(), 2, "an entry of the log, and a line for people: {json:?}");
    let entry: Value = serde_json::from_str(&json[0]).must("read the entry");
    assert_eq!((&entry["event"], &entry["cause"]), (&"halted".into(), &"http".into()));
    assert_eq!(entry["level"], "ERROR");
    let error = entry["error"].as_str().must("find the error");
    assert_eq!(json[1], format!("annals-relay: {error}"));

    let silent = bed.relay().variable("ANNALS_RELAY__LOG__LEVEL", "off");
    let silent = lines(&silent, &address).await;
    assert_eq!(silent, [format!("annals-relay: {error}")]);
}

#[tokio::test]
async fn an_entry_in_json_has_the_error_with_its_causes() {
    let bed = Testbed::new("json_log").await;
    let nowhere = "postgres://annals:annals@127.0.0.1:1/annals";
    let settings = bed.relay().database(nowhere).variable("ANNALS_RELAY__LOG__FORMAT", "json");
    let mut relay = RelayProcess::start(&settings);
    let entry = relay.printed("\"event\":\"outage_began\"").await;
    let entry: Value = serde_json::from_str(&entry).must("read the entry");
    assert_eq!(entry["waiting_for"], "database");
    let error = entry["error"].as_str().must("find the error");
    assert!(error.contains(": pool timed out"), "the cause is missing: {error}");
    relay.kill().await;
}
