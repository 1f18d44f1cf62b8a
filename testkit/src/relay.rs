//! The real relay, as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::environment::{Environment, is_kept};
use crate::follow::DEADLINE;
use crate::log::{ProcessLog, Wanted};
use crate::must::Must;
use crate::testbed::Testbed;

/// Interval of the readings of a process's memory: its peak is the last reading.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);

/// The exit code of `status` for a deployment that is not ready.
const NOT_READY: i32 = 3;
const BINARY: &str = "annals-relay";

/// The settings of a relay's start.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    bed: String,
    instance: String,
    directory: String,
    topic_prefix: String,
    claims: String,
    database_url: String,
    environment: Environment,
    variables: Vec<(String, String)>,
}

impl RelaySettings {
    pub(crate) fn new(bed: &Testbed) -> Self {
        Self {
            bed: bed.name().to_owned(),
            instance: "a".to_owned(),
            directory: "a".to_owned(),
            topic_prefix: bed.topic_prefix(),
            claims: bed.claims_topic(),
            database_url: bed.database_url(),
            environment: bed.environment().clone(),
            variables: Vec::new(),
        }
    }

    /// Another instance of the same deployment; the default is `a`.
    #[must_use]
    pub fn instance(mut self, name: &str) -> Self {
        self.instance = name.to_owned();
        self.in_directory(name)
    }

    /// Another path for the relay's log than the one named after the instance: for two relays with
    /// one name.
    #[must_use]
    pub fn in_directory(mut self, name: &str) -> Self {
        self.directory = name.to_owned();
        self
    }

    /// Another claims topic than the test bed's own.
    #[must_use]
    pub fn claims(mut self, topic: &str) -> Self {
        self.claims = topic.to_owned();
        self
    }

    /// Other topics than the test bed's.
    #[must_use]
    pub fn topic_prefix(mut self, prefix: &str) -> Self {
        self.topic_prefix = prefix.to_owned();
        self
    }

    /// Another Kafka than the test bed's.
    #[must_use]
    pub fn kafka(mut self, brokers: &str) -> Self {
        self.environment.kafka = brokers.to_owned();
        self
    }

    /// Another schema registry than the test bed's.
    #[must_use]
    pub fn registry(mut self, url: &str) -> Self {
        self.environment.registry_url = url.to_owned();
        self
    }

    /// Another route to the test bed's database, or another user.
    #[must_use]
    pub fn database(mut self, url: &str) -> Self {
        self.database_url = url.to_owned();
        self
    }

    /// Short back-off, a short time-out for a broker that does not answer, and a log line for each
    /// try.
    #[must_use]
    pub fn impatient(self) -> Self {
        self.variable("ANNALS_RELAY__RELAY__BACKOFF_MS_MAX", "500")
            .variable("ANNALS_RELAY__KAFKA__TRANSACTION_TIMEOUT_MS", "3000")
            .variable("ANNALS_RELAY__LOG__LEVEL", "info,annals_relay::driver::outage=debug")
    }

    /// Sets an environment variable of the relay.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs a subcommand of the relay's binary, as an operator does; returns its output, also that of
    /// `status` for a deployment that is not ready.
    ///
    /// # Errors
    /// Its output, if it fails.
    ///
    /// # Panics
    /// If it cannot be started, or does not end.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let directory = output_directory().join(format!("{}.{}.run", self.bed, self.directory));
        std::fs::create_dir_all(&directory).must("make a directory for the relay");
        let mut command = command(self, &directory);
        let output = command.args(arguments).kill_on_drop(true).output();
        let output = tokio::time::timeout(DEADLINE, output).await;
        let Ok(output) = output else { panic!("{arguments:?} did not end within {DEADLINE:?}") };
        let output = output.must("run the relay's binary");
        std::fs::remove_dir_all(&directory).must("remove the relay's directory");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let is_ok = output.status.success() || output.status.code() == Some(NOT_READY);
        if is_ok { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The exit code and the answer of `status --json`.
    ///
    /// # Panics
    /// If it prints no JSON.
    pub async fn status(&self) -> (i32, serde_json::Value) {
        let directory = output_directory().join(format!("{}.{}.run", self.bed, self.directory));
        std::fs::create_dir_all(&directory).must("make a directory for the relay");
        let mut command = command(self, &directory);
        let output = command.args(["status", "--json"]).kill_on_drop(true).output().await;
        let output = output.must("run the relay's binary");
        std::fs::remove_dir_all(&directory).must("remove the relay's directory");
        let Ok(status) = serde_json::from_slice(&output.stdout) else {
            panic!("status printed no JSON: {}", String::from_utf8_lossy(&output.stderr))
        };
        (output.status.code().unwrap_or(-1), status)
    }

    /// As [`run`](Self::run), with its peak memory in bytes.
    ///
    /// # Errors
    /// In the first part, as of [`run`](Self::run).
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub async fn run_measured(&self, arguments: &[&str]) -> (Result<String, String>, u64) {
        let directory = output_directory().join(format!("{}.{}.run", self.bed, self.instance));
        std::fs::create_dir_all(&directory).must("make a directory for the relay");
        let mut command = command(self, &directory);
        command.args(arguments).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().must("run the relay's binary");
        let status = format!("/proc/{}/status", child.id().must("find the relay's process"));
        let mut bytes_max = 0;
        let mut samples = tokio::time::interval(SAMPLE_INTERVAL);
        let mut ended = pin!(child.wait_with_output());
        let output = loop {
            tokio::select! {
                output = &mut ended => break output.must("run the relay's binary"),
                _ = samples.tick() => bytes_max = bytes_max.max(peak_bytes(&status)),
            }
        };
        std::fs::remove_dir_all(&directory).must("remove the relay's directory");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ok = output.status.success();
        (if ok { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }, bytes_max)
    }

    /// Starts a relay whose log is not read: standard error is a pipe, and the caller's.
    ///
    /// # Panics
    /// If there is no binary, or it cannot be started.
    #[must_use]
    pub fn start_unread(&self) -> Child {
        let directory = output_directory().join(format!("{}.{}", self.bed, self.directory));
        std::fs::create_dir_all(&directory).must("make a directory for the relay");
        let mut command = command(self, &directory);
        command.arg("run").stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().must("start the relay")
    }

    fn configuration(&self) -> String {
        format!(
            "[relay]\ndeployment = \"test\"\ninstance = {:?}\n\n[topics]\nprefix = {:?}\nclaims = {:?}\npartitions = 4\n\n\
             [registry]\nauto_register = true\n\n[http]\nlisten = \"127.0.0.1:0\"\n",
            self.instance, self.topic_prefix, self.claims
        )
    }
}

/// A running `annals-relay`. Ends with the test; a panicking test prints the path of the relay's
/// log.
#[derive(Debug)]
pub struct RelayProcess {
    settings: RelaySettings,
    directory: PathBuf,
    log: ProcessLog,
    /// Lines of the log from before this start.
    start: usize,
    /// Lines of the log before the current page.
    mark: usize,
    child: Child,
}

impl RelayProcess {
    /// Starts a relay, and returns at once.
    ///
    /// # Panics
    /// If there is no binary, or it cannot be started.
    #[must_use]
    pub fn start(settings: &RelaySettings) -> Self {
        let name = format!("{}.{}", settings.bed, settings.directory);
        let directory = output_directory().join(name);
        std::fs::create_dir_all(&directory).must("make a directory for the relay");
        let log = ProcessLog::new(directory.join("relay.log"));
        let child = spawn(settings, &directory, &log);
        Self { settings: settings.clone(), directory, log, start: 0, mark: 0, child }
    }

    /// Kills the relay, as a crash does, and waits until it has ended.
    ///
    /// # Panics
    /// If it had already ended: a test that kills it needs it alive.
    pub async fn kill(&mut self) {
        if let Some(status) = self.child.try_wait().must("look after the relay") {
            panic!("the relay ended by itself, with {status}\n{}", self.log.tail());
        }
        self.child.kill().await.must("kill the relay");
        self.log.push("--- killed ---".to_owned());
    }

    /// Starts it again, after it has ended.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn restart(&mut self) {
        self.start = self.log.len();
        self.mark = self.start;
        self.child = spawn(&self.settings, &self.directory, &self.log);
    }

    /// Asks it to end (SIGTERM) once it handles signals, and waits until it has ended.
    ///
    /// # Panics
    /// If it does not start, or does not end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.log.line(self.start, Wanted::event("started", &[])).await;
        self.signal("-TERM").await;
        self.ended().await
    }

    /// Freezes it (SIGSTOP), as a swapping machine or a moving virtual machine does.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn freeze(&self) {
        self.signal("-STOP").await;
    }

    /// Resumes it after [`freeze`](Self::freeze).
    ///
    /// # Panics
    /// If it does not run.
    pub async fn thaw(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().must("find the relay's process").to_string();
        let signalled = Command::new("kill").args([signal, &pid]).status().await;
        assert!(signalled.must("signal the relay").success(), "could not signal the relay");
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let Ok(ended) = ended else { panic!("the relay did not end\n{}", self.log.tail()) };
        self.log.push("--- ended ---".to_owned());
        ended.must("wait for the relay's end")
    }

    /// Waits until it has written a line with this text since its last start, and returns the line:
    /// for its output to people when it ends. For log entries use [`event`](Self::event).
    ///
    /// # Panics
    /// If it does not write one.
    pub async fn printed(&self, text: &str) -> String {
        self.log.line(self.mark, Wanted::Text(text.to_owned())).await
    }

    /// Waits until it has logged the event with this id on this page, and returns the line.
    ///
    /// # Panics
    /// If it does not log one.
    pub async fn event(&self, id: &str) -> String {
        self.event_with(id, &[]).await
    }

    /// The same, with these fields.
    ///
    /// # Panics
    /// If it does not log one.
    pub async fn event_with(&self, id: &str, fields: &[(&str, &str)]) -> String {
        self.log.line(self.mark, Wanted::event(id, fields)).await
    }

    /// The address of its HTTP server.
    ///
    /// # Panics
    /// If it does not name one.
    pub async fn http(&self) -> SocketAddr {
        http_address(&self.log.line(self.start, Wanted::event("http_listening", &[])).await)
    }

    /// Waits until it publishes these shards, in their order, separated by commas.
    ///
    /// # Panics
    /// If it does not.
    pub async fn publishes(&self, shards: &str) {
        self.event_with("publishing", &[("shards", shards)]).await;
    }

    /// Waits until it has quarantined a stream or a category, and returns the line.
    ///
    /// # Panics
    /// If it does not.
    pub async fn quarantines(&self, name: &str) -> String {
        self.event_with("quarantined", &[("name", name)]).await
    }

    /// Begins a new page of the log: [`event`](Self::event) reads only later lines.
    pub fn turn_page(&mut self) {
        self.mark = self.log.len();
    }

    /// Whether it has logged the event with this id on this page.
    #[must_use]
    pub fn has_event(&self, id: &str) -> bool {
        self.times(id) > 0
    }

    /// Its whole log, over all its starts.
    #[must_use]
    pub fn text(&self) -> String {
        self.log.text()
    }

    /// The number of log events with this id on this page.
    #[must_use]
    pub fn times(&self, id: &str) -> usize {
        self.log.count(self.mark, &Wanted::event(id, &[]))
    }

    /// Waits until it logs the begin of an outage on this page, and returns the line.
    ///
    /// # Panics
    /// If it does not log one.
    pub async fn waits_for(&self, what: &str) -> String {
        self.event_with("outage_began", &[("waiting_for", what)]).await
    }

    /// The same, and until it has failed once more since.
    ///
    /// # Panics
    /// If it does not log both, or was not started as [`impatient`](RelaySettings::impatient).
    pub async fn keeps_waiting_for(&self, what: &str) -> String {
        let said = self.waits_for(what).await;
        self.event_with("outage_continues", &[("waiting_for", what)]).await;
        said
    }

    /// Waits until it logs the end of an outage on this page.
    ///
    /// # Panics
    /// If it does not log it.
    pub async fn has_waited_for(&self, what: &str) {
        self.event_with("outage_ended", &[("waiting_for", what)]).await;
    }

    /// The same, for an outage that is logged exactly once.
    ///
    /// # Panics
    /// If it does not log it, or logs more than one line at the begin and one at the end.
    pub async fn goes_on_after(&self, what: &str) {
        self.has_waited_for(what).await;
        self.goes_on().await;
    }

    /// Waits until an outage of any kind is over that is logged exactly once.
    ///
    /// # Panics
    /// As [`goes_on_after`](Self::goes_on_after).
    pub async fn goes_on(&self) {
        self.event("outage_ended").await;
        let counts = (self.times("outage_began"), self.times("outage_ended"));
        assert_eq!(counts, (1, 1), "one line for each change\n{}", self.log.tail());
    }

    /// Whether it runs.
    ///
    /// # Panics
    /// If the system gives no answer.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().must("look after the relay").is_none()
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        if is_kept() {
            eprintln!("the relay's {}", self.log.tail());
        } else if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("could not remove {}: {error}", self.directory.display());
        }
    }
}

/// The address of a relay's HTTP server, from the line of the log that names it.
///
/// # Panics
/// If it does not.
#[must_use]
pub fn http_address(line: &str) -> SocketAddr {
    let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
    address.and_then(|address| address.parse().ok()).must("find the address in the log")
}

/// The peak memory of a process, by its status file; 0 once it has ended.
fn peak_bytes(status: &str) -> u64 {
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    kilobytes.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn spawn(settings: &RelaySettings, directory: &Path, log: &ProcessLog) -> Child {
    let mut child = command(settings, directory)
        .arg("run")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .must("start the relay");
    log.capture(child.stdout.take().must("read the relay's output"));
    log.capture(child.stderr.take().must("read the relay's log"));
    child
}

/// The binary with the settings, without a subcommand.
fn command(settings: &RelaySettings, directory: &Path) -> Command {
    let configuration = directory.join("relay.toml");
    std::fs::write(&configuration, settings.configuration()).must("write relay.toml");
    let mut command = Command::new(binary());
    command
        .arg("--config")
        .arg(configuration)
        .env("ANNALS_DATABASE_URL", &settings.database_url)
        .env("ANNALS_KAFKA", &settings.environment.kafka)
        .env("ANNALS_REGISTRY_URL", &settings.environment.registry_url)
        .envs(settings.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    command
}

/// The directory of this build's test output: `target/tmp`.
pub(crate) fn output_directory() -> PathBuf {
    let directory = target_directory().parent().must("find the target directory").join("tmp");
    std::fs::create_dir_all(&directory).must("make the tests' directory");
    directory
}

/// `target/debug`, from `target/debug/deps/promises-0123`.
fn target_directory() -> PathBuf {
    let this = std::env::current_exe().must("find this program");
    let directory = this.parent().and_then(Path::parent);
    directory.must("find the target directory").to_owned()
}

fn binary() -> PathBuf {
    let binary = target_directory().join(BINARY);
    assert!(
        binary.exists(),
        "there is no {}: run `cargo build -p {BINARY}` first",
        binary.display()
    );
    binary
}
