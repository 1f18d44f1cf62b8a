//! The measured relay: the release binary, with its default settings, as a process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use annals_testkit::{Environment, Testbed};
use anyhow::Context;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::process::{self, Used};

const BINARY: &str = "annals-relay";
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// The settings of a relay's start.
#[derive(Debug, Clone)]
pub(crate) struct Settings<'a> {
    /// The database that it publishes from.
    pub(crate) database_url: &'a str,
    /// A new deployment begins at the beginning of the outbox.
    pub(crate) deployment: &'a str,
    /// The relay's name in the deployment.
    pub(crate) instance: &'a str,
    /// The prefix of its topics.
    pub(crate) topic_prefix: &'a str,
    /// The path of its log.
    pub(crate) directory: &'a Path,
    /// Its log level.
    pub(crate) log: Log,
    /// Whether it serves health and metrics.
    pub(crate) http: Http,
    /// Its delivery guarantee.
    pub(crate) delivery: Delivery,
}

impl Settings<'_> {
    /// A command of the relay's program with these settings.
    fn command(&self, command: &str) -> anyhow::Result<Command> {
        let environment = Environment::get();
        let listen = if self.http == Http::Off { "off" } else { "127.0.0.1:0" };
        let mut program = Command::new(binary()?);
        if matches!(self.log, Log::Hops) {
            program
                .env("ANNALS_RELAY__LOG__LEVEL", "info,annals_relay::model::timings=debug")
                .env("ANNALS_RELAY__LOG__FORMAT", "json");
        }
        program
            .arg(command)
            .env("ANNALS_DATABASE_URL", self.database_url)
            .env("ANNALS_KAFKA", &environment.kafka)
            .env("ANNALS_REGISTRY_URL", &environment.registry_url)
            .env("ANNALS_RELAY__RELAY__DEPLOYMENT", self.deployment)
            .env("ANNALS_RELAY__RELAY__DELIVERY", self.delivery.name())
            .env("ANNALS_RELAY__RELAY__INSTANCE", self.instance)
            .env("ANNALS_RELAY__TOPICS__PREFIX", self.topic_prefix)
            .env("ANNALS_RELAY__REGISTRY__AUTO_REGISTER", "true")
            .env("ANNALS_RELAY__HTTP__LISTEN", listen)
            .kill_on_drop(true);
        Ok(program)
    }

    /// Runs the `status` command for this deployment.
    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        let start = Instant::now();
        let output = self.command("status")?.arg("--json").output().await?;
        let took = start.elapsed();
        // The exit code says whether the deployment publishes everything.
        let status: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!("read the status: {}", String::from_utf8_lossy(&output.stderr))
        })?;
        let waiting = status["lag"]["events"].as_u64().context("the status has no lag")?;
        Ok(Status { took, waiting_events: usize::try_from(waiting)? })
    }
}

/// What the `status` command said, and how long it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    pub(crate) took: Duration,
    pub(crate) waiting_events: usize,
}

/// The HTTP server of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    /// On a port that the system chooses.
    Served,
    /// None.
    Off,
}

/// The delivery guarantee of a relay.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Delivery {
    /// The default.
    ExactlyOnce,
    /// Without transactions.
    AtLeastOnce,
}

impl Delivery {
    fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }
}

/// A log level of the relay.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Log {
    /// The default.
    Usual,
    /// The default, and the parts of each transaction's time; as JSON.
    Hops,
}

/// A running relay. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Relay {
    /// Starts it; returns before it publishes.
    pub(crate) fn start(settings: &Settings<'_>) -> anyhow::Result<Self> {
        let Settings { deployment, instance, directory, .. } = settings;
        let log = directory.join(format!("{deployment}.{instance}.log"));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = settings.command("run")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", command.as_std().get_program().display()))?;
        let pid = child.id().context("find the relay's process")?;
        Ok(Self { child, pid, log })
    }

    /// Starts one for a bed, whose names are those of the deployment and of the topics.
    pub(crate) fn of(
        bed: &Testbed,
        instance: &str,
        directory: &Path,
        log: Log,
        delivery: Delivery,
    ) -> anyhow::Result<Self> {
        Self::start(&Settings {
            database_url: &bed.database_url(),
            deployment: bed.name(),
            instance,
            topic_prefix: &bed.topic_prefix(),
            directory,
            log,
            http: Http::Served,
            delivery,
        })
    }

    /// Its resource use since its start.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        Used::by(self.pid)
    }

    /// Waits until it has ended by itself, which is a fault; returns the path of its log.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => anyhow::anyhow!("the relay ended with {status}; {}", self.where_log_is()),
            Err(error) => anyhow::Error::new(error).context("wait for the relay"),
        }
    }

    /// For messages.
    pub(crate) fn where_log_is(&self) -> String {
        format!("the relay's log is {}", self.log.display())
    }

    /// Waits until it publishes its shards.
    pub(crate) async fn has_begun(&self) -> anyhow::Result<()> {
        self.until_logged("event=\"publishing\"").await
    }

    /// Where it serves health and metrics, once it does.
    pub(crate) async fn address(&self) -> anyhow::Result<SocketAddr> {
        self.until_logged("address=").await?;
        let text = std::fs::read_to_string(&self.log)?;
        let address = text.split_once("address=").and_then(|(_, of)| of.split_whitespace().next());
        Ok(address.with_context(|| self.where_log_is())?.parse()?)
    }

    async fn until_logged(&self, text: &str) -> anyhow::Result<()> {
        let mut polls = tokio::time::interval(Duration::from_millis(10));
        let logged = async {
            while !self.has_logged(text).unwrap_or(false) {
                polls.tick().await;
            }
        };
        let logged = tokio::time::timeout(STOP_DEADLINE, logged).await;
        logged.with_context(|| self.where_log_is())
    }

    /// Whether its log contains this text.
    pub(crate) fn has_logged(&self, text: &str) -> anyhow::Result<bool> {
        Ok(std::fs::read_to_string(&self.log)?.contains(text))
    }

    /// Each line of a log in JSON.
    pub(crate) fn logged(&self) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.log)?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// Sends it a signal, by the name that `kill` knows.
    pub(crate) fn signal(&self, signal: &str) -> anyhow::Result<()> {
        process::signal(self.pid, signal)
    }

    /// Waits until it has ended, in any way.
    pub(crate) async fn gone(&mut self) -> anyhow::Result<()> {
        self.child.wait().await.map(drop).context("wait for the relay")
    }

    /// Ends it cleanly, and removes its log.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.signal("-TERM")?;
        let ended = tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await;
        let status = ended.context("wait for the relay to end")??;
        anyhow::ensure!(status.success(), "the relay ended with {status}; {}", self.where_log_is());
        Ok(std::fs::remove_file(&self.log)?)
    }
}

/// The relay of the same build, beside this program.
fn binary() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("find this program")?;
    let binary = this.with_file_name(BINARY);
    anyhow::ensure!(
        binary.exists(),
        "there is no {}: run `cargo build --release -p {BINARY}` first, or use bench/run",
        binary.display()
    );
    Ok(binary)
}
