//! The metrics of the clients of Kafka and of the registry. librdkafka's own statistics list every
//! partition, megabytes for thousands of topics: they are not collected.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::telemetry::maker::{Maker, SECONDS};

/// The outcome of a request to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegistryOutcome {
    /// It has the schema, or has registered it.
    Found,
    /// It does not have it.
    Unknown,
    /// It refuses it.
    Refused,
    /// It did not answer, or made no sense.
    Unavailable,
}

impl RegistryOutcome {
    const ALL: [Self; 4] = [Self::Found, Self::Unknown, Self::Refused, Self::Unavailable];

    const fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The outcome of exporting spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanOutcome {
    /// The collector has them.
    Exported,
    /// The collector did not take them in time.
    Dropped,
}

impl SpanOutcome {
    const ALL: [Self; 2] = [Self::Exported, Self::Dropped];

    const fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Dropped => "dropped",
        }
    }
}

/// The metrics of the clients.
#[derive(Debug)]
pub(crate) struct ClientMetrics {
    producers: IntCounter,
    kafka_errors: IntCounter,
    registry_requests: IntCounterVec,
    spans: IntCounterVec,
    registry_duration: Histogram,
}

impl ClientMetrics {
    pub(super) fn new(make: &Maker) -> Self {
        let registry_requests = make.counters(
            "annals_relay_registry_requests_total",
            "Requests to the schema registry, by their outcome.",
            "outcome",
        );
        for outcome in RegistryOutcome::ALL {
            registry_requests.with_label_values(&[outcome.name()]).inc_by(0);
        }
        let spans = make.counters(
            "annals_relay_spans_total",
            "Spans of traced events, by whether the collector has taken them.",
            "outcome",
        );
        for outcome in SpanOutcome::ALL {
            spans.with_label_values(&[outcome.name()]).inc_by(0);
        }
        Self {
            producers: make.counter(
                "annals_relay_producers_opened_total",
                "Producers that were made: two for each session, and for each failure to publish.",
            ),
            kafka_errors: make.counter(
                "annals_relay_kafka_errors_total",
                "Errors that the Kafka client reported: connections, logins, brokers.",
            ),
            registry_requests,
            spans,
            registry_duration: make.histogram(
                "annals_relay_registry_request_duration_seconds",
                "Time of requests to the schema registry.",
                &SECONDS,
            ),
        }
    }

    pub(crate) fn producer_opened(&self) {
        self.producers.inc();
    }

    pub(crate) fn kafka_error(&self) {
        self.kafka_errors.inc();
    }

    pub(crate) fn spans(&self, outcome: SpanOutcome, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.spans.with_label_values(&[outcome.name()]).inc_by(count);
    }

    pub(crate) fn registry_answered(&self, outcome: RegistryOutcome, took: Duration) {
        self.registry_requests.with_label_values(&[outcome.name()]).inc();
        self.registry_duration.observe(took.as_secs_f64());
    }
}
