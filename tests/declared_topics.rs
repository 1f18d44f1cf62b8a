//! `topics plan` names each difference between declared topics and those of the broker, and `topics
//! apply` ends those that can be ended without breaking the order of streams.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    CATEGORY, Must, RelayProcess, RelaySettings, Testbed, account, configure_topic, create_topic,
    deposited, partitions, topic_configuration, topics,
};
use serde_json::Value;

const DIFFERENT: i32 = 3;

async fn append(bed: &Testbed) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
}

/// The exit code, and the changes of a part of the answer as topic and kind.
async fn changes(settings: &RelaySettings, verb: &str, part: &str) -> (i32, Vec<(String, Value)>) {
    let (code, said) = settings.run_for_code(&["topics", verb, "--json"]).await;
    let Ok(said) = serde_json::from_str::<Value>(&said) else { panic!("{said}") };
    let changes = said[part].as_array().must("have changes").iter();
    let topic = |of: &Value| of["topic"].as_str().must("have a topic").to_owned();
    (code, changes.map(|of| (topic(of), of.clone())).collect())
}

fn kinds(changes: &[(String, Value)]) -> Vec<(&str, &str)> {
    let kind = |of: &Value| match of["change"].as_str() {
        Some("create") => "create",
        Some("set") => "set",
        _ => "manual",
    };
    let mut kinds: Vec<_> = changes.iter().map(|(topic, of)| (topic.as_str(), kind(of))).collect();
    kinds.sort_unstable();
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_are_planned_and_applied_and_other_settings_stay() {
    let bed = Testbed::new("topics_planned").await;
    append(&bed).await;
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    create_topic(brokers, &topic, 4).await;
    configure_topic(brokers, &topic, "max.message.bytes", "2000000").await;
    let settings = bed.relay().variable(
        "ANNALS_RELAY__TOPICS__CATEGORIES",
        "{ ledger = { partitions = 2, config = { \"retention.ms\" = 5 } } }",
    );
    let before = topics(brokers, bed.name());

    let (code, planned) = changes(&settings, "plan", "differences").await;
    let (ledger, claims) = (bed.topic("ledger"), bed.claims_topic());
    let is_of_checkpoints = |(topic, _): &&(String, Value)| topic.contains("-checkpoints-");
    let checkpoints = planned.iter().find(is_of_checkpoints).must("plan the topic of checkpoints");
    let checkpoints = checkpoints.0.clone();
    let mut expected = vec![
        (topic.as_str(), "set"),
        (ledger.as_str(), "create"),
        (claims.as_str(), "create"),
        (checkpoints.as_str(), "create"),
    ];
    expected.sort_unstable();
    assert_eq!((code, kinds(&planned)), (DIFFERENT, expected.clone()));
    let set = &planned.iter().find(|(of, _)| *of == topic).must("find a change").1;
    assert_eq!((&set["setting"], &set["planned"]), (&"retention.ms".into(), &"-1".into()));
    assert_eq!(topics(brokers, bed.name()), before, "plan changes nothing");

    let (code, applied) = changes(&settings, "apply", "applied").await;
    // Claiming creates the topic of claims.
    assert_eq!((code, kinds(&applied)), (0, expected));
    assert_eq!(partitions(brokers, &ledger).await, 2);
    assert_eq!(topic_configuration(brokers, &ledger).await["retention.ms"], "5");
    let corrected = topic_configuration(brokers, &topic).await;
    assert_eq!((&*corrected["retention.ms"], &*corrected["max.message.bytes"]), ("-1", "2000000"));
    assert_eq!(settings.run_for_code(&["topics", "plan"]).await, (0, "0 differences\n".to_owned()));
    configure_topic(brokers, &topic, "retention.ms", "6").await;
    let (code, said) = settings.run_on_terminal(&["topics", "apply"]).await;
    assert!(code == 0 && said.contains("] topics changed: 1 of 1"), "{said}");
    let mut relay = RelayProcess::start(&settings);
    bed.until_copied().await;
    assert!(!relay.has_event("topic_created") && !relay.has_event("topic_differs"));
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_and_colliding_names_are_left_to_the_operator() {
    let bed = Testbed::new("topics_left").await;
    append(&bed).await;
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    let alike = topic.replacen('_', ".", 1);
    assert_ne!(alike, topic);
    create_topic(brokers, &alike, 1).await;
    create_topic(brokers, &bed.topic("ledger"), 3).await;
    let settings =
        bed.relay().variable("ANNALS_RELAY__TOPICS__CATEGORIES", "{ ledger = { partitions = 2 } }");
    for (verb, left) in [("plan", "differences"), ("apply", "differences")] {
        let (code, said) = changes(&settings, verb, left).await;
        assert_eq!(code, DIFFERENT);
        let what = |topic: &str| {
            let manual =
                said.iter().filter(|(of, change)| of == topic && change["change"] == "manual");
            manual.filter_map(|(_, of)| of["what"].as_str()).next().must("find a change").to_owned()
        };
        assert!(what(&topic).contains(&format!("beside topic {alike}")), "{said:?}");
        assert_eq!(what(&bed.topic("ledger")), "has 3 partitions, not 2");
    }
    assert_eq!(partitions(brokers, &bed.topic("ledger")).await, 3);
    // The relay holds the category, and says why.
    let mut relay = RelayProcess::start(&settings);
    relay.quarantines_for("topic", CATEGORY).await;
    assert!(relay.terminate().await.success());
}
