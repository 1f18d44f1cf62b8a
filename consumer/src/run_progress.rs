//! What a run has done so far: its counts, and its progress after each batch.

use std::time::{Duration, Instant};

use crate::applied_batch::AppliedBatch;
use crate::pace::Pace;

/// The counts of a run so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RunTotals {
    /// Applied events; more than their records where upcasters make several of one.
    pub events: u64,
    /// Dropped records: their event had been applied before.
    pub duplicates: u64,
    /// Skipped events: their type is not declared, or their upcaster makes none of them.
    pub skipped: u64,
    /// Passed records that cannot be applied.
    pub dead_letters: u64,
    /// Committed transactions.
    pub batches: u64,
}

/// The progress after a committed batch, or at the end of the topics.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RunProgress<'a> {
    /// Applied events of this batch.
    pub batch_events: usize,
    /// Dropped records of this batch: their event had been applied before.
    pub batch_duplicates: usize,
    /// Skipped events of this batch: their type is not declared.
    pub batch_skipped: usize,
    /// Passed records of this batch that cannot be applied.
    pub batch_dead_letters: usize,
    /// The time from append to commit, of each event of the batch.
    pub lags: &'a [Duration],
    /// The time from the begin of the batch, behind the batch before it, to its commit.
    pub took: Duration,
    /// All events are applied that were committed to the topics at some moment after the last
    /// record was received. True also while no topic exists.
    pub caught_up: bool,
    /// The counts since the start of the run, including this batch.
    pub totals: RunTotals,
    /// Records a second, over the last seconds: also those that are not applied.
    pub records_per_second: f64,
    /// The records behind this batch, up to the end of the topics when it was last queried.
    /// Transaction markers count. None before the first query.
    pub records_left: Option<u64>,
    /// The time that these records take at this rate, without those that are written meanwhile.
    pub time_left: Option<Duration>,
}

impl RunTotals {
    pub(crate) fn add<E>(&mut self, applied: &AppliedBatch<E>) {
        // Counts of one batch always fit.
        self.events += applied.events.len() as u64;
        self.duplicates += applied.duplicates as u64;
        self.skipped += applied.skipped as u64;
        self.dead_letters += applied.dead_letters as u64;
        self.batches += applied.batches;
    }
}

impl RunProgress<'_> {
    pub(crate) fn measure(&mut self, pace: &Pace, records_left: Option<u64>) {
        let now = Instant::now();
        self.records_per_second = pace.per_second(now);
        self.records_left = records_left;
        self.time_left = records_left.and_then(|records| pace.time_for(records, now));
    }
}
