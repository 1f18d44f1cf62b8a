//! Waiting for what failed: growing pauses, and one line when it begins and one when it ends.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::failure::Failure;

/// What is waited for at the moment.
pub(crate) struct Waiting {
    backoff: Backoff,
    what: Option<(String, Instant)>,
    /// Whether a session that begins shows that it is over.
    until_begun: bool,
}

impl Waiting {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self { backoff, what: None, until_begun: false }
    }

    /// Whether something is waited for.
    pub(crate) fn is_on(&self) -> bool {
        self.what.is_some()
    }

    /// Says what is waited for, if that changed.
    pub(crate) fn say(&mut self, failure: &Failure) {
        let what = failure.waits_for();
        self.until_begun = failure.is_over_when_a_session_begins();
        if self.what.as_ref().is_none_or(|(before, _)| *before != what) {
            let since = self.what.take().map_or_else(Instant::now, |(_, since)| since);
            tracing::warn!(error = failure as &dyn std::error::Error, "waiting for {what}");
            self.what = Some((what, since));
        } else {
            tracing::debug!(error = failure as &dyn std::error::Error, "still waiting for {what}");
        }
    }

    /// Waits for the next pause.
    pub(crate) async fn pause(&mut self, shutdown: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(self.backoff.next_delay()) => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// A session has begun: lease, database and Kafka are there. What is wrong with one topic or schema
    /// shows only when something is published.
    pub(crate) fn began(&mut self) {
        if self.until_begun {
            self.over();
        }
    }

    /// Says that publishing goes on, if it was waited for something.
    pub(crate) fn over(&mut self) {
        if let Some((what, since)) = self.what.take() {
            let waited_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(waited_ms, "publishing again after waiting for {what}");
        }
        self.backoff.reset();
    }
}
