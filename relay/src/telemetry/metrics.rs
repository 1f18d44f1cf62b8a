//! The metrics of the process. Names, labels and their values are in this folder alone;
//! `docs/operations.md` explains them. Labels have few values: shards, kinds, classes, and the
//! categories that lag most.

use std::sync::LazyLock;
use std::time::Duration;

use annals_relay_machine::{FailureClass, Lease};
use jiff::Timestamp;
use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

use crate::telemetry::clients::ClientMetrics;
use crate::telemetry::maker::Maker;
use crate::telemetry::publishing::PublishingMetrics;
use crate::telemetry::survey::SurveyMetrics;
use crate::telemetry::vitals::Vitals;

/// The kinds of things that a relay waits for: the first word of the logged `waiting_for`.
const KINDS: [&str; 10] = [
    "database", "kafka", "registry", "standby", "topic", "schema", "record", "instance", "lease",
    "operator",
];
const CLASSES: [FailureClass; 6] = [
    FailureClass::Unavailable,
    FailureClass::Resync,
    FailureClass::Fenced,
    FailureClass::UnknownOutcome,
    FailureClass::DivergedHistory,
    FailureClass::Fatal,
];

/// The metrics of this process: a process has one relay.
pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// All metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) survey: SurveyMetrics,
    pub(crate) clients: ClientMetrics,
    pub(crate) publishing: PublishingMetrics,
    ready: IntGauge,
    event_loop_silence: Gauge,
    resident_memory: IntGauge,
    waiting: IntGaugeVec,
    waiting_duration: Gauge,
    failures: IntCounterVec,
    pub(crate) shards: IntGauge,
    owned_shards: IntGauge,
    members: IntGauge,
    lease_epoch: IntGaugeVec,
}

impl Metrics {
    fn new() -> Self {
        let make = Maker::new(Registry::new());
        let version =
            make.wholes("annals_relay_build_info", "The version that runs.", &["version"]);
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let started = make.gauge("process_start_time_seconds", "When the process started.");
        started.set(Timestamp::now().as_duration().as_secs_f64());
        let metrics = Self {
            resident_memory: make
                .whole("process_resident_memory_bytes", "Memory that the process uses."),
            ready: make.whole("annals_relay_ready", "1 while it publishes, or could as a standby."),
            event_loop_silence: make.gauge(
                "annals_relay_event_loop_silence_seconds",
                "Time since the last turn of the event loop.",
            ),
            waiting: make.wholes(
                "annals_relay_waiting",
                "1 for the kind of thing that it waits for.",
                &["for"],
            ),
            waiting_duration: make.gauge(
                "annals_relay_waiting_seconds",
                "How long it has waited so far; 0 while it waits for nothing.",
            ),
            failures: make.counters(
                "annals_relay_failures_total",
                "Failed operations, by what the relay does about them.",
                "class",
            ),
            shards: make.whole("annals_relay_shards", "Shards of the installation."),
            owned_shards: make
                .whole("annals_relay_owned_shards", "Shards that this relay publishes."),
            members: make.whole("annals_relay_members", "Relays that can own shards."),
            lease_epoch: make.wholes(
                "annals_relay_lease_epoch",
                "The epoch of this relay's lease of a shard.",
                &["shard"],
            ),
            survey: SurveyMetrics::new(&make),
            clients: ClientMetrics::new(&make),
            publishing: PublishingMetrics::new(&make),
            registry: make.registry(),
        };
        metrics.begin();
        metrics
    }

    /// Every series exists from the start: a rate needs a first value.
    fn begin(&self) {
        self.show_waiting(None);
        for class in CLASSES {
            self.failures.with_label_values(&[class_name(class)]).inc_by(0);
        }
    }

    /// All metrics in Prometheus' text format.
    pub(crate) fn text(&self, vitals: &Vitals) -> String {
        self.ready.set(i64::from(vitals.readiness().is_ready()));
        self.event_loop_silence.set(vitals.silence().as_secs_f64());
        self.show_waiting(vitals.waiting());
        self.survey.show();
        self.resident_memory.set(resident_bytes());
        let mut text = String::new();
        // Writing to a string fails only for a metric without a name.
        drop(TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text));
        text
    }

    fn show_waiting(&self, waiting: Option<(String, Duration)>) {
        let kind = waiting.as_ref().and_then(|(what, _)| what.split(' ').next());
        for of in KINDS {
            self.waiting.with_label_values(&[of]).set(i64::from(kind == Some(of)));
        }
        self.waiting_duration.set(waiting.map_or(0.0, |(_, time)| time.as_secs_f64()));
    }

    pub(crate) fn failed(&self, class: FailureClass) {
        self.failures.with_label_values(&[class_name(class)]).inc();
    }

    /// The leases of this relay, and the number of relays that can have some.
    pub(crate) fn leases(&self, mine: &[Lease], members: u16) {
        self.members.set(i64::from(members));
        self.lease_epoch.reset();
        for Lease { shard, epoch } in mine {
            let epoch = i64::try_from(*epoch).unwrap_or(i64::MAX);
            self.lease_epoch.with_label_values(&[shard.0.to_string()]).set(epoch);
        }
    }

    pub(crate) fn publishes(&self, shards: usize) {
        self.owned_shards.set(i64::try_from(shards).unwrap_or(i64::MAX));
    }
}

const fn class_name(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Unavailable => "unavailable",
        FailureClass::Resync => "resync",
        FailureClass::Fenced => "fenced",
        FailureClass::UnknownOutcome => "unknown_outcome",
        FailureClass::DivergedHistory => "diverged_history",
        FailureClass::Fatal => "fatal",
    }
}

/// The memory of this process; 0 where the system does not say.
fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
