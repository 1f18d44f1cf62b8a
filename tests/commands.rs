//! Commands print JSON where they print, exit with documented codes, and describe themselves
//! without a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    CATEGORY, FaultyLink, Must, RelayProcess, RelaySettings, Testbed, account, configure_topic,
    create_topic, deposited, deposited_large,
};
use futures_util::future::join_all;
use serde_json::Value;

/// Subcommands that print nothing, or no text that has another form.
const WITHOUT_JSON: [&str; 5] = ["check-config", "completions", "man", "migrate", "run"];
/// Groups of subcommands.
const GROUPS: [&str; 3] = ["quarantine", "schemas", "topics"];
/// Below the size of a large event, and above that of a transaction of small ones.
const SMALL: &str = "3000";
const LARGE: &str = "1000000";

/// All subcommands, such as `topics-plan`: each has a man page.
async fn subcommands(settings: &RelaySettings, name: &str) -> BTreeSet<String> {
    let directory = std::env::temp_dir().join(name);
    settings.must_run(&["man", &directory.display().to_string()]).await;
    let pages = std::fs::read_dir(&directory).must("list the man pages");
    let names = pages.map(|page| page.must("list the man pages").file_name());
    let names = names.filter_map(|page| {
        let page = page.into_string().ok()?;
        Some(page.strip_prefix("annals-relay-")?.strip_suffix(".1")?.to_owned())
    });
    let names = names.filter(|name| !GROUPS.contains(&name.as_str())).collect();
    std::fs::remove_dir_all(&directory).must("remove the man pages");
    names
}

/// The name of a subcommand, as of its man page.
fn name_of(words: &[&str]) -> String {
    words[..if GROUPS.contains(&words[0]) { 2 } else { 1 }].join("-")
}

/// The subcommands that have printed JSON.
struct Printed<'a> {
    settings: &'a RelaySettings,
    commands: BTreeSet<String>,
}

impl Printed<'_> {
    /// The lines of a subcommand with `--json`: each is JSON, and there is at least one.
    async fn lines(&mut self, arguments: &[&str]) -> Vec<Value> {
        self.commands.insert(name_of(arguments));
        let said = self.settings.must_run(&[arguments, &["--json"]].concat()).await;
        let lines = said.lines().map(|line| serde_json::from_str(line).ok());
        let lines: Option<Vec<Value>> = lines.collect();
        lines.filter(|lines| !lines.is_empty()).unwrap_or_else(|| panic!("{arguments:?}: {said}"))
    }

    /// The object that a subcommand prints.
    async fn json(&mut self, arguments: &[&str]) -> Value {
        let lines = self.lines(arguments).await;
        let [object] = &lines[..] else { panic!("{arguments:?}: {lines:?}") };
        object.clone()
    }
}

/// A relay whose topic took a small event, and refuses the events of two streams.
async fn refused_events(bed: &Testbed) -> RelayProcess {
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    create_topic(brokers, &topic, 4).await;
    configure_topic(brokers, &topic, "max.message.bytes", SMALL).await;
    for (stream, event) in
        [("a", deposited_large(1)), ("b", deposited_large(2)), ("c", deposited(3))]
    {
        let append = Append::to(&account(stream), ExpectedVersion::Any, [event]);
        bed.store().append(&append).await.must("append");
    }
    let relay = RelayProcess::start(&bed.relay());
    relay.quarantines("account-a").await;
    relay.quarantines("account-b").await;
    relay
}

async fn print_quarantine(bed: &Testbed, printed: &mut Printed<'_>) {
    let mut relay = refused_events(bed).await;
    let listed = printed.json(&["quarantine", "list"]).await;
    assert_eq!(listed["quarantine"].as_array().map(Vec::len), Some(2));
    let shown = printed.json(&["quarantine", "show", "account-a"]).await;
    assert_eq!((&shown["cause"], &shown["version"]), (&"record".into(), &0.into()));
    let position = shown["position"].to_string();
    let skip = ["quarantine", "skip", "account-a", "--position", &position, "--reason", "a test"];
    assert_eq!(printed.json(&skip).await["skipped"]["stream"], "account-a");
    let brokers = &bed.environment().kafka;
    configure_topic(brokers, &bed.topic(CATEGORY), "max.message.bytes", LARGE).await;
    assert_eq!(printed.json(&["quarantine", "retry", "account-b"]).await["retried"], 1);
    for entry in ["1", "2"] {
        relay.event_with("quarantine_ended", &[("entry", entry)]).await;
    }
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    assert_eq!(printed.json(&["quarantine", "release"]).await["retried"], 0);
}

async fn print_schemas(bed: &Testbed, printed: &mut Printed<'_>) {
    let folder = std::env::temp_dir().join(format!("{}.avro", bed.name()));
    let path = folder.to_str().must("be text");
    let exported = printed.json(&["schemas", "export", "--files", path]).await;
    let file = folder.join(CATEGORY).join("MoneyDeposited.v1.avsc");
    assert_eq!(exported["files"], serde_json::json!([file]));
    for (tool, layout) in
        [("flink", "record"), ("clickhouse", "record"), ("ksql", "envelope"), ("connect", "record")]
    {
        let layouts = format!("{{ {CATEGORY} = \"{layout}\" }}");
        let settings = printed.settings.clone().variable("ANNALS_RELAY__TOPICS__LAYOUTS", &layouts);
        let mut printed = Printed { settings: &settings, commands: BTreeSet::new() };
        let flag = format!("--{tool}");
        let printed = printed.json(&["schemas", "export", &flag, CATEGORY]).await;
        assert_eq!(printed["tool"], tool);
        assert!(printed["text"].as_str().is_some_and(|text| text.contains(&bed.topic(CATEGORY))));
    }
    assert_eq!(printed.json(&["schemas", "check", path]).await["is_sound"], true);
    let registered = printed.json(&["schemas", "register", path]).await;
    assert!(registered["registered"][0]["id"].is_number(), "{registered}");
    assert_eq!(printed.json(&["schemas", "diff", path]).await["is_sound"], true);
    std::fs::remove_dir_all(&folder).must("remove the schemas");
}

/// Those that need no relay, and whose deployment has published everything.
async fn print_administration(bed: &Testbed, printed: &mut Printed<'_>) {
    let statements = printed.json(&["grants", "read", "somebody"]).await;
    assert!(statements["statements"].as_array().is_some_and(|all| !all.is_empty()));
    let counted = printed.json(&["replay", "--all", "--dry-run"]).await;
    assert_eq!(counted["parts"][0]["events"], 2);
    let replay = ["replay", "--all", "--to", &bed.topic("a-side"), "--reason", "a test"];
    assert_eq!(printed.json(&replay).await["events"], 2);
    let delivery = printed.json(&["deliver", "at-least-once"]).await;
    assert_eq!(delivery["delivery"], "at-least-once");
    printed.json(&["deliver", "exactly-once"]).await;
    assert_eq!(printed.json(&["reshard", "4"]).await["shards"], 4);
    printed.json(&["reshard", "8"]).await;
    let listed = printed.json(&["release-topics", "--dry-run", "--reason", "a test"]).await;
    assert!(listed["topics"].as_array().is_some_and(|all| !all.is_empty()), "{listed}");
    let rebased = printed.json(&["rebase", "--dry-run", "--reason", "a test"]).await;
    assert_eq!(
        (&rebased["summary"]["diverging"], &rebased["summary"]["is_begun"]),
        (&0.into(), &false.into())
    );
    assert!(printed.json(&["topics", "plan"]).await["differences"].is_array());
    assert!(printed.json(&["topics", "apply"]).await["applied"].is_array());
    for command in ["config", "check", "status", "audit"] {
        printed.lines(&[command]).await;
    }
    let name = format!("test@{}", bed.topic_prefix());
    let forgotten = printed.json(&["forget", &name, "--reason", "a test"]).await;
    assert_eq!(forgotten["checkpoints"], 8);
    let adopted = printed.json(&["adopt", "--copy", "--reason", "a test"]).await;
    assert!(adopted["store_id"].is_string(), "{adopted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_that_prints_prints_json_on_demand() {
    let bed = Testbed::new("json").await;
    let settings = bed.relay();
    let mut printed = Printed { settings: &settings, commands: BTreeSet::new() };
    print_quarantine(&bed, &mut printed).await;
    print_schemas(&bed, &mut printed).await;
    print_administration(&bed, &mut printed).await;
    let mut all = subcommands(&settings, bed.name()).await;
    all.retain(|name| !WITHOUT_JSON.contains(&name.as_str()));
    assert_eq!(printed.commands, all);
}

/// Each subcommand with the arguments that it needs.
const COMPLETE: [&str; 28] = [
    "adopt --reason test",
    "audit",
    "check",
    "check-config",
    "completions bash",
    "config",
    "deliver at-least-once",
    "forget another --reason test",
    "grants read somebody",
    "man DIRECTORY",
    "migrate",
    "quarantine list",
    "quarantine release",
    "quarantine retry account-a",
    "quarantine show account-a",
    "quarantine skip account-a --position 1 --reason test",
    "rebase --dry-run",
    "release-topics --dry-run --reason test",
    "replay --all --dry-run",
    "reshard 4",
    "run",
    "schemas check SCHEMAS",
    "schemas diff SCHEMAS",
    "schemas export --files DIRECTORY",
    "schemas register SCHEMAS",
    "status",
    "topics apply",
    "topics plan",
];

/// The exit code of each subcommand, with an argument more if one is given; all run at once.
async fn codes(settings: &RelaySettings, more: Option<&str>) -> BTreeMap<&'static str, i32> {
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/avro");
    let directory = std::env::temp_dir().join("annals-exit-codes").display().to_string();
    let run = COMPLETE.into_iter().map(async |command| {
        let words = command.split(' ').map(|word| match word {
            "DIRECTORY" => &directory,
            "SCHEMAS" => schemas,
            word => word,
        });
        let words: Vec<&str> = words.chain(more).collect();
        let name = command.replace(' ', "-");
        (command, settings.clone().in_directory(&name).run_for_code(&words).await.0)
    });
    join_all(run).await.into_iter().collect()
}

/// The subcommands that do not end with this code.
fn others(codes: &BTreeMap<&'static str, i32>, code: i32) -> BTreeMap<&'static str, i32> {
    codes.iter().filter(|(_, found)| **found != code).map(|(of, found)| (*of, *found)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_subcommand_ends_with_2_for_wrong_arguments_and_with_1_after_an_error() {
    let bed = Testbed::new("each_code").await;
    let settings = bed.relay();
    let names = COMPLETE.iter().map(|command| name_of(&command.split(' ').collect::<Vec<_>>()));
    assert_eq!(names.collect::<BTreeSet<_>>(), subcommands(&settings, bed.name()).await);
    let codes_of = codes(&settings, Some("--no-such-argument")).await;
    assert_eq!(others(&codes_of, 2), BTreeMap::new(), "wrong arguments");

    let wrong = settings.clone().variable("ANNALS_RELAY__RELAY__LEASE_MS", "soon");
    let codes_of = codes(&wrong, None).await;
    let without = [("completions bash", 0), ("man DIRECTORY", 0)];
    assert_eq!(others(&codes_of, 1), BTreeMap::from(without), "a wrong configuration");

    let nowhere = settings.database(&bed.environment().url_of_database("annals_no_such_database"));
    // `run` waits for a database; it does not without an address for its HTTP server.
    let taken = TcpListener::bind("127.0.0.1:0").must("listen");
    let address = taken.local_addr().must("find the address").to_string();
    let nowhere = nowhere.variable("ANNALS_RELAY__HTTP__LISTEN", &address);
    let codes_of = codes(&nowhere, None).await;
    let without = [
        ("check", 3),
        ("check-config", 0),
        ("completions bash", 0),
        ("config", 0),
        ("man DIRECTORY", 0),
    ];
    assert_eq!(others(&codes_of, 1), BTreeMap::from(without), "no database");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_relay_at_once_with_130() {
    let bed = Testbed::new("second_signal").await;
    let (database, near) = FaultyLink::before(&bed.database_url()).await;
    let mut relay = RelayProcess::start(&bed.relay().database(&near));
    relay.event("publishing").await;
    // It cannot release its shards.
    database.silence();
    assert_eq!(relay.terminate_twice().await.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_are_those_of_the_documentation() {
    let bed = Testbed::new("exit_codes").await;
    let settings = bed.relay();
    let code = async |arguments: &[&str]| settings.run_for_code(arguments).await.0;
    assert_eq!(code(&["check-config"]).await, 0);
    assert_eq!(code(&["no-such-command"]).await, 2);
    assert_eq!(code(&["audit", "--repair"]).await, 2, "it needs a reason");
    assert_eq!(code(&["status"]).await, 3, "no relay runs");
    assert_eq!(code(&["topics", "plan"]).await, 3, "topics are missing");
    let wrong = settings.clone().variable("ANNALS_RELAY__RELAY__LEASE_MS", "soon");
    let (code, said) = wrong.run_for_code(&["check-config"]).await;
    let problem = "ANNALS_RELAY__RELAY__LEASE_MS: relay.lease_ms must be a whole number";
    assert!(code == 1 && said.contains(problem), "{said}");
    // Completions and man pages need no configuration.
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let (code, said) = wrong.run_for_code(&["completions", shell]).await;
        assert!(code == 0 && said.contains(part) && said.contains("quarantine"), "{said}");
    }
    let directory = std::env::temp_dir().join(bed.name());
    let (code, said) = wrong.run_for_code(&["man", &directory.display().to_string()]).await;
    assert_eq!(code, 0, "{said}");
    let page = std::fs::read_to_string(directory.join("annals-relay-audit.1"));
    let page = page.must("read a man page");
    assert!(page.contains("\\-\\-repair") && page.contains(".SH NAME"), "{page}");
    std::fs::remove_dir_all(&directory).must("remove the man pages");
}
