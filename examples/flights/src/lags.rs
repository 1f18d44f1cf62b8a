//! How long events were under way, from the append to the commit of the projection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use jiff::Timestamp;

/// A longer time counts as this one: an hour.
const LAG_MICROS_MAX: u64 = 3_600_000_000;

/// The phases of the measured times: events before the kill, events delayed by it, and events
/// recorded after the relay had caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Before,
    Delayed,
    After,
}

/// The times of all projections together. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Lags(Arc<Mutex<Measured>>);

#[derive(Debug)]
struct Measured {
    begun_at: Option<Timestamp>,
    killed_at: Option<Timestamp>,
    recovered_at: Option<Timestamp>,
    /// In microseconds.
    before: Histogram<u64>,
    delayed: Histogram<u64>,
    after: Histogram<u64>,
}

/// Percentiles of one phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percentiles {
    pub(crate) events: u64,
    pub(crate) p50: Duration,
    pub(crate) p90: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl Lags {
    pub(crate) fn new() -> Result<Self> {
        let measured = Measured {
            begun_at: None,
            killed_at: None,
            recovered_at: None,
            before: Histogram::new_with_max(LAG_MICROS_MAX, 3)?,
            delayed: Histogram::new_with_max(LAG_MICROS_MAX, 3)?,
            after: Histogram::new_with_max(LAG_MICROS_MAX, 3)?,
        };
        Ok(Self(Arc::new(Mutex::new(measured))))
    }

    /// From now on times count.
    pub(crate) fn begin(&self) {
        self.with(|measured| measured.begun_at = Some(Timestamp::now()));
    }

    pub(crate) fn killed(&self) {
        self.with(|measured| measured.killed_at = Some(Timestamp::now()));
    }

    pub(crate) fn recovered(&self) {
        self.with(|measured| measured.recovered_at = Some(Timestamp::now()));
    }

    /// Notes the times of events that have just been committed.
    pub(crate) fn record(&self, lags: &[Duration]) {
        let now = Timestamp::now();
        self.with(|measured| lags.iter().for_each(|lag| measured.record(now, *lag)));
    }

    /// The percentiles of a phase; `None` if it had no events.
    pub(crate) fn percentiles(&self, phase: Phase) -> Option<Percentiles> {
        self.with(|measured| {
            let times = measured.of(phase);
            let at = |quantile| Duration::from_micros(times.value_at_quantile(quantile));
            (!times.is_empty()).then(|| Percentiles {
                events: times.len(),
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                max: Duration::from_micros(times.max()),
            })
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Measured) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Measured {
    fn record(&mut self, committed_at: Timestamp, lag: Duration) {
        let Some(phase) = self.phase(committed_at, lag) else { return };
        let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        self.of(phase).saturating_record(micros);
    }

    /// `None` for events from before the measurement.
    fn phase(&self, committed_at: Timestamp, lag: Duration) -> Option<Phase> {
        let recorded_at = committed_at.checked_sub(lag).unwrap_or(committed_at);
        self.begun_at.filter(|begun_at| recorded_at >= *begun_at)?;
        Some(match (self.killed_at, self.recovered_at) {
            (None, _) => Phase::Before,
            (Some(_), Some(recovered_at)) if recorded_at >= recovered_at => Phase::After,
            (Some(_), _) => Phase::Delayed,
        })
    }

    fn of(&mut self, phase: Phase) -> &mut Histogram<u64> {
        match phase {
            Phase::Before => &mut self.before,
            Phase::Delayed => &mut self.delayed,
            Phase::After => &mut self.after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart_by_when_they_were_recorded() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let lag = Duration::from_millis(10);
        let lags = Lags::new().unwrap();
        lags.with(|measured| {
            assert_eq!(measured.phase(at(1_000), lag), None);
            measured.begun_at = Some(at(1_000));
            assert_eq!(measured.phase(at(1_005), lag), None);
            assert_eq!(measured.phase(at(1_010), lag), Some(Phase::Before));
            measured.killed_at = Some(at(2_000));
            assert_eq!(measured.phase(at(2_001), lag), Some(Phase::Delayed));
            measured.recovered_at = Some(at(3_000));
            assert_eq!(measured.phase(at(3_009), lag), Some(Phase::Delayed));
            assert_eq!(measured.phase(at(3_010), lag), Some(Phase::After));
        });
    }

    #[test]
    fn percentiles_of_nothing_are_none() {
        assert!(Lags::new().unwrap().percentiles(Phase::After).is_none());
    }

    #[test]
    fn one_slow_event_of_a_hundred_is_the_maximum_and_not_the_median() {
        let lags = Lags::new().unwrap();
        lags.with(|measured| measured.begun_at = Some(Timestamp::UNIX_EPOCH));
        lags.record(&[Duration::from_millis(5); 99]);
        lags.record(&[Duration::from_secs(1)]);
        let found = lags.percentiles(Phase::Before).unwrap();
        assert_eq!(found.events, 100);
        assert!((0.0049..0.0051).contains(&found.p50.as_secs_f64()), "{found:?}");
        assert!((0.99..1.01).contains(&found.max.as_secs_f64()), "{found:?}");
    }
}
