//! Relays that outlived their demo: one that was killed with SIGKILL could not end its own.

use std::fs;
use std::path::Path;

use anyhow::Result;
use tokio::process::Command;

use crate::run::{self, Run};

/// Ends them by SIGTERM. Returns how many there were; none where the system has no /proc.
pub(crate) async fn end() -> Result<usize> {
    let mut ended = 0;
    for run in run::all()? {
        let Some(pid) = orphan(&run) else { continue };
        let signalled = Command::new("kill").args(["-TERM", &pid]).status().await?;
        tracing::info!(pid, "told the relay of a demo that is gone to end");
        ended += usize::from(signalled.success());
    }
    Ok(ended)
}

/// The relay of a run, if it is alive and its demo is not.
fn orphan(run: &Run) -> Option<String> {
    let pid = fs::read_to_string(run.relay_pid()).ok()?;
    let config = run.relay_config();
    // The pid may belong to another program by now: the command line tells.
    let is_relay = command_line(&pid)?.iter().any(|argument| Path::new(argument) == config);
    let is_alone = !command_line(&parent(&pid)?)?.first()?.ends_with("annals-flights");
    (is_relay && is_alone).then_some(pid)
}

fn command_line(pid: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    Some(text.split('\0').map(str::to_owned).collect())
}

fn parent(pid: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some(parent.trim().to_owned())
}
