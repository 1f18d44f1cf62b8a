//! The settings of a relay, and one run of its binary.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::environment::Environment;
use crate::follow::DEADLINE;
use crate::must::Must;
use crate::testbed::{BedEnd, Testbed};

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
    removed_variables: Vec<String>,
    program: Option<PathBuf>,
    end: BedEnd,
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
            removed_variables: Vec::new(),
            program: None,
            end: bed.end(),
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

    /// Another version of the program than that of this build.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
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

    /// With transactions of a minute, for a test that asserts that the relay waits for nothing: a
    /// busy machine can need seconds for one.
    #[must_use]
    pub fn long_transactions(self) -> Self {
        self.variable("ANNALS_RELAY__KAFKA__TRANSACTION_TIMEOUT_MS", "60000")
    }

    /// Sets an environment variable of the relay.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes an environment variable that the relay would inherit from the test.
    #[must_use]
    pub fn without_variable(mut self, name: &str) -> Self {
        self.removed_variables.push(name.to_owned());
        self
    }

    /// Runs a subcommand of the relay's binary, as an operator does; returns its output, also that
    /// of `status` for a deployment that is not ready.
    ///
    /// # Errors
    /// Its output, if it fails.
    ///
    /// # Panics
    /// If it cannot be started, or does not end.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = tokio::time::timeout(DEADLINE, self.run_measured(arguments)).await;
        let Ok((output, _)) = output else {
            panic!("{arguments:?} did not end within {DEADLINE:?}")
        };
        output
    }

    /// Runs a subcommand that must succeed; returns its output.
    ///
    /// # Panics
    /// With its output, if it fails.
    pub async fn must_run(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        output.unwrap_or_else(|said| panic!("annals-relay {}: {said}", arguments.join(" ")))
    }

    /// The same as [`run`](Self::run) without a time limit, and its peak memory in bytes.
    ///
    /// # Errors
    /// In the first part, as of [`run`](Self::run).
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn run_measured(&self, arguments: &[&str]) -> (Result<String, String>, u64) {
        let directory = output_directory().join(format!("{}.{}.run", self.bed, self.directory));
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
        let ok = output.status.success() || output.status.code() == Some(NOT_READY);
        (if ok { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }, bytes_max)
    }

    /// Runs a subcommand; returns its exit code and its output, with its errors if it fails.
    ///
    /// # Panics
    /// If it cannot be started, or does not end.
    pub async fn run_for_code(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.ended(arguments, |_as_it_is| {}).await;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        let code = output.status.code().unwrap_or(-1);
        if code != 0 && code != NOT_READY {
            said.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        (code, said)
    }

    /// Runs a subcommand, whose command is changed before, to its end.
    async fn ended(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Output {
        let directory = output_directory().join(format!("{}.{}.run", self.bed, self.directory));
        std::fs::create_dir_all(&directory).must("make a directory for the relay");
        let mut command = command(self, &directory);
        command.args(arguments);
        change(&mut command);
        let output = tokio::time::timeout(DEADLINE, command.kill_on_drop(true).output()).await;
        let output = output.must("end within the deadline").must("run the relay's binary");
        std::fs::remove_dir_all(&directory).must("remove the relay's directory");
        output
    }

    /// Runs a subcommand on a terminal; returns its exit code and all that the terminal gets.
    ///
    /// # Panics
    /// If it cannot be started, or does not end.
    pub async fn run_on_terminal(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.ended(arguments, on_terminal).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap_or(-1), said)
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

    /// Starts a relay whose log is not read: standard error is a pipe, and the caller's.
    ///
    /// # Panics
    /// If there is no binary, or it cannot be started.
    #[must_use]
    pub fn start_unread(&self) -> Child {
        let directory = output_directory().join(self.directory_name());
        std::fs::create_dir_all(&directory).must("make a directory for the relay");
        let mut command = command(self, &directory);
        command.arg("run").stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().must("start the relay")
    }

    /// Starts a subcommand, whose output is dropped; it is killed with its handle.
    ///
    /// # Panics
    /// If there is no binary, or it cannot be started.
    #[must_use]
    pub fn start_command(&self, arguments: &[&str]) -> Child {
        let directory = output_directory().join(self.directory_name());
        std::fs::create_dir_all(&directory).must("make a directory for the relay");
        let mut command = command(self, &directory);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command.spawn().must("start a subcommand")
    }

    /// The name of the directory of a relay's process.
    pub(crate) fn directory_name(&self) -> String {
        format!("{}.{}", self.bed, self.directory)
    }

    pub(crate) fn end(&self) -> BedEnd {
        self.end
    }

    fn configuration(&self) -> String {
        format!(
            "[relay]\ndeployment = \"test\"\ninstance = {:?}\n\n[topics]\nprefix = {:?}\nclaims = {:?}\npartitions = 4\n\n\
             [registry]\nauto_register = true\n\n[http]\nlisten = \"127.0.0.1:0\"\n",
            self.instance, self.topic_prefix, self.claims
        )
    }
}

/// The peak memory of a process, by its status file; 0 once it has ended.
pub(crate) fn peak_bytes(status: &str) -> u64 {
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    kilobytes.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The binary with the settings, without a subcommand.
pub(crate) fn command(settings: &RelaySettings, directory: &Path) -> Command {
    let configuration = directory.join("relay.toml");
    std::fs::write(&configuration, settings.configuration()).must("write relay.toml");
    let mut command = Command::new(settings.program.clone().unwrap_or_else(binary));
    command
        .arg("--config")
        .arg(configuration)
        .env("ANNALS_DATABASE_URL", &settings.database_url)
        .env("ANNALS_KAFKA", &settings.environment.kafka)
        .env("ANNALS_REGISTRY_URL", &settings.environment.registry_url)
        .envs(settings.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    for name in &settings.removed_variables {
        command.env_remove(name);
    }
    command
}

/// The directory of this build's test output: `target/tmp`.
pub(crate) fn output_directory() -> PathBuf {
    let directory = target_directory().parent().must("find the target directory").join("tmp");
    std::fs::create_dir_all(&directory).must("make the tests' directory");
    directory
}

/// Runs the command on a terminal.
fn on_terminal(command: &mut Command) {
    const TERMINAL: &str = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let own = command.as_std();
    let mut terminal = Command::new("python3");
    terminal.args(["-c", TERMINAL]).arg(own.get_program()).args(own.get_args());
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    terminal.stdin(Stdio::null());
    *command = terminal;
}

/// `target/debug`, from `target/debug/deps/promises-0123` or `target/debug/examples/drill`.
fn target_directory() -> PathBuf {
    let this = std::env::current_exe().must("find this program");
    let is_own = |of: &&Path| !of.ends_with("deps") && !of.ends_with("examples");
    let directory = this.ancestors().skip(1).find(is_own);
    directory.must("find the target directory").to_owned()
}

/// The relay of this build, or the one that ANNALS_TEST_RELAY names.
fn binary() -> PathBuf {
    let named = std::env::var_os("ANNALS_TEST_RELAY").map(PathBuf::from);
    let binary = named.unwrap_or_else(|| target_directory().join(BINARY));
    assert!(
        binary.exists(),
        "there is no {}: run `cargo build -p {BINARY}` first",
        binary.display()
    );
    binary
}
