//! `check` names what will not work before the first start, and changes nothing.

use std::pin::pin;

use annals_store::{Append, Error, ExpectedVersion, Follow, MigrationError, Store, StreamName};
use annals_testkit::{
    AccountEvent, CATEGORY, Component, Ending, Isolation, Must, PrivateStack, RawRecord,
    RelayProcess, RelaySettings, Testbed, TwoDoors, account, check, configure_topic, create_topic,
    deposited, execute_at, in_time, read_topic, topics, until,
};
use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::audit_log::annals_at;

pub(crate) const ERRORS: i32 = 3;

/// The exit code of `check`, and its findings: component, severity, fault.
pub(crate) async fn findings(settings: &RelaySettings) -> (i32, Vec<(String, String, String)>) {
    let (code, said) = settings.run_for_code(&["check", "--json"]).await;
    let Ok(found) = serde_json::from_str::<Value>(&said) else { panic!("{said}") };
    let text = |finding: &Value, name: &str| finding[name].as_str().must("have a text").to_owned();
    let all = found["findings"].as_array().must("have findings").iter();
    let all = all.map(|of| (text(of, "component"), text(of, "severity"), text(of, "what")));
    (code, all.collect())
}

pub(crate) fn has(
    found: &[(String, String, String)],
    component: &str,
    severity: &str,
    part: &str,
) -> bool {
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
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    // It tries the rights to write of all topics.
    let before = (bed.fingerprint().await, written(&bed).await);
    let (code, found) = findings(&bed.relay()).await;
    assert!(code == 0 && found.iter().all(|(_, severity, _)| severity == "warning"), "{found:?}");
    assert_eq!(before, (bed.fingerprint().await, written(&bed).await));
}

/// All records of the topics of a bed, also of aborted transactions.
async fn written(bed: &Testbed) -> Vec<RawRecord> {
    let brokers = &bed.environment().kafka;
    let mut written = Vec::new();
    for topic in [bed.topic(CATEGORY), bed.claims_topic(), bed.checkpoint_topic().await] {
        let records = read_topic(brokers, &topic, Isolation::Uncommitted).await;
        assert!(!records.is_empty(), "{topic}");
        written.extend(records);
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_planted_fault_is_named_by_its_component() {
    let bed = Testbed::new("check_faults").await;
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&append).await.must("append");
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    create_topic(brokers, &topic, 4).await;
    configure_topic(brokers, &topic, "min.insync.replicas", "2").await;
    let not_created = bed.relay().variable("ANNALS_RELAY__TOPICS__CREATE", "false");
    let (code, found) = findings(&not_created).await;
    let part = format!("topic {} does not exist, and topics.create is off", bed.claims_topic());
    assert!(code == ERRORS && has(&found, "kafka", "error", &part), "{found:?}");
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

    let options = "options=-c%20role%3Dannals_read%20-c%20default_transaction_read_only%3Don";
    let reader = format!("{}?{options}", bed.database_url());
    let (code, found) = findings(&bed.relay().database(&reader)).await;
    let is_named = has(&found, "database", "error", "default_transaction_read_only is on");
    assert!(code == ERRORS && is_named, "{found:?}");
    let is_named =
        has(&found, "database", "error", "insert and update on annals.relay_checkpoints");
    assert!(code == ERRORS && is_named, "{found:?}");
    let unknown = format!("{}_none", bed.database_url());
    let stranger = format!("{}?options=-c%20role%3Dpg_monitor", bed.database_url());
    for (url, part) in
        [(&unknown, "the database does not answer"), (&stranger, "the store cannot be read")]
    {
        let (code, found) = findings(&bed.relay().database(url)).await;
        assert!(code == ERRORS && has(&found, "database", "error", part), "{found:?}");
    }
    let empty = bed.relay().variable("ANNALS_RELAY__DATABASE__SCHEMA", "elsewhere");
    let (code, found) = findings(&empty).await;
    let is_named = has(&found, "database", "error", "schema elsewhere has no event store");
    assert!(code == ERRORS && is_named, "{found:?}");
}

async fn administer(connection: &mut PgConnection, statements: &[&str]) {
    for statement in statements {
        let statement = AssertSqlSafe((*statement).to_owned());
        sqlx::raw_sql(statement).execute(&mut *connection).await.must("administer the server");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_a_server_and_what_keeps_its_transactions_open_are_named() {
    let stack = PrivateStack::up(&[Component::Postgres]).await;
    let url = &stack.environment().database_url;
    let mut administrator = PgConnection::connect(url).await.must("connect");
    let settings = [
        "alter system set max_prepared_transactions = 3",
        "alter system set synchronous_commit = off",
        "select pg_create_physical_replication_slot('nobody', true)",
    ];
    administer(&mut administrator, &settings).await;
    drop(administrator);
    stack.give_clock().await;
    stack.end(Component::Postgres, Ending::Orderly).await;
    stack.start(Component::Postgres).await;
    let bed = Testbed::on("check_server", stack.environment().clone()).await;
    let clean = ["check", "--json"];
    let (code, said) = bed.relay().run_for_code(&clean).await;
    assert!(code == 0 && said.contains("synchronous_commit is off"), "{said}");
    assert!(!said.contains("is open for") && !said.contains("prepared"), "{said}");
    a_clock_that_differs_is_named(&bed, &stack).await;

    let mut prepared = PgConnection::connect(&bed.database_url()).await.must("connect");
    let prepare = ["begin", "select pg_current_xact_id()", "prepare transaction 'forgotten'"];
    administer(&mut prepared, &prepare).await;
    let (_, status) = bed.relay().status().await;
    let blocker = &status["open_transactions"][0];
    assert_eq!(blocker["application"], "prepared transaction forgotten", "{status}");
    assert!(blocker["pid"].is_null() && blocker["login"].is_string(), "{status}");
    prepared_transactions_delay_only_their_own_events(&bed).await;
    a_login_without_pg_read_all_stats_is_named(&bed, &mut prepared).await;
    let mut open = PgConnection::connect(&bed.database_url()).await.must("connect");
    administer(&mut open, &["begin isolation level repeatable read", "select 1 from pg_class"])
        .await;
    administer(&mut prepared, &["alter sequence annals.positions cache 5"]).await;
    administer(&mut prepared, &["alter system set fsync = off", "select pg_reload_conf()"]).await;
    // The server applies the setting with a delay.
    until("fsync is off", async || Store::connect(&bed.database_url()).await.is_err()).await;
    let flags = ["check", "--transaction-seconds-max", "0", "--json"];
    let (code, said) = bed.relay().run_for_code(&flags).await;
    assert_eq!(code, ERRORS);
    for part in [
        "1 prepared transactions are older than 0 s",
        "a transaction or a snapshot is open for",
        "1 replication slots are inactive",
        "the sequence of positions has a cache",
        "the server loses committed events in a crash",
    ] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    let told = bed.relay().variable("ANNALS_RELAY__DATABASE__ALLOW_FSYNC_OFF", "true");
    let (_, said) = told.run_for_code(&flags).await;
    assert!(said.contains("which database.allow_fsync_off accepts"), "{said}");
    assert!(!said.contains("the server loses committed events in a crash"), "{said}");
}

/// As a server whose time service has ended.
async fn a_clock_that_differs_is_named(bed: &Testbed, stack: &PrivateStack) {
    const OF_THE_DATABASE: &str = "the clock of the database is";
    for (ahead, text) in [(90, "90 s ahead of"), (-90, "90 s behind")] {
        stack.set_clock(ahead);
        let (code, found) = findings(&bed.relay()).await;
        let part = format!("{OF_THE_DATABASE} {text} this one");
        assert!(code == 0 && has(&found, "database", "warning", &part), "{found:?}");
    }
    stack.set_clock(0);
    let (_, found) = findings(&bed.relay()).await;
    assert!(!has(&found, "database", "warning", OF_THE_DATABASE), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_is_too_old_is_named_and_nothing_is_created_on_it() {
    let stack = PrivateStack::postgres("13").await;
    let bed = Testbed::new("check_old").await;
    let settings = bed.relay().database(&stack.environment().database_url);
    let (code, found) = findings(&settings).await;
    let of_database: Vec<_> =
        found.iter().filter(|(of, how, _)| of == "database" && how == "error").collect();
    assert!(code == ERRORS && of_database.len() == 1, "{found:?}");
    assert!(has(&found, "database", "error", "PostgreSQL 13 is too old"), "{found:?}");

    const SENTENCE: &str =
        "the server is PostgreSQL 13, which is too old: use PostgreSQL 14 or later";
    let (code, said) = settings.run_for_code(&["migrate"]).await;
    assert!(code == 1 && said.contains(SENTENCE), "{code}: {said}");
    let mut relay = RelayProcess::start(&settings);
    let line = relay.event_with("halted", &[("cause", "store")]).await;
    assert!(line.contains(SENTENCE) && !relay.ended().await.success(), "{line}");
    let url = &stack.environment().database_url;
    let store = Store::connect(url).await.must("connect");
    for refused in [store.migrate().await, store.check().await] {
        let refused = refused.unwrap_err();
        let is_named =
            matches!(refused, Error::Migrate(MigrationError::ServerTooOld { found: 13 }));
        assert!(is_named && !refused.is_retryable(), "{refused:?}");
    }
    let said = annals_at(url, &["log"]).stderr;
    assert!(String::from_utf8_lossy(&said).contains(SENTENCE), "{said:?}");
    // Which fails if it exists.
    execute_at(url, "create schema annals").await;
}

/// Of two whose sessions are gone, one is rolled back and one committed in the end.
async fn prepared_transactions_delay_only_their_own_events(bed: &Testbed) {
    let [rolled_back, committed, other] = ["rolled_back", "committed", "other"].map(account);
    for (stream, gid) in [(&rolled_back, "orphan_1"), (&committed, "orphan_2")] {
        let mut session = PgConnection::connect(&bed.database_url()).await.must("connect");
        administer(&mut session, &["begin"]).await;
        let append = Append::to(stream, ExpectedVersion::NoStream, [deposited(1), deposited(2)]);
        bed.store().append_in(&mut session, &append).await.must("append");
        administer(&mut session, &[&format!("prepare transaction '{gid}'")]).await;
    }
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    let mut log = pin!(bed.store().follow(Follow::events_of::<AccountEvent>()));
    let mut followed = async || {
        let event = in_time(log.try_next()).await.must("follow").must("follow for ever").event;
        (event.stream, event.version.get())
    };
    for (published, version) in (1..).zip(0..2) {
        let append = Append::to(&other, ExpectedVersion::Any, [deposited(1)]);
        bed.store().append(&append).await.must("append");
        follower.until_count(published).await;
        assert_eq!(followed().await, (other.clone(), version));
    }
    let (_, status) = bed.relay().status().await;
    let open = status["open_transactions"].as_array().must("list transactions").iter();
    let open = open.filter(|of| of["login"] == "annals" && of["seconds"].is_f64());
    let named: Vec<_> = open.map(|of| of["application"].as_str().unwrap_or_default()).collect();
    let expected =
        ["forgotten", "orphan_1", "orphan_2"].map(|gid| format!("prepared transaction {gid}"));
    assert_eq!(named, expected, "{status}");
    let mut session = PgConnection::connect(&bed.database_url()).await.must("connect");
    let end = ["rollback prepared 'orphan_1'", "commit prepared 'orphan_2'"];
    administer(&mut session, &end).await;
    for version in 0..2 {
        assert_eq!(followed().await, (committed.clone(), version));
    }
    follower.until_count(4).await;
    // Its stream is free again, and has no event.
    let append = Append::to(&rolled_back, ExpectedVersion::NoStream, [deposited(3)]);
    bed.store().append(&append).await.must("append");
    assert_eq!(followed().await, (rolled_back, 0));
    follower.until_count(5).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

async fn a_login_without_pg_read_all_stats_is_named(bed: &Testbed, to: &mut PgConnection) {
    administer(to, &["create role plain login password 'plain' in role annals_relay"]).await;
    let url = bed.database_url().replacen("annals:annals@", "plain:plain@", 1);
    let settings = bed.relay().database(&url);
    let (_, found) = findings(&settings).await;
    assert!(has(&found, "database", "warning", "cannot name the queries of long"), "{found:?}");
    let settings = settings.variable("ANNALS_RELAY__RELAY__DURABILITY", "standby");
    let (_, found) = findings(&settings).await;
    assert!(has(&found, "database", "error", "the login cannot see the standbys"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_brokers_and_topics_and_a_deployment_that_is_another_one_are_named() {
    let limits =
        "transaction.max.timeout.ms=5000\ntransaction.partition.verification.enable=false\n";
    let kafka = TwoDoors::linked(limits).await;
    let bed = Testbed::on("check_limits", kafka.environment().clone()).await;
    let short = bed.relay().variable("ANNALS_RELAY__KAFKA__TRANSACTION_TIMEOUT_MS", "5000");
    let mut relay = RelayProcess::start(&short);
    relay.event("publishing").await;
    assert!(relay.terminate().await.success());
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    let append = ["ledger", "order"].into_iter().fold(append, |append, category| {
        let stream = StreamName::new(format!("{category}-1")).must("name a stream");
        append.and_to(&stream, ExpectedVersion::Any, [deposited(1).for_category(category)])
    });
    bed.store().append(&append).await.must("append");
    let brokers = &bed.environment().kafka;
    for (category, name, value) in [
        (CATEGORY, "max.message.bytes", "1000"),
        ("ledger", "message.timestamp.before.max.ms", "1000"),
        ("order", "unclean.leader.election.enable", "true"),
    ] {
        create_topic(brokers, &bed.topic(category), 4).await;
        configure_topic(brokers, &bed.topic(category), name, value).await;
    }
    let settings = bed.relay().variable("ANNALS_RELAY__RELAY__DELIVERY", "at-least-once");
    let (code, found) = findings(&settings).await;
    assert_eq!(code, ERRORS);
    for (component, severity, part) in [
        ("kafka", "error", "brokers refuse transactions of 10000 ms"),
        ("kafka", "warning", "the brokers do not verify transactions"),
        ("kafka", "warning", "takes batches of 1000 bytes"),
        ("kafka", "warning", "message.timestamp.before.max.ms is 1000: older events are refused"),
        ("kafka", "warning", "unclean.leader.election.enable is true: a broker that lacks"),
        ("kafka", "warning", "replication.factor is 1: the topic is on one broker"),
        ("database", "error", "the deployment delivers exactly-once, and relay.delivery is"),
    ] {
        assert!(has(&found, component, severity, part), "{part} not in {found:?}");
    }
    let advice = format!("{found:?}");
    assert!(!advice.contains("min.insync.replicas=2"), "a topic on one broker would take nothing");
    let mut relay = RelayProcess::start(&bed.relay());
    assert!(!relay.ended().await.success());
    assert!(relay.text().contains("Transaction timeout"), "{}", relay.text());
    bed.relay().must_run(&["forget", &deployment(&bed), "--reason", "a test"]).await;
    let (_, found) = findings(&short).await;
    assert!(has(&found, "database", "error", "was forgotten"), "{found:?}");
}

fn deployment(bed: &Testbed) -> String {
    format!("test@{}", bed.topic_prefix())
}

/// A registry that has no schema and takes none: `/mode` is all that it knows.
async fn read_only_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.must("listen");
    let address = listener.local_addr().must("find the address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4_096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let is_mode = request[..read].starts_with(b"GET /mode ");
            let (status, body) = if is_mode {
                ("200 OK", "{\"mode\":\"READONLY\"}")
            } else {
                ("404 Not Found", "{\"error_code\":40401,\"message\":\"Subject not found\"}")
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            // The client may be gone.
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_takes_no_schema_is_named_if_the_relay_is_to_register_them() {
    let bed = Testbed::new("check_mode").await;
    let settings = bed.relay().registry(&read_only_registry().await);
    let (code, found) = findings(&settings).await;
    assert!(code == ERRORS && has(&found, "registry", "error", "is in mode READONLY"), "{found:?}");
    let settings = settings.variable("ANNALS_RELAY__REGISTRY__AUTO_REGISTER", "false");
    let (_, found) = findings(&settings).await;
    assert!(!has(&found, "registry", "error", "is in mode READONLY"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_event_store_each_subcommand_names_the_one_that_makes_it() {
    let bed = Testbed::new("unmigrated").await;
    let settings = bed.relay().variable("ANNALS_RELAY__DATABASE__SCHEMA", "elsewhere");
    let mut unnamed = Vec::new();
    for command in [
        "status",
        "quarantine list",
        "quarantine show account-a",
        "quarantine retry account-a",
        "quarantine skip account-a --position 1 --reason test",
        "quarantine release",
        "deliver at-least-once",
        "reshard 4",
        "rebase --dry-run",
        "adopt --reason test",
        "replay --all --dry-run",
        "replay --resume",
        "audit",
        "topics plan",
        "topics apply",
        "schemas export --flink account",
        "grants read somebody",
        "forget another --reason test",
        "release-topics --store 00000000-0000-0000-0000-000000000000 --publication p --reason test",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let (code, said) = settings.run_for_code(&words).await;
        if code != 1 || !said.contains("annals-relay migrate") {
            unnamed.push(format!("{command}: {code}: {said}"));
        }
    }
    assert!(unnamed.is_empty(), "{unnamed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_without_an_event_store_names_what_makes_it_and_waits_for_it() {
    let bed = Testbed::new("not_migrated").await;
    let settings = bed.relay().impatient().variable("ANNALS_RELAY__DATABASE__SCHEMA", "elsewhere");
    let mut relay = RelayProcess::start(&settings);
    let line = relay.waits_for("database").await;
    assert!(line.contains("annals-relay migrate"), "{line}");
    settings.must_run(&["migrate"]).await;
    relay.event("publishing").await;
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_that_cannot_be_meant_are_refused_before_anything_else() {
    let bed = Testbed::new("arguments").await;
    let settings = bed.relay().database("postgres://nobody@127.0.0.1:1/none");
    for (command, part) in [
        ("replay --reason test", "--category <NAME>"),
        ("replay --category account --reason test --from-version -2", "--from-version"),
        ("replay --category account --reason test --to-position 0", "--to-position"),
        ("quarantine skip account-a --position none --reason test", "--position"),
        ("rebase", "--reason"),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let (code, said) = settings.run_for_code(&words).await;
        assert!(code == 2 && said.contains(part), "{command}: {code}: {said}");
    }
}
