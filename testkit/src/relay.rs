//! The real relay, as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::environment::is_kept;
use crate::follow::DEADLINE;
use crate::http::http_get;
use crate::log::{ProcessLog, Wanted};
use crate::must::Must;
use crate::relay_settings::{RelaySettings, command, output_directory, peak_bytes};
use crate::testbed::BedEnd;

/// All shards of a deployment with the default number of them, as
/// [`publishes`](RelayProcess::publishes) takes them.
pub const ALL_SHARDS: &str = "0,1,2,3,4,5,6,7";

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
    /// The tasks that read its output to the end.
    captures: Vec<JoinHandle<()>>,
}

impl RelayProcess {
    /// Starts a relay, and returns at once.
    ///
    /// # Panics
    /// If there is no binary, or it cannot be started.
    #[must_use]
    pub fn start(settings: &RelaySettings) -> Self {
        let directory = output_directory().join(settings.directory_name());
        std::fs::create_dir_all(&directory).must("make a directory for the relay");
        let log = ProcessLog::new(directory.join("relay.log"));
        let (child, captures) = spawn(settings, &directory, &log);
        Self { settings: settings.clone(), directory, log, start: 0, mark: 0, child, captures }
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
        self.read_to_end().await;
        self.log.push("--- killed ---".to_owned());
    }

    /// Waits until the log has all that an ended process has written: a line that came later would
    /// be taken for one of the next start.
    async fn read_to_end(&mut self) {
        for capture in self.captures.drain(..) {
            let read = tokio::time::timeout(DEADLINE, capture).await;
            read.must("read the relay's log to its end").must("read the relay's log");
        }
    }

    /// Starts it again, after it has ended.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn restart(&mut self) {
        self.start = self.log.len();
        self.mark = self.start;
        (self.child, self.captures) = spawn(&self.settings, &self.directory, &self.log);
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

    /// Asks it to end, and again while it finishes its work; waits until it has ended.
    ///
    /// # Panics
    /// If it has ended before the second signal, or does not end.
    pub async fn terminate_twice(&mut self) -> ExitStatus {
        self.log.line(self.start, Wanted::event("started", &[])).await;
        self.signal("-TERM").await;
        self.log.line(self.start, Wanted::event("stopping", &[])).await;
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

    /// Makes it read its configuration again (SIGHUP), once it handles signals.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn reload(&self) {
        self.log.line(self.start, Wanted::event("started", &[])).await;
        self.signal("-HUP").await;
    }

    /// The file with its configuration.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("relay.toml")
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().must("find the relay's process").to_string();
        let signalled = Command::new("kill").args([signal, &pid]).status().await;
        assert!(signalled.must("signal the relay").success(), "could not signal the relay");
    }

    /// Waits until it has ended by itself, possibly after several time limits of its own.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(DEADLINE * 3, self.child.wait()).await;
        let Ok(ended) = ended else { panic!("the relay did not end\n{}", self.log.tail()) };
        self.read_to_end().await;
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

    /// The value of one of its metrics, named as its line in `/metrics`.
    ///
    /// # Panics
    /// If it does not serve it.
    pub async fn metric(&self, series: &str) -> f64 {
        let served = http_get(self.http().await, "/metrics", "").await;
        served.metric(series).must("find a metric")
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

    /// The same, for this cause, such as `topic`.
    ///
    /// # Panics
    /// If it does not, or for another cause.
    pub async fn quarantines_for(&self, cause: &str, name: &str) -> String {
        self.event_with("quarantined", &[("name", name), ("cause", cause)]).await
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

    /// The file with its log.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        self.log.path()
    }

    /// Its peak memory; 0 once it has ended.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.child.id().map_or(0, |pid| peak_bytes(&format!("/proc/{pid}/status")))
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
        // On a busy machine it may have begun on an earlier page of the log.
        let (began, ended) = (self.times("outage_began"), self.times("outage_ended"));
        assert!(began <= 1 && ended == 1, "one line for each change\n{}", self.log.tail());
    }

    /// Whether it runs.
    ///
    /// # Panics
    /// If the system gives no answer.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().must("look after the relay").is_none()
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

impl Drop for RelayProcess {
    fn drop(&mut self) {
        if self.settings.end() == BedEnd::Kept {
            return;
        }
        if is_kept() {
            eprintln!("the relay's {}", self.log.tail());
        } else if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("could not remove {}: {error}", self.directory.display());
        }
    }
}

fn spawn(
    settings: &RelaySettings,
    directory: &Path,
    log: &ProcessLog,
) -> (Child, Vec<JoinHandle<()>>) {
    let mut child = command(settings, directory)
        .arg("run")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .must("start the relay");
    let output = log.capture(child.stdout.take().must("read the relay's output"));
    let logged = log.capture(child.stderr.take().must("read the relay's log"));
    (child, vec![output, logged])
}
