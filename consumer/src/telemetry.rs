//! Metrics, through the `metrics` facade: the application chooses the exporter. All have the label
//! `projection`.

use std::time::Duration;

use crate::applied_batch::AppliedBatch;
use crate::run_progress::RunProgress;

/// Applied events.
pub(crate) const EVENTS: &str = "annals_projection_events_total";
/// Dropped records: their event had been applied before.
pub(crate) const DUPLICATES: &str = "annals_projection_duplicates_total";
/// Passed records that cannot be applied.
pub(crate) const DEAD_LETTERS: &str = "annals_projection_dead_letters_total";
/// Committed transactions.
pub(crate) const BATCHES: &str = "annals_projection_batches_total";
/// The time from the begin of a batch, behind the batch before it, to its commit.
pub(crate) const BATCH_SECONDS: &str = "annals_projection_batch_seconds";
/// The time from the append of the last event of a batch to its commit.
pub(crate) const LAG_SECONDS: &str = "annals_projection_lag_seconds";
/// Records of the assigned partitions behind the next offsets, at the last query of their ends.
pub(crate) const RECORDS_LEFT: &str = "annals_projection_records_left";

/// Records a batch.
pub(crate) fn record<E>(projection: &str, applied: &AppliedBatch<E>, progress: &RunProgress<'_>) {
    let name = || projection.to_owned();
    let counts = [
        (EVENTS, applied.events.len()),
        (DUPLICATES, applied.duplicates),
        (DEAD_LETTERS, applied.dead_letters),
    ];
    for (metric, count) in counts {
        metrics::counter!(metric, "projection" => name()).increment(count as u64);
    }
    metrics::counter!(BATCHES, "projection" => name()).increment(applied.batches);
    if applied.batches > 0 {
        metrics::histogram!(BATCH_SECONDS, "projection" => name()).record(progress.took);
    }
    let lag = if progress.caught_up { Some(&Duration::ZERO) } else { progress.lags.last() };
    if let Some(lag) = lag {
        metrics::gauge!(LAG_SECONDS, "projection" => name()).set(lag.as_secs_f64());
    }
    if let Some(left) = progress.records_left {
        let left = f64::from(u32::try_from(left).unwrap_or(u32::MAX));
        metrics::gauge!(RECORDS_LEFT, "projection" => name()).set(left);
    }
}
