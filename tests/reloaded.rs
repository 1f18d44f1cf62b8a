//! Secrets come from files and are shown nowhere; a running relay takes changes of its
//! configuration at SIGHUP, and names the keys that need a restart.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    Authority, CertificateFiles, Component, HttpAnswer, Must, PrivateStack, RelayProcess,
    RelaySettings, Testbed, TwoDoors, Validity, account, deposited, http_get, until,
};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A broker whose other listener accepts one user with this password.
const LOGIN: &str = "listener.name.other.sasl.enabled.mechanisms=PLAIN\n\
    listener.name.other.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
    user_relay=\"canary_kafka\";\n";
/// Each secret of a test begins so.
const CANARY: &str = "canary_";
/// Secrets that no component asks for.
const UNUSED: [(&str, &str); 5] = [
    ("REGISTRY__USERNAME", "relay"),
    ("REGISTRY__PASSWORD", "canary_registry"),
    ("HTTP__TOKEN", "canary_http"),
    ("TRACE__OTLP_URL", "http://127.0.0.1:1/v1/traces"),
    ("TRACE__TOKEN", "canary_trace"),
];

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
    metrics.metric(name).must("find a metric")
}

/// A relay with a secret of each kind, which logs all that it can.
fn with_secrets(
    bed: &Testbed,
    kafka: &TwoDoors,
    [in_database, in_kafka]: [&Path; 2],
    certificate: &CertificateFiles,
) -> RelaySettings {
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
                 \"sasl.username\" = \"relay\", \"sasl.password_file\" = {:?}, \
                 \"ssl.key.password\" = \"canary_key\" }}",
                in_kafka.display().to_string()
            ),
        )
        .variable(
            "ANNALS_RELAY__HTTP__TLS_CERTIFICATE",
            &certificate.certificate.display().to_string(),
        )
        .variable("ANNALS_RELAY__HTTP__TLS_KEY", &certificate.key.display().to_string())
        .variable("ANNALS_RELAY__LOG__LEVEL", "trace,librdkafka=debug");
    UNUSED.into_iter().fold(settings, |settings, (name, value)| {
        settings.variable(&format!("ANNALS_RELAY__{name}"), value)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_come_from_files_are_changed_at_sighup_and_shown_nowhere() {
    let (kafka, stack) =
        tokio::join!(TwoDoors::with_login(LOGIN), PrivateStack::up(&[Component::Postgres]));
    let bed = Testbed::on("secret_files", stack.environment().clone()).await;
    let mut administrator =
        PgConnection::connect(&stack.environment().database_url).await.must("connect");
    administer(&mut administrator, include_str!("sql/relay_user.sql")).await;
    let in_database = file(&bed, "database", "canary_first\n");
    let in_kafka = file(&bed, "kafka", "canary_kafka\n");
    let authority = Authority::new();
    let of_server = |name| authority.issue(name, &["127.0.0.1"], Validity::Now);
    let (certificate, renewed) = (of_server("certificate"), of_server("renewed"));
    let settings = with_secrets(&bed, &kafka, [&in_database, &in_kafka], &certificate);
    let mut relay = RelayProcess::start(&settings);
    relay.event("publishing").await;

    administer(&mut administrator, include_str!("sql/change_password.sql")).await;
    relay.keeps_waiting_for("database").await;
    write(&in_database, "canary_second");
    relay.reload().await;
    relay.event_with("reloaded", &[("changed", "database.password")]).await;
    relay.has_waited_for("database").await;
    append(&bed, 0..1).await;
    bed.until_copied().await;
    a_renewed_certificate_is_taken(&relay, &certificate, &renewed).await;
    assert!(relay.terminate().await.success());

    let (check, status) =
        tokio::join!(nowhere(&settings, &["check", "--json"]), nowhere(&settings, &["status"]));
    let shown = [
        settings.must_run(&["config"]).await,
        settings.must_run(&["config", "--json"]).await,
        settings.must_run(&["check-config"]).await,
        settings.run_for_code(&["status", "--json"]).await.1,
        settings.run_for_code(&["check", "--json"]).await.1,
        check,
        status,
        relay.text(),
    ];
    for said in &shown {
        let line = said.lines().find(|line| line.contains(CANARY));
        assert_eq!(line, None, "a secret is shown");
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

/// The errors of a command while no component answers.
async fn nowhere(settings: &RelaySettings, arguments: &[&str]) -> String {
    let (kafka, registry) = ("127.0.0.1:1", "http://127.0.0.1:1");
    let settings = settings.clone().in_directory(arguments[0]);
    let settings = settings.database("postgres://relay@127.0.0.1:1/nowhere");
    let (code, said) = settings.kafka(kafka).registry(registry).run_for_code(arguments).await;
    assert!(code != 0 && !said.is_empty(), "{said}");
    said
}

/// At SIGHUP, from the same files.
async fn a_renewed_certificate_is_taken(
    relay: &RelayProcess,
    certificate: &CertificateFiles,
    renewed: &CertificateFiles,
) {
    let address = relay.http().await;
    let read = |path: &Path| std::fs::read(path).must("read a certificate");
    assert_eq!(presented(address).await, read(&certificate.certificate));
    for (from, to) in
        [(&renewed.certificate, &certificate.certificate), (&renewed.key, &certificate.key)]
    {
        std::fs::copy(from, to).must("renew a certificate");
    }
    relay.reload().await;
    let is_renewed = async || presented(address).await == read(&renewed.certificate);
    until("the server presents the renewed certificate", is_renewed).await;
}

/// The certificate that a server presents to a new connection.
async fn presented(address: SocketAddr) -> Vec<u8> {
    let asked = tokio::task::spawn_blocking(move || {
        let mut client = SslConnector::builder(SslMethod::tls()).must("make a client");
        client.set_verify(SslVerifyMode::NONE);
        let stream = std::net::TcpStream::connect(address).must("connect");
        let stream = client.build().connect("localhost", stream).must("begin TLS");
        let certificate = stream.ssl().peer_certificate().must("get a certificate");
        certificate.to_pem().must("print a certificate")
    });
    asked.await.must("ask for a certificate")
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
