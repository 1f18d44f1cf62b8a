//! An operator's day: each fault is made on a real stack, the alert is awaited that tells of it,
//! the runbook's section is followed word for word, and the alert must end with every event
//! published once. `ops/drill` plays all of them, and `make test` some.
//!
//! The durations of alerts are divided by `--fast N` (60 by default); with `--fast 1` they are
//! those of production. `--older PROGRAM` is the relay's program of the version before this one.
//! The last line names the scenarios that could not be played; with `--all` that is a failure.

#![expect(clippy::print_stdout, reason = "a program for people")]

mod certificate;
mod rules;
mod runbook;
mod site;
mod small_disk;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use annals_testkit::{
    CATEGORY, Component, Ending, Must, PrivateStack, RelayProcess, Testbed, configure_topic,
    delete_topic, deposited, deposited_large, opened, until,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::certificate::Certificate;
use crate::site::{Seen, Site};
use crate::small_disk::SmallDisk;

/// The life of the certificate that expires.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(60);
const SCENARIOS: [&str; 10] = [
    "relay-dies",
    "broker-dies",
    "kafka-disk-full",
    "database-fails-over",
    "registry-away",
    "poison-event",
    "long-transaction",
    "certificate-expires",
    "topic-deleted",
    "version-rolled-back",
];

/// How the day is played.
#[derive(Debug)]
struct Options {
    fast: u32,
    older: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let fast = option(&mut arguments, "--fast").map(|number| number.parse().ok());
    let fast = fast.unwrap_or(Some(60)).filter(|of| *of > 0).must("read a number behind --fast");
    let older = option(&mut arguments, "--older").map(PathBuf::from);
    let options = Options { fast, older };
    let is_complete = flag(&mut arguments, "--all");
    let unknown = arguments.iter().find(|of| !SCENARIOS.contains(&of.as_str()));
    assert!(unknown.is_none(), "no scenario {unknown:?}; there are {SCENARIOS:?}");
    let is_chosen = |name: &&str| arguments.is_empty() || arguments.iter().any(|of| of == name);
    let (mut day, mut skipped) = (Vec::new(), Vec::new());
    for name in SCENARIOS.into_iter().filter(|name| is_chosen(name)) {
        println!("{name}");
        match play(name, &options).await {
            Ok(seen) => day.push((name, seen)),
            Err(reason) => skipped.push(format!("{name} ({reason})")),
        }
    }
    println!("{:<20} {:<26} {:>12} {:>12}", "scenario", "alert", "fires after", "ends after");
    for (name, Seen { alert, fired_after, ended_after }) in day {
        let [fired, ended] = [fired_after, ended_after].map(|of| of.as_secs_f64());
        println!("{name:<20} {alert:<26} {fired:>10.1} s {ended:>10.1} s");
    }
    if skipped.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("not played: {}", skipped.join(", "));
    if is_complete { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Takes a flag out of the arguments.
fn flag(arguments: &mut Vec<String>, name: &str) -> bool {
    let at = arguments.iter().position(|of| of == name);
    at.map(|at| arguments.remove(at)).is_some()
}

/// Takes an option and its value out of the arguments.
fn option(arguments: &mut Vec<String>, name: &str) -> Option<String> {
    let at = arguments.iter().position(|of| of == name)?;
    assert!(at + 1 < arguments.len(), "{name} needs a value");
    arguments.drain(at..at + 2).next_back()
}

/// Why it cannot be played here, as an error.
async fn play(name: &str, options: &Options) -> Result<Seen, &'static str> {
    let fast = options.fast;
    Ok(match name {
        "kafka-disk-full" => {
            let seen = Box::pin(kafka_disk_full(fast)).await;
            return seen.ok_or("only root can mount a small disk");
        }
        "version-rolled-back" => {
            let older = options.older.as_deref().ok_or("--older names no program")?;
            Box::pin(version_rolled_back(fast, older)).await
        }
        "relay-dies" => Box::pin(relay_dies(fast)).await,
        "broker-dies" => Box::pin(component_dies(Component::Kafka, fast)).await,
        "registry-away" => Box::pin(component_dies(Component::Registry, fast)).await,
        "database-fails-over" => Box::pin(database_fails_over(fast)).await,
        "poison-event" => Box::pin(poison_event(fast)).await,
        "long-transaction" => Box::pin(long_transaction(fast)).await,
        "certificate-expires" => Box::pin(certificate_expires(fast)).await,
        _ => Box::pin(topic_deleted(fast)).await,
    })
}

async fn relay_dies(fast: u32) -> Seen {
    let bed = Testbed::new("drill_relay").await;
    let settings = bed.relay();
    let mut site = Site::open(bed, settings, fast).await;
    site.fault("kill -9 of the only relay");
    site.relay.kill().await;
    site.append("a", [deposited(1)]).await;
    let fired = site.until_fires("AnnalsRelayDown").await;
    site.step("start it: `systemctl start annals-relay`");
    site.relay.restart();
    site.ends("AnnalsRelayDown", fired).await
}

async fn component_dies(component: Component, fast: u32) -> Seen {
    let stack = PrivateStack::up(&[component]).await;
    let bed = Testbed::on("drill_component", stack.environment().clone()).await;
    let settings = bed.relay().impatient();
    let mut site = Site::open(bed, settings, fast).await;
    site.fault(&format!("kill -9 of {component:?}"));
    stack.end(component, Ending::Crash).await;
    // A registry is asked only about new schemas.
    site.append("b", [opened("ann")]).await;
    let alert = match component {
        Component::Registry => "AnnalsRegistryUnavailable",
        Component::Kafka | Component::Postgres => "AnnalsRelayWaiting",
    };
    let fired = site.until_fires(alert).await;
    site.run(&["status"]).await;
    site.step(match component {
        Component::Registry => "Repair the registry",
        Component::Kafka | Component::Postgres => "are the brokers up",
    });
    stack.start(component).await;
    site.ends(alert, fired).await
}

async fn kafka_disk_full(fast: u32) -> Option<Seen> {
    let disk = SmallDisk::mount("drill")?;
    let stack = PrivateStack::with_data_in(disk.path(), Component::Kafka).await;
    let bed = Testbed::on("drill_disk", stack.environment().clone()).await;
    let settings = bed.relay().impatient();
    let mut site = Site::open(bed, settings, fast).await;
    site.fault("the disk of the only broker is full");
    disk.fill();
    for number in 0..200 {
        site.append("a", [deposited(number), deposited_large(number)]).await;
    }
    let fired = site.until_fires("AnnalsRelayWaiting").await;
    site.run(&["status"]).await;
    site.step("a broker ends when its disk is full: free space, and start it");
    disk.free();
    stack.start(Component::Kafka).await;
    Some(site.ends("AnnalsRelayWaiting", fired).await)
}

async fn database_fails_over(fast: u32) -> Seen {
    let primary = PrivateStack::up(&[Component::Postgres]).await;
    primary.end(Component::Postgres, Ending::Orderly).await;
    let standby = PrivateStack::standby_of(&primary).await;
    primary.start(Component::Postgres).await;
    let bed = Testbed::on("drill_failover", primary.environment().clone()).await;
    let settings = bed.relay().impatient();
    let mut site = Site::open(bed, settings, fast).await;
    site.append("a", [deposited(1)]).await;
    site.bed.until_copied().await;
    let url = standby.environment().url_of_database(site.bed.name());
    let count = "select count(*) from annals.events";
    until("the standby has the events", async || count_of(&url, count).await >= 2).await;
    site.fault("kill -9 of the primary");
    primary.end(Component::Postgres, Ending::Crash).await;
    let fired = site.until_fires("AnnalsRelayWaiting").await;
    site.step("If the primary is gone, promote a standby (`select pg_promote()`)");
    count_of(&url, "select pg_promote(true, 60)::int::bigint").await;
    site.follow("A standby was promoted");
    site.step("Point the name or the virtual address at the new primary");
    site.relay.kill().await;
    let settings = site.settings.clone().database(&url).in_directory("promoted");
    site.relay = RelayProcess::start(&settings);
    site.settings = settings;
    site.relay.event("publishing").await;
    site.ends("AnnalsRelayWaiting", fired).await
}

/// A number that a database answers; -1 if it does not.
async fn count_of(url: &str, question: &str) -> i64 {
    let Ok(mut connection) = PgConnection::connect(url).await else { return -1 };
    let question = sqlx::query_scalar(AssertSqlSafe(question.to_owned()));
    question.fetch_one(&mut connection).await.unwrap_or(-1)
}

async fn poison_event(fast: u32) -> Seen {
    let bed = Testbed::new("drill_poison").await;
    let settings = bed.relay();
    let mut site = Site::open(bed, settings, fast).await;
    let (brokers, topic) = (site.bed.environment().kafka.clone(), site.bed.topic(CATEGORY));
    configure_topic(&brokers, &topic, "max.message.bytes", "3000").await;
    site.fault("an event that is larger than its topic allows");
    site.append("large", [deposited_large(1), deposited(2)]).await;
    let fired = site.until_fires("AnnalsQuarantine").await;
    site.run(&["quarantine", "list"]).await;
    site.run(&["quarantine", "show", "account-large"]).await;
    site.step("Raise the topic's limit, then `quarantine retry STREAM`");
    configure_topic(&brokers, &topic, "max.message.bytes", "4194304").await;
    site.run(&["quarantine", "retry", "account-large"]).await;
    site.relay.event("quarantine_ended").await;
    site.ends("AnnalsQuarantine", fired).await
}

async fn long_transaction(fast: u32) -> Seen {
    let bed = Testbed::new("drill_transaction").await;
    let settings = bed.relay();
    let mut site = Site::open(bed, settings, fast).await;
    site.fault("a transaction that appended stays open");
    let mut transaction = site.bed.store().pool().begin().await.must("begin");
    let append = annals_store::Append::to(
        &annals_testkit::account("open"),
        annals_store::ExpectedVersion::Any,
        [deposited(1)],
    );
    site.bed.store().append_in(&mut transaction, &append).await.must("append");
    let own: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut *transaction)
        .await
        .must("find the process of the transaction");
    let fired = site.until_fires("AnnalsOpenTransaction").await;
    let said = site.run(&["status"]).await;
    assert!(said.contains(&own.to_string()), "status names the process {own}");
    site.step("If it is abandoned: `select pg_terminate_backend(PID)`");
    let end = format!("select pg_terminate_backend({own})::int::bigint");
    assert_eq!(count_of(&site.bed.database_url(), &end).await, 1);
    drop(transaction);
    site.ends("AnnalsOpenTransaction", fired).await
}

async fn certificate_expires(fast: u32) -> Seen {
    let bed = Testbed::new("drill_certificate").await;
    let directory = std::env::temp_dir().join(bed.name());
    std::fs::create_dir_all(&directory).must("make a directory for certificates");
    let [certificate, key, trusted] =
        ["certificate.pem", "key.pem", "trusted.pem"].map(|name| directory.join(name));
    let (first, second) =
        (Certificate::valid_for(CERTIFICATE_LIFE), Certificate::valid_for(CERTIFICATE_LIFE * 60));
    let expires = Instant::now() + CERTIFICATE_LIFE;
    first.write(&certificate, &key);
    let both = [first.certificate, second.certificate.clone()].concat();
    std::fs::write(&trusted, both).must("write the trusted certificates");
    let settings = bed
        .relay()
        .variable("ANNALS_RELAY__HTTP__TLS_CERTIFICATE", &certificate.display().to_string())
        .variable("ANNALS_RELAY__HTTP__TLS_KEY", &key.display().to_string());
    let mut site = Site::open_trusting(bed, settings, fast, Some(&trusted)).await;
    tokio::time::sleep_until(expires.into()).await;
    site.fault("the certificate of the relay's HTTP server has expired");
    site.watch_anew(&trusted).await;
    let fired = site.until_fires("AnnalsRelayDown").await;
    site.step("renew the files of `http.tls_certificate` and `http.tls_key`");
    second.write(&certificate, &key);
    site.step("`kill -HUP`");
    site.relay.reload().await;
    site.relay.event("reloaded").await;
    let seen = site.ends("AnnalsRelayDown", fired).await;
    std::fs::remove_dir_all(&directory).must("remove the certificates");
    seen
}

async fn topic_deleted(fast: u32) -> Seen {
    let bed = Testbed::new("drill_topic").await;
    let settings = bed.relay();
    let mut site = Site::open(bed, settings, fast).await;
    site.fault("the topic of a category is deleted");
    delete_topic(&site.bed.environment().kafka, &site.bed.topic(CATEGORY)).await;
    site.append("a", [deposited(1)]).await;
    let fired = site.until_fires("AnnalsQuarantine").await;
    site.run(&["quarantine", "list"]).await;
    site.step("\"published records are missing\"");
    site.follow("A topic was deleted");
    site.run(&["audit"]).await;
    site.run(&["replay", "--category", CATEGORY, "--dry-run"]).await;
    site.run(&["replay", "--category", CATEGORY, "--reason", "topic deleted"]).await;
    site.run(&["quarantine", "retry", CATEGORY]).await;
    site.relay.event("quarantine_ended").await;
    site.ends("AnnalsQuarantine", fired).await
}

async fn version_rolled_back(fast: u32, older: &Path) -> Seen {
    let bed = Testbed::new("drill_version").await;
    let settings = bed.relay();
    let before = settings.clone().program(older).in_directory("older");
    let mut site = Site::open(bed, settings, fast).await;
    let url = site.bed.database_url();
    site.fault("a new version has migrated, and its relay ends at once");
    count_of(&url, include_str!("../sql/later_migration.sql")).await;
    site.relay.kill().await;
    site.append("a", [deposited(1)]).await;
    let fired = site.until_fires("AnnalsRelayDown").await;
    site.step("install the version before, and start it");
    site.follow("Upgrading, and back");
    let after = std::mem::replace(&mut site.settings, before);
    site.relay = RelayProcess::start(&site.settings);
    site.relay.event("publishing").await;
    site.run(&["--version"]).await;
    site.run(&["status"]).await;
    site.append("b", [deposited(2), deposited(3)]).await;
    site.bed.until_copied().await;
    site.run(&["audit"]).await;
    site.say("the new version, corrected");
    assert!(site.relay.terminate().await.success(), "the older relay does not end well");
    site.settings = after.in_directory("newer");
    site.relay = RelayProcess::start(&site.settings);
    site.append("a", [deposited(4)]).await;
    site.ends("AnnalsRelayDown", fired).await
}
