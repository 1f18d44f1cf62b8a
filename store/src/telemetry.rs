//! Metrics through the `metrics` facade and spans through `tracing`. Both cost nearly nothing until
//! the application installs an exporter or a subscriber. With `metrics-exporter-prometheus`:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use annals_store::telemetry;
//! use metrics_exporter_prometheus::PrometheusBuilder;
//!
//! let exporter =
//!     PrometheusBuilder::new().set_buckets(&telemetry::DURATION_BUCKETS)?.install_recorder()?;
//! telemetry::describe();
//! // In the handler of `/metrics`:
//! let text = exporter.render();
//! # drop(text);
//! # Ok(())
//! # }
//! ```
//!
//! `cargo run --package annals-store --example metrics` is a whole program.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Completed appends; label `outcome`: `appended`, `repeated`, `refused`, `lost_race`, `unknown`,
/// `failed`, `queue_full`, `closed`, `interrupted`.
pub const APPENDS: &str = "annals_appends_total";
/// Events that appends recorded.
pub const APPENDED_EVENTS: &str = "annals_appended_events_total";
/// Duration of appends; same label.
pub const APPEND_DURATION: &str = "annals_append_duration_seconds";
/// Time that an append waited in the queue; 0 for an append that did not wait.
pub const APPEND_QUEUE_DURATION: &str = "annals_append_queue_seconds";
/// Appends in the call that made an append.
pub const APPEND_CALL_APPENDS: &str = "annals_append_call_appends";
/// Events that [`Store::read`](crate::Store::read) and the methods based on it returned.
pub const READ_EVENTS: &str = "annals_read_events_total";
/// Completed decisions; label `outcome`: `decided`, `repeated`, `refused`, `contended`, `failed`.
pub const DECISIONS: &str = "annals_decisions_total";
/// Appends that a recorded decision tried; more than 1 after conflicts.
pub const DECISION_TRIES: &str = "annals_decision_tries";
/// Snapshots of aggregates; label `outcome`: `written`; `failed`; `skipped`, because another one
/// was being written; `unreadable`.
pub const SNAPSHOTS: &str = "annals_snapshots_total";
/// Duration of the query for a page.
pub const READ_PAGE_DURATION: &str = "annals_read_page_duration_seconds";
/// Events that followers returned; label `category`, empty for all categories.
pub const FOLLOWED_EVENTS: &str = "annals_followed_events_total";
/// Age of a page's last event when a follower read the page; same label.
pub const FOLLOWER_LAG: &str = "annals_follower_lag_seconds";

/// Events that projections applied; label `projection`.
pub const PROJECTED_EVENTS: &str = "annals_projected_events_total";
/// Times that a projection stopped at an event, retries included; same label.
pub const PROJECTION_STOPS: &str = "annals_projection_stops_total";

/// Buckets for durations in seconds, for exporters that need them: from half a millisecond to ten
/// seconds.
pub const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Describes all metrics to the exporter, with their units. To be called once, after the exporter
/// is installed.
pub fn describe() {
    describe_counter!(APPENDS, Unit::Count, "Completed appends, by their outcome.");
    describe_counter!(APPENDED_EVENTS, Unit::Count, "Events that appends recorded.");
    describe_histogram!(APPEND_DURATION, Unit::Seconds, "Duration of appends, by their outcome.");
    describe_histogram!(
        APPEND_QUEUE_DURATION,
        Unit::Seconds,
        "Time that an append waited in the queue."
    );
    describe_histogram!(
        APPEND_CALL_APPENDS,
        Unit::Count,
        "Appends in the call that made an append."
    );
    describe_counter!(DECISIONS, Unit::Count, "Completed decisions, by their outcome.");
    describe_histogram!(DECISION_TRIES, Unit::Count, "Appends that a recorded decision tried.");
    describe_counter!(SNAPSHOTS, Unit::Count, "Snapshots of aggregates, by their outcome.");
    describe_counter!(READ_EVENTS, Unit::Count, "Events that reads returned.");
    describe_histogram!(READ_PAGE_DURATION, Unit::Seconds, "Duration of the query for a page.");
    describe_counter!(FOLLOWED_EVENTS, Unit::Count, "Events that followers returned.");
    describe_counter!(PROJECTED_EVENTS, Unit::Count, "Events that projections applied.");
    describe_counter!(
        PROJECTION_STOPS,
        Unit::Count,
        "Times that a projection stopped at an event."
    );
    describe_gauge!(
        FOLLOWER_LAG,
        Unit::Seconds,
        "Age of a page's last event when a follower read the page."
    );
}

/// The outcome of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendOutcome {
    Appended { events: usize },
    Repeated,
    Refused,
    LostRace,
    Unknown,
    Failed,
    Inconsistent,
    QueueFull,
    Closed,
    Interrupted,
}

/// Records an append.
pub(crate) fn appended(started_at: Instant, outcome: AppendOutcome) {
    let label = match outcome {
        AppendOutcome::Appended { events } => {
            counter!(APPENDED_EVENTS).increment(u64::try_from(events).unwrap_or(0));
            "appended"
        }
        AppendOutcome::Repeated => "repeated",
        AppendOutcome::Refused => "refused",
        AppendOutcome::LostRace => "lost_race",
        AppendOutcome::Unknown => "unknown",
        AppendOutcome::Failed => "failed",
        AppendOutcome::Inconsistent => "inconsistent",
        AppendOutcome::QueueFull => "queue_full",
        AppendOutcome::Closed => "closed",
        AppendOutcome::Interrupted => "interrupted",
    };
    counter!(APPENDS, "outcome" => label).increment(1);
    histogram!(APPEND_DURATION, "outcome" => label).record(started_at.elapsed());
    tracing::Span::current().record("outcome", label);
}

/// The outcome of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecisionOutcome {
    Decided { tries: u32 },
    Repeated,
    Refused,
    Contended,
    Failed,
}

/// Records a decision.
pub(crate) fn decided(outcome: DecisionOutcome) {
    let label = match outcome {
        DecisionOutcome::Decided { tries } => {
            histogram!(DECISION_TRIES).record(f64::from(tries));
            "decided"
        }
        DecisionOutcome::Repeated => "repeated",
        DecisionOutcome::Refused => "refused",
        DecisionOutcome::Contended => "contended",
        DecisionOutcome::Failed => "failed",
    };
    counter!(DECISIONS, "outcome" => label).increment(1);
}

/// The outcome of writing or reading a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotOutcome {
    Written,
    Failed,
    Skipped,
    Unreadable,
}

/// Records a snapshot.
pub(crate) fn snapshot(outcome: SnapshotOutcome) {
    let label = match outcome {
        SnapshotOutcome::Written => "written",
        SnapshotOutcome::Failed => "failed",
        SnapshotOutcome::Skipped => "skipped",
        SnapshotOutcome::Unreadable => "unreadable",
    };
    counter!(SNAPSHOTS, "outcome" => label).increment(1);
}

/// Records how an append went to the server.
pub(crate) fn called(queued: Duration, call_appends: usize) {
    histogram!(APPEND_QUEUE_DURATION).record(queued);
    let appends = u32::try_from(call_appends).unwrap_or(u32::MAX);
    histogram!(APPEND_CALL_APPENDS).record(f64::from(appends));
    let span = tracing::Span::current();
    span.record("queued_us", u64::try_from(queued.as_micros()).unwrap_or(u64::MAX));
    span.record("call_appends", call_appends);
}

/// Records a page of a read.
pub(crate) fn page_read(started_at: Instant, events: usize) {
    counter!(READ_EVENTS).increment(u64::try_from(events).unwrap_or(0));
    histogram!(READ_PAGE_DURATION).record(started_at.elapsed());
    tracing::Span::current().record("events", events);
}

/// Records a page of a follower.
pub(crate) fn followed(category: &str, events: usize, last: Timestamp) {
    let lag = Timestamp::now().duration_since(last);
    let lag = Duration::try_from(lag).unwrap_or_default();
    counter!(FOLLOWED_EVENTS, "category" => category.to_owned())
        .increment(u64::try_from(events).unwrap_or(0));
    gauge!(FOLLOWER_LAG, "category" => category.to_owned()).set(lag.as_secs_f64());
    tracing::Span::current().record("events", events);
}

/// Records the committed events of a projection.
pub(crate) fn projected(projection: &'static str, events: usize) {
    counter!(PROJECTED_EVENTS, "projection" => projection)
        .increment(u64::try_from(events).unwrap_or(0));
}

/// Records that a projection stopped at an event.
pub(crate) fn projection_stopped(projection: &'static str) {
    counter!(PROJECTION_STOPS, "projection" => projection).increment(1);
}
