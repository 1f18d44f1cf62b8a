//! `annals-relay schemas`: for build pipelines, by exit code and by JSON.

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tool_gets_what_it_needs_to_read_the_topic_of_a_category() {
    let bed = with_an_event("schemas_tools").await;
    let topic = bed.topic(CATEGORY);
    let cases: [(&str, &[&str]); 4] = [
        ("--flink", &["`cents` bigint,", "'properties.isolation.level' = 'read_committed'"]),
        ("--clickhouse", &["`cents` Nullable(Int64),", "kafka_format = 'AvroConfluent'"]),
        ("--ksql", &["create stream account_MoneyDeposited"]),
        ("--connect", &["consumer.override.isolation.level=read_committed"]),
    ];
    for (tool, parts) in cases {
        let printed = bed.relay().must_run(&["schemas", "export", tool, CATEGORY]).await;
        for part in parts.iter().chain([&topic.as_str()]) {
            assert!(printed.contains(part), "{tool}: {part} is not in {printed}");
        }
    }
    let (code, said) = bed.relay().run_for_code(&["schemas", "export", "--flink", "other"]).await;
    assert!(code == 1 && said.contains("category other"), "{code} {said}");
}
