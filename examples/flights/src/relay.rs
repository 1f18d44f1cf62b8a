//! The relay, as a child process that can be killed and started again.

use std::fs::{self, OpenOptions};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use crate::run::Run;

const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// A running relay. Killed when dropped, so that no error of the demo leaves it behind.
pub(crate) struct Relay {
    program: PathBuf,
    run: Run,
    child: Child,
}

/// The relay of this build: beside this program.
pub(crate) fn beside_this_program() -> Result<PathBuf> {
    Ok(std::env::current_exe().context("find this program")?.with_file_name("annals-relay"))
}

impl Relay {
    /// Starts the relay of a run; its output goes to the run's log of the relay.
    pub(crate) fn start(program: &Path, run: &Run) -> Result<Self> {
        let child = spawn(program, run)?;
        Ok(Self { program: program.to_owned(), run: run.clone(), child })
    }

    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.program, &self.run)?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the relay has ended")
    }

    /// SIGKILL: the process ends in the middle of its work.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(self.ended(status));
        }
        self.child.kill().await.context("kill the relay")
    }

    /// SIGTERM: it finishes what is in flight, and must end well.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = self.pid()?.to_string();
        let signalled = Command::new("kill").args(["-TERM", &pid]).status().await;
        signalled.context("run `kill` to end the relay")?;
        let ended = tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await;
        let status = ended.with_context(|| {
            format!(
                "the relay (pid {pid}) does not end after SIGTERM; see {}",
                self.run.relay_log().display()
            )
        })??;
        if status.success() { Ok(()) } else { bail!(self.ended(status)) }
    }

    /// What comes of `work`, or an error as soon as the relay ends by itself.
    pub(crate) async fn while_it_runs<T>(
        &mut self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            status = self.child.wait() => bail!(self.ended(status?)),
        }
    }

    /// Bytes of memory that it has now, and had at most; `None` where the system does not say.
    pub(crate) fn memory(&self) -> Option<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: u64 = line.trim_end_matches("kB").trim().parse().ok()?;
            Some(kibibytes * 1024)
        };
        Some((bytes("VmRSS:")?, bytes("VmHWM:")?))
    }

    fn ended(&self, status: ExitStatus) -> String {
        let log = self.run.relay_log();
        let lines = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = lines.lines().collect();
        let end = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n  ");
        format!(
            "the relay ended by itself, with {status}. The end of its log, {}:\n  {end}",
            log.display()
        )
    }
}

fn spawn(program: &Path, run: &Run) -> Result<Child> {
    let log = run.relay_log();
    let file = OpenOptions::new().create(true).append(true).open(&log);
    let file = file.with_context(|| format!("open {}", log.display()))?;
    let mut command = Command::new(program);
    command
        .args(["run", "--config"])
        .arg(run.relay_config())
        .env("ANNALS_DATABASE_URL", &run.database_url)
        .env("ANNALS_KAFKA", &run.kafka)
        .env("ANNALS_REGISTRY_URL", &run.registry_url)
        // Its log is a file.
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        // A group of its own: Ctrl-C reaches the demo alone, which then ends the relay in good
        // order.
        .process_group(0)
        .kill_on_drop(true);
    let child = command.spawn().with_context(|| {
        format!(
            "start the relay {}: build it with `cargo build --release -p annals-relay`, or name another with --relay",
            program.display()
        )
    })?;
    if let Some(pid) = child.id() {
        fs::write(run.relay_pid(), pid.to_string())?;
    }
    Ok(child)
}
