//! The metrics of the last survey: the tables' facts about the whole deployment.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use prometheus::{Gauge, GaugeVec, IntGauge, IntGaugeVec};

use crate::model::lag::{Lag, Lags};
use crate::model::quarantine::Cause;
use crate::report::threads::locked;
use crate::telemetry::maker::Maker;

/// The most categories with series of their own: those with the oldest events. The rest is in one
/// series.
const CATEGORIES_MAX: usize = 50;
/// The category of the rest. No category has a `-`.
const REST: &str = "-rest-";

/// The state of a deployment at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Survey {
    pub(crate) lags: Lags,
    pub(crate) shards: i16,
    /// Quarantined streams and categories, by kind and cause.
    pub(crate) quarantined: Vec<([String; 2], i64)>,
    pub(crate) quarantined_seconds: f64,
    pub(crate) generation: i32,
    pub(crate) unfenced: i64,
    pub(crate) partitions: i64,
    pub(crate) droppable: i64,
    /// The age of the oldest transaction that can still write events.
    pub(crate) open_transaction_seconds: f64,
    pub(crate) took: Duration,
}

/// The metrics of a survey.
#[derive(Debug)]
pub(crate) struct SurveyMetrics {
    last: Mutex<Option<(Survey, Instant)>>,
    age: Gauge,
    duration: Gauge,
    lag_events: IntGaugeVec,
    lag_seconds: GaugeVec,
    category_lag_events: IntGaugeVec,
    category_lag_seconds: GaugeVec,
    unpublished_events: IntGauge,
    oldest_seconds: Gauge,
    open_transaction_seconds: Gauge,
    quarantined: IntGaugeVec,
    quarantined_seconds: Gauge,
    generation: IntGauge,
    unfenced: IntGauge,
    partitions: IntGauge,
    droppable: IntGauge,
}

impl SurveyMetrics {
    pub(super) fn new(make: &Maker) -> Self {
        Self {
            last: Mutex::default(),
            age: make.gauge(
                "annals_relay_survey_age_seconds",
                "Time since the lag and the state of the deployment were last read.",
            ),
            duration: make.gauge("annals_relay_survey_seconds", "How long that took."),
            lag_events: make.wholes(
                "annals_relay_lag_events",
                "Committed events of a shard that its copied checkpoint does not cover.",
                &["shard"],
            ),
            lag_seconds: make.gauges(
                "annals_relay_lag_seconds",
                "The age of the oldest of them.",
                &["shard"],
            ),
            category_lag_events: make.wholes(
                "annals_relay_category_lag_events",
                "The same for a category.",
                &["category"],
            ),
            category_lag_seconds: make.gauges(
                "annals_relay_category_lag_seconds",
                "The age of the oldest of them.",
                &["category"],
            ),
            unpublished_events: make
                .whole("annals_relay_unpublished_events", "The same for the whole store."),
            oldest_seconds: make.gauge(
                "annals_relay_oldest_unpublished_seconds",
                "The age of the oldest committed event that is not published.",
            ),
            open_transaction_seconds: make.gauge(
                "annals_relay_open_transaction_seconds",
                "The age of the oldest open transaction that has written: its events wait.",
            ),
            quarantined: make.wholes(
                "annals_relay_quarantined",
                "Quarantined streams and categories.",
                &["kind", "cause"],
            ),
            quarantined_seconds: make.gauge(
                "annals_relay_quarantined_seconds",
                "The age of the oldest entry of the quarantine.",
            ),
            generation: make.whole("annals_relay_generation", "The generation of the deployment."),
            unfenced: make.whole(
                "annals_relay_unfenced_transactional_ids",
                "Transactional ids of earlier owners that are not fenced yet.",
            ),
            partitions: make.whole("annals_relay_outbox_partitions", "Partitions of the outbox."),
            droppable: make.whole(
                "annals_relay_outbox_droppable_partitions",
                "Those that the checkpoints of all deployments cover.",
            ),
        }
    }

    /// Takes another survey.
    pub(crate) fn took(&self, survey: Survey) {
        *locked(&self.last) = Some((survey, Instant::now()));
    }

    /// Shows the last survey; ages grow while no other one succeeds.
    pub(super) fn show(&self) {
        let Some((survey, at)) = &*locked(&self.last) else { return };
        let since = at.elapsed().as_secs_f64();
        let age = |lag: &Lag| if lag.events > 0 { lag.seconds + since } else { 0.0 };
        self.age.set(since);
        self.duration.set(survey.took.as_secs_f64());
        self.show_shards(survey.shards, &survey.lags, age);
        self.show_categories(&survey.lags, age);
        self.unpublished_events.set(survey.lags.all.events);
        self.oldest_seconds.set(age(&survey.lags.all));
        self.open_transaction_seconds.set(survey.open_transaction_seconds);
        self.show_quarantine(survey, since);
        self.generation.set(i64::from(survey.generation));
        self.unfenced.set(survey.unfenced);
        self.partitions.set(survey.partitions);
        self.droppable.set(survey.droppable);
    }

    fn show_shards(&self, shards: i16, lags: &Lags, age: impl Fn(&Lag) -> f64) {
        self.lag_events.reset();
        self.lag_seconds.reset();
        for shard in 0..shards {
            let (lag, shard) = (lags.shards.get(&shard), [shard.to_string()]);
            self.lag_events.with_label_values(&shard).set(lag.map_or(0, |lag| lag.events));
            self.lag_seconds.with_label_values(&shard).set(lag.map_or(0.0, &age));
        }
    }

    fn show_categories(&self, lags: &Lags, age: impl Fn(&Lag) -> f64) {
        let mut categories: Vec<(&str, i64, f64)> = lags
            .categories
            .iter()
            .map(|(category, lag)| (category.as_str(), lag.events, age(lag)))
            .collect();
        categories.sort_by(|(_, _, a), (_, _, b)| b.total_cmp(a));
        let rest = categories.split_off(categories.len().min(CATEGORIES_MAX));
        let events = rest.iter().map(|(_, events, _)| events).sum();
        categories.push((REST, events, rest.first().map_or(0.0, |(_, _, age)| *age)));
        self.category_lag_events.reset();
        self.category_lag_seconds.reset();
        for (category, events, age) in categories {
            self.category_lag_events.with_label_values(&[category]).set(events);
            self.category_lag_seconds.with_label_values(&[category]).set(age);
        }
    }

    fn show_quarantine(&self, survey: &Survey, since: f64) {
        self.quarantined.reset();
        for kind in ["stream", "category"] {
            for cause in Cause::ALL {
                self.quarantined.with_label_values(&[kind, cause.id()]).set(0);
            }
        }
        for (labels, entries) in &survey.quarantined {
            self.quarantined.with_label_values(labels).set(*entries);
        }
        let is_empty = survey.quarantined.is_empty();
        let age = if is_empty { 0.0 } else { survey.quarantined_seconds + since };
        self.quarantined_seconds.set(age);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    fn lag(events: i64, seconds: f64) -> Lag {
        Lag { events, seconds, ..Lag::default() }
    }

    #[test]
    fn many_categories_have_few_series_and_lose_no_event() {
        let metrics = SurveyMetrics::new(&Maker::new(Registry::new()));
        let categories = (0..1_000).map(|i| (format!("c{i}"), lag(2, f64::from(i)))).collect();
        let lags = Lags { categories, all: lag(2_000, 999.0), ..Lags::default() };
        metrics.took(Survey { lags, ..Survey::default() });
        metrics.show();
        let events = |category| metrics.category_lag_events.with_label_values(&[category]).get();
        assert_eq!((events("c999"), events("c950"), events(REST)), (2, 2, 1_900));
        // A category whose events are published has no series any more.
        metrics.took(Survey::default());
        metrics.show();
        let series = prometheus::core::Collector::collect(&metrics.category_lag_events);
        assert_eq!(series[0].get_metric().len(), 1);
        assert_eq!(metrics.oldest_seconds.get(), 0.0);
    }
}
