//! Outages: components that the relay waits for, with growing pauses, one log entry at the
//! beginning and one at the end.

use std::sync::Arc;
use std::time::Duration;

use annals_relay_machine::FailureClass;

use crate::config;
use crate::driver::backoff::Backoff;
use crate::report::failure::Failure;
use crate::report::{Policy, Recovered};
use crate::telemetry::{Moment, Vitals, Waiting};

/// The present outage, if there is one.
pub(crate) struct Outage {
    backoff: Backoff,
    ongoing: Option<Ongoing>,
    vitals: Arc<Vitals>,
}

struct Ongoing {
    waiting_for: String,
    since: Moment,
    recovered_by: Recovered,
}

impl Outage {
    pub(crate) fn new(relay: &config::Relay, vitals: &Arc<Vitals>) -> Self {
        let backoff = Backoff::new(relay.backoff_min, relay.backoff_max);
        Self { backoff, ongoing: None, vitals: Arc::clone(vitals) }
    }

    /// Whether there is an outage.
    pub(crate) fn is_ongoing(&self) -> bool {
        self.ongoing.is_some()
    }

    /// Whether an outage has lasted that long.
    pub(crate) fn lasts(&self, time: Duration) -> bool {
        self.ongoing.as_ref().is_some_and(|ongoing| ongoing.since.elapsed() >= time)
    }

    /// Begins an outage, or continues it with this failure.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        let Policy { recovered_by, .. } = failure.policy();
        self.failed_until(failure, recovered_by);
    }

    /// The same for a failure to send or to commit. Making producers again does not end that
    /// outage: it succeeds also while records are refused.
    pub(crate) fn publishing_failed(&mut self, failure: &Failure) {
        match failure.class() {
            FailureClass::Unavailable | FailureClass::UnknownOutcome => {
                self.failed_until(failure, Recovered::Published);
            }
            FailureClass::Resync
            | FailureClass::Fenced
            | FailureClass::DivergedHistory
            | FailureClass::Fatal => self.failed(failure),
        }
    }

    /// The same for a failure to read. Another answer of the database does not end that outage: it
    /// answers also while a right is missing.
    pub(crate) fn reading_failed(&mut self, failure: &Failure) {
        let Policy { class, recovered_by, .. } = failure.policy();
        if recovered_by == Recovered::Database && class == FailureClass::Unavailable {
            self.failed_until(failure, Recovered::OutboxRead);
        } else {
            self.failed(failure);
        }
    }

    fn failed_until(&mut self, failure: &Failure, recovered_by: Recovered) {
        let Policy { waiting_for, .. } = failure.policy();
        let error = failure.in_full();
        let before = self.ongoing.take();
        let is_same = before.as_ref().is_some_and(|before| before.waiting_for == waiting_for);
        let since = before.as_ref().map_or_else(Moment::now, |before| before.since);
        let waiting = Waiting { waiting_for: waiting_for.clone(), error: error.clone(), since };
        self.vitals.wait(Some(waiting));
        if is_same {
            tracing::debug!(event = "outage_continues", waiting_for, error, "still waiting");
        } else {
            tracing::warn!(event = "outage_began", waiting_for, error, "waiting for {waiting_for}");
        }
        // An outage that began with a failure to publish or to read ends with that success.
        let recovered_by = match &before {
            Some(Ongoing {
                recovered_by: before @ (Recovered::Published | Recovered::OutboxRead),
                ..
            }) if is_same => *before,
            Some(_) | None => recovered_by,
        };
        self.ongoing = Some(Ongoing { waiting_for, since, recovered_by });
    }

    /// The pause before the next try.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.backoff.next_delay()
    }

    /// Takes a success, which may end the outage.
    pub(crate) fn recovered(&mut self, by: Recovered) {
        if self.ongoing.as_ref().is_none_or(|ongoing| {
            ongoing.recovered_by == by
                || by == Recovered::Published && ongoing.recovered_by == Recovered::Kafka
        }) {
            self.over();
        }
    }

    /// No event is left that could not be published.
    pub(crate) fn nothing_left(&mut self) {
        let by = self.ongoing.as_ref().map(|ongoing| ongoing.recovered_by);
        if matches!(by, Some(Recovered::Published | Recovered::OutboxRead)) {
            self.over();
        }
    }

    /// Ends the outage, if there is one.
    pub(crate) fn over(&mut self) {
        if let Some(Ongoing { waiting_for, since, .. }) = self.ongoing.take() {
            self.vitals.wait(None);
            let waited_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(
                event = "outage_ended",
                waiting_for,
                waited_ms,
                "publishing again after waiting for {waiting_for}"
            );
            self.backoff.reset();
        }
    }
}
