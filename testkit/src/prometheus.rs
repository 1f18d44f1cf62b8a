//! A real Prometheus that scrapes a relay, and its checker.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::follow::DEADLINE;
use crate::http::{HttpAnswer, http_get};
use crate::must::Must;
use crate::relay_settings::output_directory;
use crate::stack::{free_port, program};

const SCRAPE_INTERVAL: Duration = Duration::from_millis(200);

/// Runs `promtool` in a directory, with a text as its input.
///
/// # Errors
/// Its output, if it finds a fault.
///
/// # Panics
/// If it cannot be run.
pub async fn promtool(directory: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(program("promtool").await);
    command.current_dir(directory).args(arguments).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().must("start promtool");
    let mut stdin = child.stdin.take().must("write to promtool");
    stdin.write_all(input.as_bytes()).await.must("write to promtool");
    drop(stdin);
    let output = child.wait_with_output().await.must("run promtool");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// A Prometheus that scrapes one relay five times a second. Ends with the test.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    directory: PathBuf,
    #[expect(dead_code, reason = "dropping it ends the process")]
    child: Child,
}

impl Prometheus {
    /// Starts it, and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn scraping(relay: SocketAddr) -> Self {
        Self::watching(relay, "groups: []\n").await
    }

    /// The same, and it evaluates rules of alerts as often as it scrapes.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn watching(relay: SocketAddr, rules: &str) -> Self {
        Self::start(&format!("static_configs: [{{targets: [\"{relay}\"]}}]"), rules).await
    }

    /// The same over TLS, trusting the certificates in a file.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn watching_over_tls(relay: SocketAddr, rules: &str, trusted: &Path) -> Self {
        let scrape = format!(
            "static_configs: [{{targets: [\"{relay}\"]}}]\n    scheme: https\n    tls_config: {{ca_file: {trusted:?}}}"
        );
        Self::start(&scrape, rules).await
    }

    async fn start(scrape: &str, rules: &str) -> Self {
        let name = format!("prometheus.{}", Uuid::new_v4().simple());
        let directory = output_directory().join(name);
        std::fs::create_dir_all(&directory).must("make a directory for Prometheus");
        let configuration = directory.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: [alerts.yml]\nscrape_configs:\n  - job_name: annals-relay\n    {scrape}\n"
        );
        std::fs::write(&configuration, text).must("configure Prometheus");
        std::fs::write(directory.join("alerts.yml"), rules).must("write the rules of alerts");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let child = Command::new(program("prometheus").await)
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .must("start Prometheus");
        HttpAnswer::until(address, "/-/ready", 200).await;
        Self { address, directory, child }
    }

    /// Waits until a query returns a series with a number: a rate needs two scrapes, and a quantile
    /// of nothing is none.
    ///
    /// # Panics
    /// If it returns none in time, or is refused.
    pub async fn until_answered(&self, query: &str) {
        let asked = async {
            let mut polls = tokio::time::interval(SCRAPE_INTERVAL);
            while !self.query(query).await.iter().any(has_number) {
                polls.tick().await;
            }
        };
        let answered = tokio::time::timeout(DEADLINE, asked).await;
        assert!(answered.is_ok(), "no number for {query}: {:?}", self.query(query).await);
    }

    /// The names of the alerts that fire now.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn firing(&self) -> BTreeSet<String> {
        let answer = http_get(self.address, "/api/v1/alerts", "").await.json();
        let alerts = answer["data"]["alerts"].as_array().must("read the alerts").iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned())).collect()
    }

    /// The series that a query returns now.
    ///
    /// # Panics
    /// If it refuses the query.
    pub async fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let answer = http_get(self.address, &path, "").await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let mut answer = answer.json();
        serde_json::from_value(answer["data"]["result"].take()).must("read the result of a query")
    }
}

/// Whether the value of a series is a number.
fn has_number(series: &Value) -> bool {
    series["value"][1].as_str().is_some_and(|value| value != "NaN")
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It is killed, and may still write.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}
