//! The identity of a process, and whether another one has ended.
//!
//! The session of a killed relay lives until its lease expires. A relay that is started in its
//! place need not wait for that if it can see that the old process has ended: on the same machine,
//! in the same process namespace.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A process: identified by its id, and found by its location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    id: Uuid,
    /// The name of its machine.
    host: String,
    pid: u32,
    /// None if the system does not have `/proc`.
    location: Option<ProcessLocation>,
}

/// The kernel, namespace and user of a process, and its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ProcessLocation {
    /// The id of the kernel's run: a new one after each boot.
    boot_id: String,
    /// The namespace of process ids. Its number is reused only after its last process has ended.
    pid_namespace: String,
    /// The user: processes of other users may be hidden.
    user: String,
    /// The start in ticks since the boot: a process id is reused, but not with the same start.
    started: u64,
}

impl Process {
    /// This process.
    pub(crate) fn this(host: &str) -> Self {
        let pid = std::process::id();
        Self {
            id: Uuid::now_v7(),
            host: host.to_owned(),
            pid,
            location: ProcessLocation::of_this(),
        }
    }

    /// Whether it has ended for certain; false if this process cannot tell.
    pub(crate) fn has_ended(&self) -> bool {
        let (Some(its), Some(here)) = (&self.location, ProcessLocation::of_this()) else {
            return false;
        };
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

impl ProcessLocation {
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

/// The start of a process, by proc(5); none if it has ended, also as a zombie.
fn start_of(pid: &str) -> Option<u64> {
    const STATE: usize = 0;
    const START: usize = 19;
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    // The program's name, which can have any character, is in brackets before the other fields.
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
        assert!(this.location.is_some() && !this.has_ended());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_of(&child.id().to_string()).unwrap();
        let location =
            this.location.clone().map(|location| ProcessLocation { started, ..location });
        let other = Process { pid: child.id(), location, ..this };
        assert!(!other.has_ended());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.has_ended());
    }

    #[test]
    fn another_process_with_the_same_number_is_not_the_one_that_ended() {
        let this = Process::this("here");
        let location = this
            .location
            .clone()
            .map(|location| ProcessLocation { started: location.started + 1, ..location });
        assert!(Process { location, ..this }.has_ended());
    }

    #[test]
    fn of_another_machine_or_namespace_or_user_nothing_is_known() {
        let this = Process { pid: u32::MAX, ..Process::this("here") };
        let location = this.location.clone().unwrap();
        let elsewhere = "elsewhere".to_owned();
        for location in [
            ProcessLocation { boot_id: elsewhere.clone(), ..location.clone() },
            ProcessLocation { pid_namespace: elsewhere.clone(), ..location.clone() },
            ProcessLocation { user: elsewhere, ..location },
        ] {
            assert!(!Process { location: Some(location), ..this.clone() }.has_ended());
        }
        assert!(!Process { location: None, ..this }.has_ended());
    }
}
