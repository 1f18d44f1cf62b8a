//! What Kafka's client tells besides answers, from threads of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::tails::{self, Fetched};

/// A complaint explains failures for so long.
const COMPLAINT_AGE_MAX: Duration = Duration::from_secs(60);

/// What one client has told.
#[derive(Default)]
pub(crate) struct Heard {
    times: AtomicU64,
    complaint: Mutex<Option<(Instant, String)>>,
    statistics: Mutex<Vec<u8>>,
}

impl Heard {
    /// How many times something was told.
    pub(crate) fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }

    /// Listens until nothing more is told. `listen` takes one thing.
    pub(crate) fn all(&self, listen: impl Fn()) {
        loop {
            let before = self.times();
            listen();
            if self.times() == before {
                return;
            }
        }
    }

    /// Something was told that nobody needs to know.
    pub(crate) fn anything(&self) {
        self.times.fetch_add(1, Ordering::Relaxed);
    }

    /// There is trouble with a broker.
    pub(crate) fn complaint(&self, text: &str) {
        self.anything();
        *locked(&self.complaint) = Some((Instant::now(), text.to_owned()));
    }

    /// The client's statistics, as JSON. They are kept as they are: of many partitions they come faster than they can be read.
    pub(crate) fn statistics(&self, json: &[u8]) {
        self.anything();
        let mut statistics = locked(&self.statistics);
        statistics.clear();
        statistics.extend_from_slice(json);
    }

    /// What is fetched, as it was last told.
    pub(crate) fn fetched(&self) -> Fetched {
        let statistics = locked(&self.statistics).clone();
        tails::fetched(&statistics).unwrap_or_default()
    }

    /// A reason, with the last complaint if it can have to do with it.
    pub(crate) fn explain(&self, reason: String) -> String {
        match &*locked(&self.complaint) {
            Some((at, complaint)) if at.elapsed() < COMPLAINT_AGE_MAX => {
                format!("{reason}; last heard: {complaint}")
            }
            Some(_) | None => reason,
        }
    }
}

/// A poisoned lock means that a callback panicked; what it guards is replaced whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ends_when_nothing_more_is_told() {
        let heard = Heard::default();
        heard.all(|| {
            if heard.times() < 3 {
                heard.anything();
            }
        });
        assert_eq!(heard.times(), 3);
    }

    #[test]
    fn a_failure_is_explained_by_what_was_last_heard() {
        let heard = Heard::default();
        assert_eq!(heard.explain("timed out".to_owned()), "timed out");
        heard.complaint("connection refused");
        assert_eq!(
            heard.explain("timed out".to_owned()),
            "timed out; last heard: connection refused"
        );
        assert_eq!(heard.times(), 1);
    }
}
