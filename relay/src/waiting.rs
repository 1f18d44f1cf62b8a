//! Waiting for what failed: growing pauses, and one line when it begins and one when it ends.

use std::time::{Duration, Instant};

use annals_relay_core::Trouble;

use crate::backoff::Backoff;
use crate::config;
use crate::failure::Failure;

/// What went well: it ends the waiting for some things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Good {
    /// The database has answered.
    Database,
    /// A page was read.
    Read,
    /// Kafka has.
    Kafka,
    /// Something is published: no topic or schema is in the way.
    Published,
}

/// What is waited for at the moment.
pub(crate) struct Waiting {
    backoff: Backoff,
    what: Option<Waited>,
}

struct Waited {
    what: String,
    since: Instant,
    until: Good,
}

impl Waiting {
    pub(crate) fn new(relay: &config::Relay) -> Self {
        Self { backoff: Backoff::new(relay.backoff_min, relay.backoff_max), what: None }
    }

    /// Whether something is waited for.
    pub(crate) fn is_on(&self) -> bool {
        self.what.is_some()
    }

    /// Whether something has been waited for all that time.
    pub(crate) fn lasts(&self, time: Duration) -> bool {
        self.what.as_ref().is_some_and(|waited| waited.since.elapsed() >= time)
    }

    /// Says what is waited for, if that changed.
    pub(crate) fn say(&mut self, failure: &Failure) {
        self.say_until(failure, failure.is_over_when());
    }

    /// The same of a failure to send or to commit. That producers can be made again does not end it: where records are
    /// refused, they always can.
    pub(crate) fn say_unpublished(&mut self, failure: &Failure) {
        match failure.trouble() {
            Trouble::Away | Trouble::Unknown => self.say_until(failure, Good::Published),
            Trouble::Held | Trouble::Fenced | Trouble::Fork | Trouble::Fault => {
                self.say(failure);
            }
        }
    }

    /// The same of a failure to read. That the database answers otherwise does not end it: where a right is missing, it always does.
    pub(crate) fn say_unread(&mut self, failure: &Failure) {
        match failure.is_over_when() {
            Good::Database if failure.trouble() == Trouble::Away => {
                self.say_until(failure, Good::Read);
            }
            _ => self.say(failure),
        }
    }

    fn say_until(&mut self, failure: &Failure, until: Good) {
        let what = failure.waits_for();
        let error = failure as &dyn std::error::Error;
        let before = self.what.take();
        let is_same = before.as_ref().is_some_and(|before| before.what == what);
        if is_same {
            tracing::debug!(
                event = "outage_continues",
                waiting_for = what,
                error,
                "still waiting for {what}"
            );
        } else {
            tracing::warn!(event = "outage_began", waiting_for = what, error, "waiting for {what}");
        }
        // What began as a failure to publish or to read stays one.
        let until = match &before {
            Some(Waited { until: before @ (Good::Published | Good::Read), .. }) if is_same => {
                *before
            }
            Some(_) | None => until,
        };
        let since = before.map_or_else(Instant::now, |before| before.since);
        self.what = Some(Waited { what, since, until });
    }

    /// How long to wait before the next try.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.backoff.next_delay()
    }

    /// Something went well.
    pub(crate) fn good(&mut self, what: Good) {
        if self.what.as_ref().is_none_or(|waited| {
            waited.until == what || what == Good::Published && waited.until == Good::Kafka
        }) {
            self.over();
        }
    }

    /// What was waited for before the first session is over.
    pub(crate) fn begun(&mut self) {
        self.over();
    }

    /// There is nothing left that could not be published.
    pub(crate) fn nothing_left(&mut self) {
        let until = self.what.as_ref().map(|waited| waited.until);
        if matches!(until, Some(Good::Published | Good::Read)) {
            self.over();
        }
    }

    /// Says that publishing goes on, if it was waited for something.
    fn over(&mut self) {
        if let Some(Waited { what, since, .. }) = self.what.take() {
            let waited_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(
                event = "outage_ended",
                waiting_for = what,
                waited_ms,
                "publishing again after waiting for {what}"
            );
            self.backoff.reset();
        }
    }
}
