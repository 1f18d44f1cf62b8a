//! The outage of a registry: recorded ids are used without it, and pages ask for no new ones.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::report::failure::Failure;
use crate::report::threads::locked;

/// The time without checks of recorded ids after one that failed.
const REST: Duration = Duration::from_secs(10);
/// How long a page asks for no id after a request that failed.
const UNAVAILABLE_MAX: Duration = Duration::from_secs(30);

/// The last failure of a registry that has not answered since.
#[derive(Default)]
pub(super) struct RegistryOutage(Mutex<Option<LastFailure>>);

struct LastFailure {
    at: Instant,
    reason: String,
}

impl RegistryOutage {
    /// Why the registry is unavailable, if it is.
    pub(super) fn reason(&self) -> Option<String> {
        let last = locked(&self.0);
        let last = last.as_ref().filter(|last| last.at.elapsed() < UNAVAILABLE_MAX)?;
        Some(last.reason.clone())
    }

    /// Whether it is too early to check a recorded id again.
    pub(super) fn is_recent(&self) -> bool {
        locked(&self.0).as_ref().is_some_and(|last| last.at.elapsed() < REST)
    }

    /// A request has failed.
    pub(super) fn failed(&self, failure: &Failure) {
        let last = LastFailure { at: Instant::now(), reason: failure.in_full() };
        if locked(&self.0).replace(last).is_none() {
            tracing::warn!(
                event = "registry_unavailable",
                error = failure.in_full(),
                "the schema registry is unavailable: publishing with recorded schema ids"
            );
        }
    }

    /// The registry has answered.
    pub(super) fn answered(&self) {
        if locked(&self.0).take().is_some() {
            tracing::info!(event = "registry_available", "the schema registry is available again");
        }
    }
}
