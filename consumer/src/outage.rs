//! Back-off while an outside component is unavailable, with one log line for each change.

use std::error::Error;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// Tracks whether one outside component is available, and logs when that changes.
#[derive(Debug)]
pub(crate) struct Outage {
    what: String,
    since: Option<Instant>,
    /// Whether a refusal was logged since then.
    is_refused: bool,
    /// Boxed: it would be a part of the future of every caller.
    delays: Box<ExponentialBackoff>,
}

impl Outage {
    /// `what` completes the log line "waiting for ...".
    pub(crate) fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), since: None, is_refused: false, delays: delays() }
    }

    /// Records a failed attempt and returns the delay before the next one.
    pub(crate) fn record_failure(&mut self, cause: &(dyn Error + 'static)) -> Duration {
        if self.since.is_none() {
            self.log(cause);
        }
        self.delays.next().unwrap_or(DELAY_MAX)
    }

    /// Records an attempt that was refused, which time alone does not change: it is logged although
    /// the component was unavailable before.
    pub(crate) fn record_refusal(&mut self, cause: &(dyn Error + 'static)) -> Duration {
        if !std::mem::replace(&mut self.is_refused, true) {
            self.log(cause);
        }
        self.delays.next().unwrap_or(DELAY_MAX)
    }

    fn log(&mut self, cause: &(dyn Error + 'static)) {
        self.since.get_or_insert_with(Instant::now);
        tracing::warn!(cause = %causes(cause), "waiting for {}", self.what);
    }

    /// Records a successful attempt.
    pub(crate) fn record_success(&mut self) {
        if let Some(since) = self.since.take() {
            let waited_s = since.elapsed().as_secs();
            tracing::info!(waited_s, "going on: {} answers again", self.what);
            self.is_refused = false;
            self.delays = delays();
        }
    }

    /// Whether the last attempt failed.
    pub(crate) fn is_ongoing(&self) -> bool {
        self.since.is_some()
    }
}

/// Delays between half and the whole of a length that doubles from [`DELAY_MIN`] to [`DELAY_MAX`],
/// so that many consumers do not retry at the same time.
fn delays() -> Box<ExponentialBackoff> {
    // The jitter adds up to once the delay.
    let halves = ExponentialBuilder::new().with_min_delay(DELAY_MIN / 2);
    Box::new(halves.with_max_delay(DELAY_MAX / 2).without_max_times().with_jitter().build())
}

/// An error and its causes, in one line.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_grows_to_its_bound_and_starts_again_after_the_outage() {
        let mut outage = Outage::of("a server");
        let cause = std::io::Error::other("refused");
        let first = outage.record_failure(&cause);
        assert!(first >= DELAY_MIN / 2 && first <= DELAY_MIN);
        let last = (0..20).map(|_| outage.record_failure(&cause)).last().unwrap();
        assert!(last >= DELAY_MAX / 2 && last <= DELAY_MAX);
        assert!(outage.is_ongoing());
        outage.record_success();
        assert!(!outage.is_ongoing());
        assert!(outage.record_failure(&cause) <= DELAY_MIN);
    }
}
