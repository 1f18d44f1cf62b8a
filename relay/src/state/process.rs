//! Which process this is, and whether another one is gone.
//!
//! A relay that was killed leaves its session behind until its lease ends. Whoever is started in its place need not wait
//! for that where it can see that the old process is gone: on the same machine, in the same process namespace.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A process: told apart from every other one by its id, and found by its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    id: Uuid,
    /// The machine's name, for people.
    host: String,
    pid: u32,
    /// None where the system does not tell.
    home: Option<Home>,
}

/// Where a process runs, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Home {
    /// Of the running kernel: another one after each boot.
    boot_id: String,
    /// Of the process ids. Its number is given out again only once no process is left in it.
    pid_namespace: String,
    /// Processes of other users may be hidden.
    user: String,
    /// In ticks since the boot: a process id is given out again, but not with the same start.
    started: u64,
}

impl Process {
    /// This one.
    pub(crate) fn this(host: &str) -> Self {
        let pid = std::process::id();
        Self { id: Uuid::now_v7(), host: host.to_owned(), pid, home: Home::of_this() }
    }

    /// Whether it has ended for certain; false where this process cannot know.
    pub(crate) fn has_ended(&self) -> bool {
        let (Some(its), Some(here)) = (&self.home, Home::of_this()) else { return false };
        let is_here = its.boot_id == here.boot_id
            && its.pid_namespace == here.pid_namespace
            && its.user == here.user;
        is_here && start_of(&self.pid.to_string()) != Some(its.started)
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

impl Home {
    fn of_this() -> Option<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let pid_namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        Some(Self {
            boot_id: boot_id.trim().to_owned(),
            pid_namespace: pid_namespace.to_string_lossy().into_owned(),
            user: user.split_whitespace().next()?.to_owned(),
            started: start_of("self")?,
        })
    }
}

/// When a process began, by proc(5); none if it has ended, also if nobody has asked yet how.
fn start_of(pid: &str) -> Option<u64> {
    const STATE: usize = 0;
    const START: usize = 19;
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    // The program's name, which can be anything, stands in brackets before the rest.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let is_over = matches!(fields.get(STATE), Some(&("Z" | "X")));
    if is_over { None } else { fields.get(START)?.parse().ok() }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_not_ended_and_one_that_was_waited_for_has() {
        let this = Process::this("here");
        assert!(this.home.is_some() && !this.has_ended());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_of(&child.id().to_string()).unwrap();
        let home = this.home.clone().map(|home| Home { started, ..home });
        let other = Process { pid: child.id(), home, ..this };
        assert!(!other.has_ended());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.has_ended());
    }

    #[test]
    fn another_process_with_the_same_number_is_not_the_one_that_ended() {
        let this = Process::this("here");
        let home = this.home.clone().map(|home| Home { started: home.started + 1, ..home });
        assert!(Process { home, ..this }.has_ended());
    }

    #[test]
    fn of_another_machine_or_namespace_or_user_nothing_is_known() {
        let this = Process { pid: u32::MAX, ..Process::this("here") };
        let home = this.home.clone().unwrap();
        let elsewhere = "elsewhere".to_owned();
        for home in [
            Home { boot_id: elsewhere.clone(), ..home.clone() },
            Home { pid_namespace: elsewhere.clone(), ..home.clone() },
            Home { user: elsewhere, ..home },
        ] {
            assert!(!Process { home: Some(home), ..this.clone() }.has_ended());
        }
        assert!(!Process { home: None, ..this }.has_ended());
    }
}
