//! Commands print JSON where they print, exit with documented codes, and describe themselves
//! without a configuration.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{Must, RelayProcess, RelaySettings, Testbed, account, deposited};
use serde_json::Value;

async fn json(settings: &RelaySettings, arguments: &[&str]) -> Value {
    let said = settings.must_run(&[arguments, &["--json"]].concat()).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 1, "{arguments:?}: {said}");
    serde_json::from_str(lines[0]).must("read JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_that_prints_prints_json_on_demand() {
    let bed = Testbed::new("json").await;
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
    let mut relay = RelayProcess::start(&bed.relay());
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    let settings = bed.relay();
    let of = |name: &str, said: &Value| said[name].clone();
    let statements = json(&settings, &["grants", "read", "somebody"]).await;
    assert!(of("statements", &statements).as_array().is_some_and(|all| !all.is_empty()));
    assert_eq!(json(&settings, &["quarantine", "list"]).await["quarantine"], Value::Array(vec![]));
    assert_eq!(json(&settings, &["quarantine", "release"]).await["retried"], 0);
    let counted = json(&settings, &["replay", "--all", "--dry-run"]).await;
    assert_eq!(counted["parts"][0]["events"], 1);
    let replay = ["replay", "--all", "--to", &bed.topic("a-side"), "--reason", "a test"];
    assert_eq!(json(&settings, &replay).await["events"], 1);
    let delivery = json(&settings, &["deliver", "at-least-once"]).await;
    assert_eq!(delivery["delivery"], "at-least-once");
    json(&settings, &["deliver", "exactly-once"]).await;
    assert_eq!(json(&settings, &["reshard", "4"]).await["shards"], 4);
    json(&settings, &["reshard", "8"]).await;
    let listed = json(&settings, &["release-topics", "--dry-run", "--reason", "a test"]).await;
    assert!(listed["topics"].as_array().is_some_and(|all| !all.is_empty()), "{listed}");
    let rebased = json(&settings, &["rebase", "--dry-run", "--reason", "a test"]).await;
    assert_eq!(
        (&rebased["summary"]["diverging"], &rebased["summary"]["is_begun"]),
        (&0.into(), &false.into())
    );
    let name = format!("test@{}", bed.topic_prefix());
    let forgotten = json(&settings, &["forget", &name, "--reason", "a test"]).await;
    assert_eq!(forgotten["checkpoints"], 8);
    let adopted = json(&settings, &["adopt", "--copy", "--reason", "a test"]).await;
    assert!(adopted["store_id"].is_string(), "{adopted}");
    for arguments in [["config"], ["check"], ["status"], ["audit"]] {
        let (_, said) = settings.run_for_code(&[&arguments[..], &["--json"]].concat()).await;
        let lines = said.lines().map(serde_json::from_str::<Value>);
        assert!(lines.into_iter().all(|line| line.is_ok()), "{arguments:?}: {said}");
    }
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
