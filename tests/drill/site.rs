//! A site with one relay, watched by a Prometheus with the rules of alerts.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use annals_store::{Append, ExpectedVersion, NewEvent};
use annals_testkit::{ALL_SHARDS, Must, Prometheus, RelayProcess, RelaySettings, Testbed, account};

use serde_json::Value;

use crate::rules;
use crate::runbook::Runbook;

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The longest time until an alert fires, or ends, in addition to its own duration.
const PATIENCE: Duration = Duration::from_secs(120);

/// The view of an operator.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) alert: &'static str,
    pub(crate) fired_after: Duration,
    pub(crate) ended_after: Duration,
}

pub(crate) struct Site {
    pub(crate) bed: Testbed,
    pub(crate) settings: RelaySettings,
    pub(crate) relay: RelayProcess,
    prometheus: Prometheus,
    runbook: Runbook,
    pub(crate) fast: u32,
    began: Instant,
}

impl Site {
    /// Starts a relay that publishes, and a Prometheus that scrapes it.
    pub(crate) async fn open(bed: Testbed, settings: RelaySettings, fast: u32) -> Self {
        Self::open_trusting(bed, settings, fast, None).await
    }

    /// The same over TLS, if there is a file with trusted certificates.
    pub(crate) async fn open_trusting(
        bed: Testbed,
        settings: RelaySettings,
        fast: u32,
        trusted: Option<&Path>,
    ) -> Self {
        let address = free_address();
        let settings = settings.variable("ANNALS_RELAY__HTTP__LISTEN", &address.to_string());
        let relay = RelayProcess::start(&settings);
        relay.publishes(ALL_SHARDS).await;
        let rules = rules::faster(fast);
        let prometheus = match trusted {
            Some(trusted) => Prometheus::watching_over_tls(address, &rules, trusted).await,
            None => Prometheus::watching(address, &rules).await,
        };
        let (began, runbook) = (Instant::now(), Runbook::new());
        let site = Self { bed, settings, relay, prometheus, runbook, fast, began };
        // Before its first scrape, Prometheus takes the relay for absent.
        site.prometheus.until_answered("up{job=\"annals-relay\"} == 1").await;
        site.append("drill", [annals_testkit::deposited(0)]).await;
        site.bed.until_copied().await;
        site.until(<[String]>::is_empty, "all alerts to end").await;
        site
    }

    /// Another Prometheus connects: a connection that is open lives for up to five minutes.
    pub(crate) async fn watch_anew(&mut self, trusted: &Path) {
        let (address, rules) = (self.relay.http().await, rules::faster(self.fast));
        self.prometheus = Prometheus::watching_over_tls(address, &rules, trusted).await;
    }

    pub(crate) async fn append(&self, stream: &str, events: impl IntoIterator<Item = NewEvent>) {
        let append = Append::to(&account(stream), ExpectedVersion::Any, events);
        self.bed.store().append(&append).await.must("append");
    }

    /// The fault begins now.
    pub(crate) fn fault(&mut self, what: &str) {
        self.began = Instant::now();
        self.say(&format!("fault: {what}"));
    }

    pub(crate) fn say(&self, what: &str) {
        println!("  {:>6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Waits until the alert fires, and prints the runbook's section.
    pub(crate) async fn until_fires(&mut self, alert: &'static str) -> Duration {
        self.until(|firing| firing.iter().any(|of| of == alert), alert).await;
        let after = self.began.elapsed();
        self.say(&format!("alert: {alert} (its durations divided by {})", self.fast));
        let section = self.runbook.open_alert(alert);
        self.show(&format!("ops/runbook.md, {alert}"), &section);
        after
    }

    /// Follows a link of the runbook.
    pub(crate) fn follow(&mut self, heading: &str) {
        let section = self.runbook.follow(heading);
        self.show(heading, &section);
    }

    /// Does what the runbook says in these words.
    ///
    /// # Panics
    /// If it does not say it.
    pub(crate) fn step(&self, step: &str) {
        assert!(self.runbook.says(step), "the runbook does not say {step:?}");
        self.say(&format!("step: {step}"));
    }

    /// Runs a command of the runbook.
    ///
    /// # Panics
    /// If the runbook does not have it, or it ends with an error.
    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let command = arguments.join(" ");
        assert!(self.runbook.has_command(&command), "the runbook has no command {command:?}");
        self.say(&format!("$ annals-relay {command}"));
        let (code, said) = self.settings.run_for_code(arguments).await;
        for line in said.lines().take(8) {
            println!("            {line}");
        }
        assert!(code == 0 || code == 3, "exit code {code}");
        said
    }

    fn show(&self, heading: &str, section: &str) {
        self.say(&format!("runbook: {heading}"));
        for line in section.trim().lines() {
            println!("            | {line}");
        }
    }

    /// Waits until the alert has ended and everything is published, and audits.
    pub(crate) async fn ends(mut self, alert: &'static str, fired_after: Duration) -> Seen {
        self.until_published().await;
        self.say("audit: every event is published, without a fault");
        self.until(|firing| !firing.iter().any(|of| of == alert), "the alert to end").await;
        let ended_after = self.began.elapsed();
        self.say(&format!("alert: {alert} has ended"));
        assert!(self.relay.terminate().await.success(), "the relay does not end well");
        Seen { alert, fired_after, ended_after }
    }

    /// Waits for an audit without a fault and without a waiting event.
    async fn until_published(&self) {
        let began = Instant::now();
        loop {
            let (code, said) = self.settings.run_for_code(&["audit", "--json"]).await;
            let summary: Value = said
                .lines()
                .last()
                .map_or(Value::Null, |line| serde_json::from_str(line).unwrap_or(Value::Null));
            if code == 0 && summary["summary"]["waiting"] == 0 {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "not everything is published: {said}");
        }
    }

    async fn until(&self, is_it: impl Fn(&[String]) -> bool, what: &str) {
        let began = Instant::now();
        let limit = PATIENCE + Duration::from_secs(3_600 / u64::from(self.fast));
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        loop {
            let firing: Vec<String> = self.prometheus.firing().await.into_iter().collect();
            if is_it(&firing) {
                return;
            }
            assert!(began.elapsed() < limit, "waited in vain for {what}; firing: {firing:?}");
            polls.tick().await;
        }
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").must("find a port");
    listener.local_addr().must("find a port")
}
