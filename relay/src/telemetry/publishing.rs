//! The metrics of pages and transactions.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::model::batch_timings::BatchTimings;
use crate::telemetry::maker::{Maker, SECONDS};

const EVENTS: [f64; 9] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0];

/// The metrics of pages and transactions.
#[derive(Debug)]
pub(crate) struct PublishingMetrics {
    events: IntCounter,
    transactions: IntCounterVec,
    page_duration: Histogram,
    transaction_duration: Histogram,
    commit_duration: Histogram,
    publish_delay: Histogram,
    batch_events: Histogram,
}

impl PublishingMetrics {
    pub(super) fn new(make: &Maker) -> Self {
        let metrics = Self {
            events: make.counter(
                "annals_relay_events_published_total",
                "Events in committed transactions.",
            ),
            transactions: make.counters(
                "annals_relay_transactions_total",
                "Transactions in Kafka, by their outcome.",
                "outcome",
            ),
            page_duration: make.histogram(
                "annals_relay_page_duration_seconds",
                "Time to read and encode a page of the outbox.",
                &SECONDS,
            ),
            transaction_duration: make.histogram(
                "annals_relay_transaction_duration_seconds",
                "Time from the first record of a transaction to its commit.",
                &SECONDS,
            ),
            commit_duration: make.histogram(
                "annals_relay_commit_duration_seconds",
                "Time that the brokers take to commit a transaction.",
                &SECONDS,
            ),
            publish_delay: make.histogram(
                "annals_relay_publish_delay_seconds",
                "Mean age of a transaction's events at its commit, by two clocks.",
                &SECONDS,
            ),
            batch_events: make.histogram(
                "annals_relay_batch_events",
                "Events in a transaction.",
                &EVENTS,
            ),
        };
        // Every series exists from the start: a rate needs a first value.
        for outcome in ["committed", "failed"] {
            metrics.transactions.with_label_values(&[outcome]).inc_by(0);
        }
        metrics
    }

    /// A page was read and encoded.
    pub(crate) fn page_read(&self, took: Duration) {
        self.page_duration.observe(took.as_secs_f64());
    }

    /// A transaction is committed.
    pub(crate) fn committed(&self, timings: &BatchTimings) {
        let events = timings.events();
        self.events.inc_by(u64::try_from(events).unwrap_or(0));
        self.transactions.with_label_values(&["committed"]).inc();
        self.transaction_duration.observe(timings.transaction().as_secs_f64());
        self.commit_duration.observe(timings.commit().as_secs_f64());
        if events > 0 {
            self.publish_delay.observe(timings.age().as_secs_f64());
            self.batch_events.observe(f64::from(u32::try_from(events).unwrap_or(u32::MAX)));
        }
    }

    /// A transaction is not committed, or it is unknown whether it is.
    pub(crate) fn not_committed(&self) {
        self.transactions.with_label_values(&["failed"]).inc();
    }
}
