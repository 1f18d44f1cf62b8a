//! The timings of a batch, logged at level debug.

use std::time::{Duration, Instant};

/// How long each stage of one batch took.
#[derive(Debug)]
pub(crate) struct BatchTimings {
    events: usize,
    /// The mean time from recording an event to reading it, by two clocks.
    age_ms: i64,
    last: Instant,
    /// Waiting for a producer, sending until the last acknowledgement, waiting for the transaction
    /// before, committing.
    took: [Duration; 4],
    count: usize,
}

impl BatchTimings {
    /// Starts when the events have been read; `recorded_ms` is the sum of their recorded times.
    pub(crate) fn read(events: usize, recorded_ms: i64) -> Self {
        let mean = recorded_ms / i64::try_from(events.max(1)).unwrap_or(i64::MAX);
        let age_ms = jiff::Timestamp::now().as_millisecond() - mean;
        Self { events, age_ms, last: Instant::now(), took: [Duration::ZERO; 4], count: 0 }
    }

    /// The next stage ends now.
    pub(crate) fn next(&mut self) {
        let now = Instant::now();
        if let Some(took) = self.took.get_mut(self.count) {
            *took = now - self.last;
        }
        self.count += 1;
        self.last = now;
    }

    /// The number of events.
    pub(crate) const fn events(&self) -> usize {
        self.events
    }

    /// From the first record to the commit, after the last stage.
    pub(crate) fn transaction(&self) -> Duration {
        let [_queued, sent, waited, committed] = self.took;
        sent + waited + committed
    }

    /// The commit.
    pub(crate) const fn commit(&self) -> Duration {
        self.took[3]
    }

    /// The mean age of the events after the last stage.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_millis(self.age_ms.max(0).unsigned_abs()) + self.took.iter().sum()
    }

    /// Logs the timings, after the last stage.
    pub(crate) fn log(&self) {
        let Self { events, age_ms, took, .. } = self;
        let [queued_us, sent_us, waited_us, committed_us] =
            took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        tracing::debug!(
            events,
            age_ms,
            queued_us,
            sent_us,
            waited_us,
            committed_us,
            "a transaction is committed"
        );
    }
}
