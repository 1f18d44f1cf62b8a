//! The resource use of a process, as Linux reports it.

use anyhow::Context;
use serde::Serialize;

use crate::machine::line;

/// Linux reports processor times in this unit, independently of the kernel's own.
const TICKS_PER_SECOND: f64 = 100.0;

/// The resource use of a process since its start.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Used {
    /// Processor time.
    pub(crate) cpu_seconds: f64,
    /// The peak memory.
    pub(crate) memory_peak_mib: f64,
}

impl Used {
    /// Reads that of a process.
    pub(crate) fn by(pid: u32) -> anyhow::Result<Self> {
        let memory = line(&format!("/proc/{pid}/status"), "VmHWM");
        let memory = memory.with_context(|| format!("read the memory of process {pid}"))?;
        let kib: u32 = memory.trim_end_matches(" kB").trim().parse()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, in parentheses, the first field is the third; user and system time are
        // 14 and 15.
        let fields =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        let ticks = fields.map(str::parse::<u32>).sum::<Result<u32, _>>()?;
        Ok(Self {
            cpu_seconds: f64::from(ticks) / TICKS_PER_SECOND,
            memory_peak_mib: f64::from(kib) / 1024.0,
        })
    }

    /// Processor time since an earlier moment.
    pub(crate) fn cpu_seconds_since(self, earlier: Self) -> f64 {
        self.cpu_seconds - earlier.cpu_seconds
    }
}

/// Sends a process a signal, by the name that `kill` knows.
pub(crate) fn signal(pid: u32, signal: &str) -> anyhow::Result<()> {
    let status = std::process::Command::new("kill").args([signal, &pid.to_string()]).status()?;
    anyhow::ensure!(status.success(), "could not signal process {pid}");
    Ok(())
}
