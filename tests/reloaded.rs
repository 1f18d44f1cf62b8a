//! Secrets come from files and are shown nowhere; a running relay takes changes of its
//! configuration at SIGHUP, and names the keys that need a restart.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    Component, HttpAnswer, Must, PrivateStack, RelayProcess, RelaySettings, Testbed, TwoDoors,
    account, deposited, http_get,
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A broker whose other listener accepts one user with this password.
const LOGIN: &str = "listener.name.other.sasl.enabled.mechanisms=PLAIN\n\
    listener.name.other.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
    user_relay=\"kafka_secret\";\n";

async fn append(bed: &Testbed, sequences: std::ops::Range<i64>) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, sequences.map(deposited));
    bed.store().append(&append).await.must("append");
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).must("write a file");
}

fn edit(relay: &RelayProcess, from: &str, to: &str) {
    let path = relay.config_path();
    let text = std::fs::read_to_string(&path).must("read the configuration");
    assert!(text.contains(from), "{text}");
    write(&path, &text.replacen(from, to, 1));
}

/// A file of a test's relay.
fn file(bed: &Testbed, name: &str, text: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(bed.name());
    std::fs::create_dir_all(&directory).must("make a directory for secrets");
    let path = directory.join(name);
    write(&path, text);
    path
}

fn remove_files(bed: &Testbed) {
    std::fs::remove_dir_all(std::env::temp_dir().join(bed.name())).must("remove the secrets");
}

async fn metric(address: SocketAddr, token: &str, name: &str) -> f64 {
    let metrics =
        http_get(address, "/metrics", &format!("Authorization: Bearer {token}\r\n")).await;
    assert_eq!(metrics.status, 200, "{metrics:?}");
    let value = metrics.body.lines().find_map(|line| line.strip_prefix(name));
    value.must("find a metric").trim().parse().must("read a metric")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_come_from_files_are_changed_at_sighup_and_shown_nowhere() {
    let (kafka, stack) =
        tokio::join!(TwoDoors::with_login(LOGIN), PrivateStack::up(&[Component::Postgres]));
    let bed = Testbed::on("secret_files", stack.environment().clone()).await;
    let mut administrator =
        PgConnection::connect(&stack.environment().database_url).await.must("connect");
    administer(&mut administrator, include_str!("sql/relay_user.sql")).await;
    let in_database = file(&bed, "database", "first\n");
    let in_kafka = file(&bed, "kafka", "kafka_secret\n");
    let settings = bed
        .relay()
        .impatient()
        .database(&bed.database_url().replacen("annals:annals@", "relay@", 1))
        .variable("ANNALS_RELAY__DATABASE__PASSWORD_FILE", &in_database.display().to_string())
        .kafka(&kafka.other())
        .variable(
            "ANNALS_RELAY__KAFKA__PROPERTIES",
            &format!(
                "{{ \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"PLAIN\", \
                 \"sasl.username\" = \"relay\", \"sasl.password_file\" = {:?} }}",
                in_kafka.display().to_string()
            ),
        );
    let mut relay = RelayProcess::start(&settings);
    relay.event("publishing").await;

    administer(&mut administrator, include_str!("sql/change_password.sql")).await;
    relay.keeps_waiting_for("database").await;
    write(&in_database, "second");
    relay.reload().await;
    relay.event_with("reloaded", &[("changed", "database.password")]).await;
    relay.has_waited_for("database").await;
    append(&bed, 0..1).await;
    bed.until_copied().await;
    assert!(relay.terminate().await.success());

    let shown = [
        settings.must_run(&["config"]).await,
        settings.must_run(&["config", "--json"]).await,
        settings.must_run(&["check-config"]).await,
        relay.text(),
    ];
    for secret in ["first", "second", "kafka_secret"] {
        assert!(shown.iter().all(|said| !said.contains(secret)), "{secret} in {shown:?}");
    }
    let keys: Value = serde_json::from_str(&shown[1]).must("read the keys");
    let keys = keys["keys"].as_array().must("have keys");
    let origin = |key: &str| keys.iter().find(|of| of["key"] == key).map(|of| of["origin"].clone());
    assert_eq!(origin("database.url"), Some("ANNALS_DATABASE_URL".into()));
    assert_eq!(origin("relay.lease_ms"), Some("default".into()));
    let file = origin("database.password").must("find a key").to_string();
    assert!(
        file.contains("ANNALS_RELAY__DATABASE__PASSWORD_FILE") && file.contains("/database"),
        "{file}"
    );
    remove_files(&bed);
}

async fn administer(administrator: &mut PgConnection, statements: &str) {
    let statements = AssertSqlSafe(statements.to_owned());
    sqlx::raw_sql(statements).execute(administrator).await.must("administer the server");
}

fn with_token(bed: &Testbed, token: &Path) -> RelaySettings {
    bed.relay().variable("ANNALS_RELAY__HTTP__TOKEN_FILE", &token.display().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_relay_takes_what_it_can_and_names_what_needs_a_restart() {
    let bed = Testbed::new("reloaded").await;
    let token = file(&bed, "token", "first");
    let mut relay = RelayProcess::start(&with_token(&bed, &token));
    let address = relay.http().await;
    relay.event("publishing").await;
    let committed = "annals_relay_transactions_total{outcome=\"committed\"}";
    let before = metric(address, "first", committed).await;

    write(&token, "second");
    edit(&relay, "[relay]\n", "[relay]\nlease_ms = 4000\nbatch_events_max = 2\n");
    edit(&relay, "[http]", "[log]\nlevel = \"debug\"\n[http]");
    relay.turn_page();
    relay.reload().await;
    let changed = "http.token,log.level,relay.batch_events_max";
    let expected = [("changed", changed), ("needs_a_restart", "relay.lease_ms")];
    relay.event_with("reloaded", &expected).await;
    let with_second = "Authorization: Bearer second\r\n";
    HttpAnswer::until_with(address, ("/metrics", with_second), 200).await;
    assert_eq!(http_get(address, "/metrics", "Authorization: Bearer first\r\n").await.status, 401);
    relay.printed("DEBUG").await;
    append(&bed, 0..10).await;
    bed.until_copied().await;
    let transactions = metric(address, "second", committed).await - before;
    assert!(transactions >= 5.0, "{transactions} transactions of at most two events");

    edit(&relay, "level = \"debug\"", "level = \"a=b=c\"");
    relay.reload().await;
    let said = relay.event("reload_failed").await;
    assert!(said.contains("relay.toml:") && said.contains("log.level"), "{said}");
    append(&bed, 10..11).await;
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    remove_files(&bed);
}
