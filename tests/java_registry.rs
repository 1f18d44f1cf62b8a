//! A registry that prints schemas anew, as Confluent's does with Avro's Java library, has not lost
//! its data: the meaning of a definition counts, not its text.

use std::path::Path;

use annals_schemas::Schema;
use annals_store::{Append, ExpectedVersion, NewEvent};
use annals_testkit::{
    Follower, JavaPrinter, JavaRegistry, Must, RelayProcess, Testbed, account, check, deposited,
    opened, until,
};

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct MoneyMoved {
    note: String,
}

annals_schemas::events! {
    /// Events whose schema Java prints differently from its source.
    #[derive(Debug, Clone, PartialEq)]
    pub enum Moved in "account" {
        /// Money was moved.
        MoneyMoved = "avro/MoneyMoved.v1.avsc",
    }
}

fn moved() -> NewEvent {
    NewEvent::new(&Moved::from(MoneyMoved { note: "x".to_owned() })).must("encode an event")
}

/// Contains everything that Java prints differently.
const NASTY: &str = r#"{"fields":[
    {"name":"id","type":{"type":"string"},"order":"ascending","aliases":[],"doc":"caf\u00e9 \"x\""},
    {"name":"kind","type":{"type":"enum","name":"com.acme.inner.Kind","symbols":["A","B"],"default":"B"}},
    {"name":"again","type":["null","com.acme.inner.Kind"],"default":null},
    {"name":"own","type":{"type":"record","name":"Own","namespace":"com.acme","aliases":["Old","x.Older"],"fields":[
        {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2},"default":"\u00ff\u0001"},
        {"name":"none","type":{"type":"bytes","scale":0,"logicalType":"decimal","precision":4}}]}},
    {"name":"more","type":{"type":"array","items":"com.acme.Own"},"default":[]},
    {"name":"rate","type":"double","default":1e2},
    {"name":"whole","type":"double","default":1},
    {"name":"small","type":"float","default":0.10},
    {"name":"tiny","type":"double","default":1.5E-7},
    {"name":"big","type":"long","default":9007199254740993},
    {"name":"hash","type":{"type":"fixed","name":"Hash","namespace":"com.acme","size":16,"logicalType":"uuid"}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"},"order":"ignore","aliases":["when","when"]},
    {"name":"cents","type":{"logicalType":"cents","type":"long","currency":"EUR"}},
    {"name":"map","type":{"type":"map","values":["null",{"type":"int"}]},"default":{"b":1,"a":null}}
  ],"pii":true,"name":"com.acme.Nasty","type":"record","aliases":["Nastier"],"doc":"why"}"#;

/// Changes of [`NASTY`] that give another schema.
const CHANGES: [(&str, &str); 14] = [
    ("\"name\":\"id\"", "\"name\":\"key\""),
    ("[\"A\",\"B\"]", "[\"B\",\"A\"]"),
    ("\"default\":\"B\"", "\"default\":\"A\""),
    ("com.acme.inner", "com.acme.outer"),
    ("x.Older", "y.Older"),
    ("\"scale\":2", "\"scale\":3"),
    ("\"precision\":9", "\"precision\":8"),
    ("\\u00ff\\u0001", "\\u00fe\\u0001"),
    ("1e2", "1e3"),
    ("9007199254740993", "9007199254740992"),
    ("timestamp-micros", "timestamp-millis"),
    ("\"logicalType\":\"cents\"", "\"logicalType\":\"mills\""),
    ("\"size\":16,\"logicalType\":\"uuid\"", "\"size\":16"),
    ("{\"b\":1,\"a\":null}", "{\"b\":2,\"a\":null}"),
];

fn definitions(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).must("list schemas") {
        let path = entry.must("list schemas").path();
        if path.is_dir() {
            definitions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "avsc") {
            found.push(std::fs::read_to_string(path).must("read a schema"));
        }
    }
}

fn parse(definition: &str) -> Schema {
    Schema::parse(definition).unwrap_or_else(|error| panic!("{error}\n{definition}"))
}

#[tokio::test]
async fn every_schema_is_recognised_after_java_has_printed_it() {
    let printer = JavaPrinter::start().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().must("find the checkout");
    let mut found = vec![NASTY.to_owned()];
    for directory in ["schemas/avro", "tests/avro", "schemas/tests/avro/order", "bench/avro"] {
        definitions(&root.join(directory), &mut found);
    }
    assert!(found.len() > 15, "{}", found.len());
    for definition in found {
        let schema = parse(&definition);
        let printed = printer.print(schema.definition()).await.unwrap();
        assert!(parse(&printed).is_equivalent_to(&schema), "{definition}\n{printed}");
    }
}

#[tokio::test]
async fn another_schema_is_told_apart_after_java_has_printed_it() {
    let printer = JavaPrinter::start().await;
    for (from, to) in CHANGES {
        let changed = NASTY.replace(from, to);
        assert_ne!(changed, NASTY, "{from}");
        let printed = printer.print(&changed).await.unwrap();
        assert!(parse(&printed).is_equivalent_to(&parse(&changed)), "{from}\n{printed}");
        assert!(!parse(&printed).is_equivalent_to(&parse(NASTY)), "{from}\n{printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_publishes_with_a_registry_that_prints_schemas_anew() {
    let bed = Testbed::new("java_registry").await;
    let registry = JavaRegistry::start(&bed.environment().registry_url).await;
    let follower = Follower::start(&bed.environment().kafka, &[&bed.topic("account")]);
    let mut relay = RelayProcess::start(&bed.relay().registry(registry.url()));
    let append = |event| Append::to(&account("a"), ExpectedVersion::Any, [event]);
    bed.store().append(&append(moved())).await.must("append");
    bed.store().append(&append(deposited(1))).await.must("append");
    follower.until_count(2).await;
    // A starting relay checks whether the ids still belong to the schemas.
    relay.kill().await;
    relay.restart();
    bed.store().append(&append(moved())).await.must("append");
    follower.until_count(3).await;
    // Events do not wait for the check.
    let is_checked = async || registry.requests().iter().any(|of| of.contains("/schemas/ids/"));
    until("an id is checked", is_checked).await;
    assert!(relay.terminate().await.success());
    assert!(!relay.has_event("quarantined"), "nothing is quarantined");
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_login_in_the_registrys_url_is_used_and_shown_nowhere() {
    const USER: &str = "keyofann";
    const PASSWORD: &str = "hunter2secret";
    let bed = Testbed::new("registry_login").await;
    let registry = JavaRegistry::start(&bed.environment().registry_url).await;
    let url = registry.url_with_login(&format!("{USER}:{PASSWORD}"));
    let settings = bed
        .relay()
        .registry(&url)
        .variable("ANNALS_RELAY__REGISTRY__AUTO_REGISTER", "false")
        .variable("ANNALS_RELAY__LOG__LEVEL", "debug,annals_relay=trace,reqwest=trace,hyper=trace");
    let relay = RelayProcess::start(&settings);
    let append = Append::to(&account("a"), ExpectedVersion::Any, [opened("ann")]);
    bed.store().append(&append).await.must("append");
    // The message about an unregistered schema contains the registry's address.
    relay.quarantines("account-a").await;
    let mut shown = vec![relay.text()];
    for arguments in [
        &["quarantine", "show", "account-a"][..],
        &["quarantine", "list"],
        &["status"],
        &["check-config"],
    ] {
        shown.push(settings.run(arguments).await.unwrap());
    }
    let holds: Vec<String> = sqlx::query_scalar(include_str!("sql/quarantine_reasons.sql"))
        .fetch_all(bed.store().pool())
        .await
        .must("read the quarantine");
    assert_eq!(holds.len(), 1);
    shown.extend(holds);
    for text in &shown {
        assert!(!text.contains(PASSWORD) && !text.contains(USER), "{text}");
    }
    // keyofann:hunter2secret
    let login = "authorization: Basic a2V5b2Zhbm46aHVudGVyMnNlY3JldA==";
    let has_login = |head: &String| head.to_lowercase().contains(&login.to_lowercase());
    assert!(registry.requests().iter().all(has_login), "{:?}", registry.requests());
    let refused = settings.registry("http://ann:hunter2/secret@h").run(&["check-config"]).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("%2F") && !refused.contains("hunter2"), "{refused}");
}
