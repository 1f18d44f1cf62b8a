//! `check` names what will not work before the first start, and changes nothing.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    CATEGORY, Must, RelayProcess, RelaySettings, Testbed, account, configure_topic, create_topic,
    deposited, topics,
};
use serde_json::Value;

const ERRORS: i32 = 3;

async fn findings(settings: &RelaySettings) -> (i32, Vec<(String, String, String)>) {
    let (code, said) = settings.run_for_code(&["check", "--json"]).await;
    let Ok(found) = serde_json::from_str::<Value>(&said) else { panic!("{said}") };
    let text = |finding: &Value, name: &str| finding[name].as_str().must("have a text").to_owned();
    let all = found["findings"].as_array().must("have findings").iter();
    let all = all.map(|of| (text(of, "component"), text(of, "severity"), text(of, "what")));
    (code, all.collect())
}

fn has(found: &[(String, String, String)], component: &str, severity: &str, part: &str) -> bool {
    found.iter().any(|(of, how, what)| of == component && how == severity && what.contains(part))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_installation_has_no_error_and_is_not_changed() {
    let bed = Testbed::new("check_sound").await;
    let before = (bed.fingerprint().await, topics(&bed.environment().kafka, bed.name()));
    let (code, found) = findings(&bed.relay()).await;
    assert!(code == 0 && found.iter().all(|(_, severity, _)| severity == "warning"), "{found:?}");
    assert!(has(&found, "kafka", "warning", "one broker"), "{found:?}");
    assert_eq!(before, (bed.fingerprint().await, topics(&bed.environment().kafka, bed.name())));
    let mut relay = RelayProcess::start(&bed.relay());
    relay.event("publishing").await;
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_planted_fault_is_named_by_its_component() {
    let bed = Testbed::new("check_faults").await;
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    create_topic(brokers, &topic, 4).await;
    configure_topic(brokers, &topic, "min.insync.replicas", "2").await;
    let settings = bed
        .relay()
        .variable("ANNALS_RELAY__TOPICS__REPLICATION_FACTOR", "3")
        .variable("ANNALS_RELAY__KAFKA__TRANSACTION_TIMEOUT_MS", "900000")
        .variable("ANNALS_RELAY__REGISTRY__AUTO_REGISTER", "false");
    let (code, found) = findings(&settings).await;
    assert_eq!(code, ERRORS);
    for (component, severity, part) in [
        ("kafka", "error", "too few brokers for topics.replication_factor"),
        ("kafka", "error", "a topic cannot be created"),
        ("kafka", "error", "has 1 replicas, and writes need 2"),
        ("kafka", "warning", "retention.ms is 604800000, not -1"),
        ("registry", "error", "MoneyDeposited"),
    ] {
        assert!(has(&found, component, severity, part), "{part} not in {found:?}");
    }

    let nowhere = bed.relay().kafka("127.0.0.1:1").registry("http://127.0.0.1:1");
    let (code, found) = findings(&nowhere).await;
    assert_eq!(code, ERRORS);
    assert!(has(&found, "kafka", "error", "") && has(&found, "registry", "error", ""), "{found:?}");

    let reader = format!("{}?options=-c%20role%3Dannals_read", bed.database_url());
    let (code, found) = findings(&bed.relay().database(&reader)).await;
    let is_named =
        has(&found, "database", "error", "insert and update on annals.relay_checkpoints");
    assert!(code == ERRORS && is_named, "{found:?}");
    let empty = bed.relay().variable("ANNALS_RELAY__DATABASE__SCHEMA", "elsewhere");
    let (code, found) = findings(&empty).await;
    let is_named = has(&found, "database", "error", "schema elsewhere has no event store");
    assert!(code == ERRORS && is_named, "{found:?}");
}
