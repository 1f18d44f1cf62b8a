//! The audit log of a period, a stream, an actor or a correlation, and the causal tree of an event:
//! as JSON lines of the command `annals`, and in SQL views; and its other commands.

use std::process::{Command, Output};

use annals_store::{
    Append, Context, ExpectedVersion, FileKeyProvider, Metadata, NewEvent, PersonalKeys,
    SchemaName, StoreOptions, StreamName, Subject,
};
use annals_testkit::{Must, Testbed, account, deposited, opened};
use serde_json::Value;
use uuid::Uuid;

use crate::projections::{self, LONG, Running, Script, balances, failure};

/// Runs `annals`.
pub(crate) fn annals(bed: &Testbed, arguments: &[&str]) -> Output {
    annals_at(&bed.database_url(), arguments)
}

/// Runs `annals` on the database at a URL.
pub(crate) fn annals_at(url: &str, arguments: &[&str]) -> Output {
    let tests = std::env::current_exe().must("find this program");
    let debug = tests.parent().and_then(|deps| deps.parent()).must("find the target directory");
    let mut command = Command::new(debug.join("annals"));
    command.env("ANNALS_DATABASE_URL", url).args(arguments);
    command.output().must("run annals")
}

/// Its lines; it must succeed.
pub(crate) fn lines(bed: &Testbed, arguments: &[&str]) -> Vec<Value> {
    let output = annals(bed, arguments);
    let (text, errors) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "annals {arguments:?}: {errors}");
    let text = String::from_utf8(text).must("print UTF-8");
    text.lines().map(|line| serde_json::from_str(line).must("print JSON lines")).collect()
}

fn positions(lines: &[Value]) -> Vec<i64> {
    lines.iter().map(|line| line["position"].as_i64().must("have a position")).collect()
}

/// Appends one event, and returns its id and position.
async fn append(bed: &Testbed, stream: &StreamName, event: NewEvent) -> (Uuid, i64) {
    let id = event.id().get();
    let append = Append::to(stream, ExpectedVersion::Any, [event]);
    let appended = bed.store().append(&append).await.must("append");
    (id, appended.events[0].1.get())
}

async fn archive(bed: &Testbed, stream: &StreamName) {
    bed.store().close_stream(stream, "old").await.must("close");
    bed.store().archive_stream(stream, "old").await.must("archive");
}

fn caused_by(cause: Uuid, event: NewEvent) -> NewEvent {
    event.with_metadata(Metadata { causation_id: Some(cause), ..Metadata::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_of_a_period_a_stream_an_actor_or_a_correlation_is_printed() {
    let bed = Testbed::new("audit_log").await;
    let correlation = Uuid::now_v7();
    let (ann, bob) = (account("ann"), account("bob"));
    let context = Context::new().actor("ann").correlation_id(correlation);
    let first = context.sync_scope(|| opened("ann"));
    let (_, first) = append(&bed, &ann, first).await;
    let (_, second) = append(&bed, &bob, opened("bob")).await;
    let context = Context::new().actor("bob").correlation_id(correlation);
    let third = context.sync_scope(|| deposited(7));
    let (id, third) = append(&bed, &bob, third).await;

    let all = lines(&bed, &["log"]);
    assert_eq!(positions(&all), [first, second, third]);
    let last = &all[2];
    assert_eq!(
        (&last["stream"], &last["version"], &last["event_type"], &last["actor"]),
        (&"account-bob".into(), &1.into(), &"MoneyDeposited".into(), &"bob".into())
    );
    assert_eq!(last["event_id"], id.to_string());
    assert_eq!(last["data"]["cents"], 7);
    let time = |line: &Value| line["recorded_at"].as_str().must("have a time").to_owned();
    let (begin, end) = (time(&all[1]), time(&all[2]));
    let of_correlation = correlation.to_string();
    let printed: [(&[&str], &[i64]); 6] = [
        (&["log", "--stream", "account-bob"], &[second, third]),
        (&["log", "--category", "account", "--actor", "ann"], &[first]),
        (&["log", "--correlation", &of_correlation], &[first, third]),
        (&["log", "--since", &begin], &[second, third]),
        (&["log", "--since", &begin, "--until", &end], &[second]),
        (&["log", "--stream", "account-none"], &[]),
    ];
    let check = async || {
        for (arguments, expected) in printed {
            assert_eq!(positions(&lines(&bed, arguments)), expected, "{arguments:?}");
        }
        let rows = sqlx::query_scalar(include_str!("sql/event_log_of_actor.sql")).bind("bob");
        let rows: Vec<i64> = rows.fetch_all(bed.store().pool()).await.must("read the view");
        assert_eq!(rows, [third]);
    };
    check().await;
    assert!(!annals(&bed, &["log", "--stream", "no stream"]).status.success());
    // The events of an archived stream stay in the audit log.
    archive(&bed, &bob).await;
    check().await;
    assert_eq!(lines(&bed, &["log"]), all);
}

/// `data` and the two indices of the audit log are for people: Annals works without them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_data_and_without_the_indices_of_the_audit_log_has_the_same_log() {
    const APPENDS: usize = 20;
    let bed = Testbed::new("without_data").await;
    let drop = sqlx::raw_sql(include_str!("sql/drop_audit_log_indices.sql"));
    drop.execute(bed.store().pool()).await.must("drop the indices");
    let store = StoreOptions::default().without_data().connect(&bed.database_url()).await;
    let store = store.must("connect");
    store.migrate().await.must("migrate");
    store.check().await.must("check");
    let correlation = Uuid::now_v7();
    let context = Context::new().correlation_id(correlation);
    let appends: Vec<Append> = (0..APPENDS)
        .map(|number| {
            let event = context.clone().sync_scope(|| deposited(7));
            Append::to(&account(number.to_string()), ExpectedVersion::NoStream, [event])
        })
        .collect();
    // Alone, then together.
    store.append(&appends[0]).await.must("append");
    let together = appends[1..].iter().map(|append| store.append(append));
    futures_util::future::try_join_all(together).await.must("append");

    let printed = lines(&bed, &["log", "--correlation", &correlation.to_string()]);
    assert_eq!(printed.len(), APPENDS);
    assert!(printed.iter().all(|line| line["data"]["cents"] == 7), "{printed:?}");
    let recorded = sqlx::query_scalar(include_str!("sql/events_with_data.sql"));
    let recorded: i64 = recorded.fetch_one(store.pool()).await.must("count");
    assert_eq!(recorded, 0);
    append(&bed, &account("0"), deposited(8)).await;
    let recorded = sqlx::query_scalar(include_str!("sql/events_with_data.sql"));
    let recorded: i64 = recorded.fetch_one(store.pool()).await.must("count");
    assert_eq!(recorded, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_causal_tree_of_any_of_its_events_is_the_whole_tree() {
    let bed = Testbed::new("causal_tree").await;
    let (a, b) = (account("a"), account("b"));
    let command = Uuid::now_v7();
    // Two events of a command; the first caused two others, one of which caused another one.
    let (first, p1) = append(&bed, &a, caused_by(command, opened("a"))).await;
    let (second, p2) = append(&bed, &a, caused_by(command, deposited(1))).await;
    let (third, p3) = append(&bed, &b, caused_by(first, opened("b"))).await;
    let (fourth, p4) = append(&bed, &b, caused_by(third, deposited(2))).await;
    let (_, p5) = append(&bed, &b, caused_by(first, deposited(3))).await;
    append(&bed, &b, deposited(4)).await;
    let events = [first, second, third, fourth];
    for (number, event) in events.into_iter().chain(events).enumerate() {
        // The second time, half of the tree is archived.
        if number == events.len() {
            archive(&bed, &b).await;
        }
        let tree = lines(&bed, &["tree", &event.to_string()]);
        let found: Vec<_> =
            tree.iter().map(|line| (line["depth"].as_u64(), line["position"].as_i64())).collect();
        let expected = [(0, p1), (1, p3), (2, p4), (1, p5), (0, p2)];
        assert_eq!(found, expected.map(|(depth, position)| (Some(depth), Some(position))));
    }
    assert_eq!(lines(&bed, &["tree", &first.to_string(), "--events-max", "2"]).len(), 2);
    assert!(!annals(&bed, &["tree", &command.to_string()]).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_ends_with_documented_codes_and_says_an_error_once_with_its_remedy() {
    let bed = Testbed::new("annals_codes").await;
    let tree = Uuid::nil().to_string();
    for arguments in [
        &["log"][..],
        &["tree", &tree],
        &["stream", "show", "account-a"],
        &["projection", "list"],
        &["stream", "close", "account-a", "--reason", "a test"],
    ] {
        let ended = annals(&bed, &[arguments, &["--no-such-argument"]].concat());
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        let ended = annals(&bed, &[&["--schema", "elsewhere"], arguments].concat());
        let said = String::from_utf8(ended.stderr).must("say UTF-8");
        assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        let is_once = said.matches("does not exist").count() == 1;
        assert!(is_once && said.contains("annals-relay migrate"), "{said}");
    }
    assert_eq!(annals(&bed, &["--schema", "No Name", "log"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_another_schema_is_administered() {
    let bed = Testbed::new("annals_schema").await;
    let schema = SchemaName::new("elsewhere").must("name a schema");
    let store = StoreOptions::default().schema(schema).connect(&bed.database_url()).await;
    let store = store.must("connect");
    store.migrate().await.must("migrate");
    let append = Append::to(&account("a"), ExpectedVersion::Any, [opened("a")]);
    store.append(&append).await.must("append");
    assert_eq!(lines(&bed, &["log"]).len(), 0);
    assert_eq!(lines(&bed, &["--schema", "elsewhere", "log"]).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_projection_is_listed_skipped_and_switched_by_command() {
    let bed = Testbed::new("projection_command").await;
    assert!(lines(&bed, &["projection", "list"]).is_empty());
    let (id, position) = append(&bed, &account("a"), deposited(3)).await;
    let _running = Running::start(bed.store(), balances(&Script::refusing(3)), LONG);
    failure(bed.store()).await;
    let listed = lines(&bed, &["projection", "list"]).remove(0);
    assert_eq!((&listed["projection"], &listed["version"]), (&"balances".into(), &1.into()));
    assert_eq!((&listed["events"], &listed["log_position"]), (&0.into(), &position.into()));
    let (failed, id) = (&listed["failure"], id.to_string());
    assert_eq!(
        (&failed["event_id"], &failed["stream"]),
        (&id.as_str().into(), &"account-a".into())
    );

    let skip = ["projection", "skip", "balances", &id];
    assert_eq!(annals(&bed, &skip).status.code(), Some(2), "without a reason");
    let skipped = lines(&bed, &[&skip[..], &["--reason", "a test"]].concat());
    assert_eq!(skipped[0]["skipped"], id);
    projections::until(bed.store(), 1, |status| status.failure.is_none()).await;
    assert_eq!(lines(&bed, &["projection", "list", "balances"])[0]["failure"], Value::Null);
    let switch = |version| ["projection", "switch", "balances", version, "--deadline-s", "0"];
    assert_eq!(lines(&bed, &switch("1"))[0]["shown"], 1);
    for wrong in [&switch("2")[..], &["projection", "list", "none"]] {
        assert_eq!(annals(&bed, wrong).status.code(), Some(1), "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_closed_and_people_erased_by_command() {
    let bed = Testbed::new("command").await;
    append(&bed, &account("a"), opened("a")).await;
    let closed = lines(&bed, &["stream", "close", "account-a", "--reason", "a test"]);
    assert_eq!(closed[0]["closed"], true);
    let shown = lines(&bed, &["stream", "show", "account-a"]);
    assert!(shown[0]["closed_at"].is_string() && shown[0]["version"] == 0);
    assert!(!annals(&bed, &["stream", "close", "account-a"]).status.success(), "without a reason");

    let file = std::env::temp_dir().join(format!("{}.keys", bed.name()));
    let file = file.to_str().must("be text");
    let personal = |arguments: &[&str]| {
        lines(&bed, &[&["personal", "--key-file", file], arguments].concat()).remove(0)
    };
    let keys = FileKeyProvider::open_or_create(file).must("make a key file");
    let keys = PersonalKeys::new(bed.store(), keys);
    let mut ids = Vec::new();
    for subject in ["customer-1", "customer-2", "customer-3"] {
        let subject = Subject::new(subject).must("name a subject");
        ids.push(keys.subject(&subject).await.must("get a key").id());
    }
    let erase = |subject: &str| personal(&["erase", subject, "--reason", "a test"]);
    let erased = erase("customer-1");
    assert_eq!(erased["key_id"].as_str(), Some(&*ids[0].to_string()));
    assert_eq!(erased["erased_before"], false);
    assert_eq!(erase("customer-1")["erased_before"], true);
    assert_eq!(erase("customer-without-key")["key_id"], Value::Null);
    assert_eq!(personal(&["rotate"])["rewrapped"], 2);
    assert_eq!(personal(&["rewrap"])["rewrapped"], 0);
    // A rotation that ends before its second step.
    let stopped = sqlx::query(include_str!("sql/personal_new_epoch.sql"));
    stopped.execute(bed.store().pool()).await.must("rotate in part");
    assert!(!annals(&bed, &["personal", "--key-file", file, "forget-backups"]).status.success());
    assert_eq!(personal(&["rewrap"])["rewrapped"], 2);
    assert_eq!(personal(&["forget-backups"])["destroyed"], true);
    assert_eq!(personal(&["finish"])["erased"], serde_json::json!([]));
    std::fs::remove_file(file).must("remove the key file");
}
