//! `annals-relay schemas`: for build pipelines, by exit code and by JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{CATEGORY, Must, RelayProcess, RelaySettings, Testbed, account, deposited};
use serde_json::Value;

const V1: &str = include_str!("../schemas/avro/account/MoneyDeposited.v1.avsc");
const V2: &str = include_str!("avro/MoneyDeposited.v2.avsc");
const WITHOUT_DEFAULT: &str = include_str!("avro/MoneyDeposited.incompatible.avsc");
/// Readers of old events are fine; consumers of the first version look for the note.
const WITHOUT_NOTE: &str = r#"{"type": "record", "name": "annals.test.account.MoneyDeposited", "fields": [
    {"name": "sequence", "type": "long"}, {"name": "cents", "type": "long"}]}"#;
const OPEN_POINT: &str = r#"{"type": "record", "name": "annals.test.account.Opened", "fields": [
    {"name": "limit", "type": ["null", "long"], "default": 0}]}"#;

/// A folder with the files of the category of accounts.
fn folder(bed: &Testbed, label: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.{label}", bed.name()));
    let category = folder.join(CATEGORY);
    fs::create_dir_all(&category).must("make a folder");
    for (name, text) in files {
        fs::write(category.join(name), text).must("write a schema");
    }
    folder
}

/// The exit code, and the problem of each finding.
async fn problems(settings: &RelaySettings, arguments: &[&str]) -> (i32, Vec<String>) {
    let arguments = [&["schemas"], arguments, &["--json"]].concat();
    let (code, said) = settings.run_for_code(&arguments).await;
    let Ok(found) = serde_json::from_str::<Value>(&said) else { panic!("{said}") };
    let findings = found["findings"].as_array().must("have findings").iter();
    let text = |finding: &Value| finding["problem"].as_str().must("be a text").to_owned();
    (code, findings.map(text).collect())
}

async fn with_an_event(label: &str) -> Testbed {
    let bed = Testbed::new(label).await;
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
    bed
}

/// A label, the files with their contents, more arguments, and the expected problems.
type CheckCase<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str], &'a [&'a str]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_checked_against_every_version_in_the_store_and_says_who_would_break() {
    let bed = with_an_event("schemas_check").await;
    let settings = bed.relay();
    let readers = "breaks_readers_of_old_events";
    let consumers = "breaks_consumers_not_upgraded";
    let cases: [CheckCase<'_>; 7] = [
        ("same", &[("MoneyDeposited.v1.avsc", V1)], &[], &[]),
        ("default", &[("MoneyDeposited.avsc", V2)], &[], &[]),
        ("none", &[("MoneyDeposited.avsc", WITHOUT_DEFAULT)], &[], &[readers]),
        ("note", &[("MoneyDeposited.avsc", WITHOUT_NOTE)], &[], &[consumers]),
        ("back", &[("MoneyDeposited.avsc", WITHOUT_NOTE)], &["--compatibility", "backward"], &[]),
        (
            "wrong",
            &[("A.avsc", "{"), ("B.avsc", OPEN_POINT)],
            &[],
            &["no_schema", "refused_elsewhere"],
        ),
        (
            "files",
            &[("MoneyDeposited.v1.avsc", V1), ("MoneyDeposited.v2.avsc", WITHOUT_DEFAULT)],
            &["--offline"],
            &[readers],
        ),
    ];
    for (label, files, more, expected) in cases {
        let folder = folder(&bed, label, files);
        let folder = folder.to_str().must("be a text");
        let (code, found) = problems(&settings, &[&["check", folder], more].concat()).await;
        assert_eq!(found, expected, "{label}");
        assert_eq!(code, if expected.is_empty() { 0 } else { 3 }, "{label}");
    }
    let nowhere = settings.run_for_code(&["schemas", "check", "/nowhere"]).await;
    assert_eq!(nowhere.0, 1, "{}", nowhere.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exported_schemas_are_registered_and_the_relay_needs_no_right_to_do_so() {
    let bed = with_an_event("schemas_register").await;
    let settings = bed.relay().variable("ANNALS_RELAY__REGISTRY__AUTO_REGISTER", "false");
    let exported = folder(&bed, "export", &[]);
    let path = exported.to_str().must("be a text");
    let (code, said) = settings.run_for_code(&["schemas", "export", "--files", path]).await;
    assert_eq!(code, 0, "{said}");
    let file = exported.join(CATEGORY).join("MoneyDeposited.v1.avsc");
    let text = fs::read_to_string(&file).must("read the exported file");
    assert_eq!(text.trim_end(), annals_schemas::Schema::parse(V1).must("parse").definition());

    assert_eq!(problems(&settings, &["diff", path]).await, (3, vec!["not_in_registry".to_owned()]));
    let (code, said) = settings.run_for_code(&["schemas", "register", path]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("{}-annals.test.account.MoneyDeposited", bed.topic(CATEGORY))));
    assert_eq!(problems(&settings, &["diff", path]).await, (0, vec![]));
    let follower = bed.follow();
    let _relay = RelayProcess::start(&settings);
    follower.until_count(1).await;

    fs::write(&file, V2).must("write another version");
    let differences = ["not_in_store", "not_in_registry", "not_in_files"].map(str::to_owned);
    assert_eq!(problems(&settings, &["diff", path]).await, (3, differences.to_vec()));
    // A version that breaks programs is not registered.
    fs::write(&file, WITHOUT_DEFAULT).must("write another version");
    let (code, _) = problems(&settings, &["register", path]).await;
    assert_eq!(code, 3);
}

/// What `schemas export` prints for a tool, or the exit code and the error, of a category with one
/// event type.
async fn printed(bed: &Testbed, tool: &str, layout: &str, framing: &str) -> Result<String, String> {
    let layouts = format!("{{ {CATEGORY} = \"{layout}\" }}");
    let settings = bed.relay().variable("ANNALS_RELAY__TOPICS__LAYOUTS", &layouts);
    let settings = settings.variable("ANNALS_RELAY__TOPICS__FRAMING", framing);
    let (code, said) = settings.run_for_code(&["schemas", "export", tool, CATEGORY]).await;
    assert!(code == 0 || code == 1, "{tool} {layout}: {code} {said}");
    if code == 0 { Ok(said) } else { Err(said) }
}

/// All these parts are printed; or nothing is, without parts.
fn has_parts(case: &str, found: &Result<String, String>, parts: Option<&[&str; 3]>) {
    match (found, parts) {
        (Err(_), None) => {}
        (Ok(text), Some(parts)) => {
            let missing: Vec<_> = parts.iter().filter(|part| !text.contains(**part)).collect();
            assert!(missing.is_empty(), "{case}: {missing:?} are not in {text}");
        }
        (Ok(_), None) | (Err(_), Some(_)) => panic!("{case}: {found:?}"),
    }
}

/// The settings of a file of Kafka Connect, but for its name and topic.
fn settings_of(text: &str) -> BTreeMap<String, String> {
    let text = text.replace("\\\n", "");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let settings = lines.filter_map(|line| line.split_once('='));
    let own = |(key, _): &(&str, &str)| *key != "name" && *key != "topics";
    let value = |value: &str| value.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    settings.filter(own).map(|(key, found)| (key.to_owned(), value(found))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tool_gets_what_it_needs_to_read_the_topic_of_a_category() {
    let bed = with_an_event("schemas_tools").await;
    let topic = bed.topic(CATEGORY);
    let connect = "consumer.override.isolation.level=read_committed";
    // What is printed in the layouts `record`, `union` and `envelope`; none where the tool does not
    // read the layout.
    let flink = Some("`cents` bigint,");
    let cases: [(&str, &str, [Option<&str>; 3]); 4] = [
        (
            "--flink",
            "isolation.level' = 'read_committed'",
            [flink, flink, Some("`event` row<`sequence` bigint, `cents` bigint, `note` string>,")],
        ),
        ("--clickhouse", "'AvroConfluent'", [Some("`cents` Nullable(Int64),"), None, None]),
        ("--ksql", "value_format = 'avro'", [None, None, Some("create stream account_events")]),
        ("--connect", connect, [Some("annals.TableOfType"), None, Some("ExtractField$Value")]),
    ];
    for (tool, always, by_layout) in cases {
        for (layout, part) in ["record", "union", "envelope"].into_iter().zip(by_layout) {
            let found = printed(&bed, tool, layout, "prefix").await;
            let parts = part.map(|part| [always, part, topic.as_str()]);
            has_parts(&format!("{tool} {layout}"), &found, parts.as_ref());
        }
        let layout = if tool == "--ksql" { "envelope" } else { "record" };
        for framing in ["header", "none"] {
            let refused = printed(&bed, tool, layout, framing).await.err().must("be refused");
            assert!(refused.contains("framing prefix"), "{tool} {framing}: {refused}");
        }
    }
    let refused = printed(&bed, "--ksql", "record", "prefix").await.err().must("be refused");
    assert!(refused.contains("layout envelope"), "{refused}");
    let (code, said) = bed.relay().run_for_code(&["schemas", "export", "--flink", "other"]).await;
    assert!(code == 1 && said.contains("category other"), "{code} {said}");
}

/// The example's settings are those that `make test-consumers` runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn printed_settings_of_kafka_connect_are_those_of_the_example() {
    let bed = with_an_event("schemas_connect").await;
    let examples = [
        ("record", include_str!("../examples/consumers/connect/jdbc-sink.properties")),
        ("envelope", include_str!("../examples/consumers/connect/jdbc-sink-envelope.properties")),
    ];
    let worker = settings_of(include_str!("../examples/consumers/connect/worker.properties"));
    for (layout, example) in examples {
        let mut expected = settings_of(example);
        // The example's worker has what a connector can have, too.
        for key in worker.keys().filter(|key| key.contains("converter")) {
            expected.insert(key.clone(), worker[key].clone());
        }
        expected.insert("consumer.override.isolation.level".into(), "read_committed".into());
        let mut found = settings_of(&printed(&bed, "--connect", layout, "prefix").await.unwrap());
        let url = "value.converter.apicurio.registry.url";
        assert_eq!(expected.remove(url).as_deref(), Some("${env:APICURIO_URL}"));
        let own = bed.environment().registry_url.replace("/ccompat/v7", "/registry/v2");
        assert_eq!(found.remove(url), Some(own));
        let table = "collection.name.format";
        if layout == "envelope" {
            assert_eq!(
                found.remove(table).as_deref(),
                Some("${env:DATABASE_SCHEMA}.account_events")
            );
            expected.remove(table);
        }
        assert_eq!(found, expected, "{layout}");
    }
}
