//! The time of each event from its append to the commit of the projection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::report::{grouped, time};

/// One event: the time of its append, and its way to the read model.
type Lag = (Timestamp, Duration);

/// The events of all projections. All clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lags(Arc<Mutex<Vec<Lag>>>);

impl Lags {
    /// Notes events that have just been committed.
    pub(crate) fn record(&self, lags: &[Duration]) {
        let now = Timestamp::now();
        let lags = lags.iter().map(|lag| (now.checked_sub(*lag).unwrap_or(now), *lag));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(lags);
    }

    /// All events so far; removes them.
    pub(crate) fn take(&self) -> Vec<Lag> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Columns with the percentiles of those events for which `is_in` holds, by the times of their
/// append and of their commit.
pub(crate) fn percentiles(lags: &[Lag], is_in: impl Fn(Timestamp, Timestamp) -> bool) -> String {
    let chosen = lags.iter().filter(|(appended_at, lag)| is_in(*appended_at, *appended_at + *lag));
    let mut times: Vec<Duration> = chosen.map(|(_, lag)| *lag).collect();
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).or(times.last());
    let columns = [50, 90, 99, 100].map(|percent| at(percent).map_or("-".into(), |it| time(*it)));
    let [p50, p90, p99, max] = columns;
    format!("{:>9} {p50:>9} {p90:>9} {p99:>9} {max:>9}", grouped(times.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn columns(line: &str) -> Vec<&str> {
        line.split("  ").filter(|it| !it.is_empty()).map(str::trim).collect()
    }

    #[test]
    fn events_are_told_apart_by_append_and_commit() {
        let lags = [9, 10, 11, 19, 20].map(|second| (at(second), Duration::from_secs(5)));
        let appended = percentiles(&lags, |appended_at, _| (at(10)..at(20)).contains(&appended_at));
        assert_eq!(columns(&appended), ["3", "5.00 s", "5.00 s", "5.00 s", "5.00 s"]);
        let committed = percentiles(&lags, |_, committed_at| committed_at < at(15));
        assert_eq!(columns(&committed)[0], "1");
    }

    #[test]
    fn percentiles_of_nothing_are_none() {
        assert_eq!(columns(&percentiles(&[], |_, _| true)), ["0", "-", "-", "-", "-"]);
    }

    #[test]
    fn one_slow_event_of_a_hundred_is_the_maximum_and_not_the_median() {
        let mut lags = vec![(at(0), Duration::from_millis(5)); 99];
        lags.push((at(0), Duration::from_secs(1)));
        let line = percentiles(&lags, |_, _| true);
        assert_eq!(columns(&line), ["100", "5.0 ms", "5.0 ms", "1.00 s", "1.00 s"]);
    }

    #[test]
    fn event_is_dated_by_its_append_and_taken_once() {
        let lags = Lags::default();
        lags.record(&[Duration::from_secs(60)]);
        let [(appended_at, lag)] = lags.take()[..] else { panic!("one event was recorded") };
        assert!(appended_at < Timestamp::now() - Duration::from_secs(59));
        assert_eq!(lag, Duration::from_secs(60));
        assert!(lags.take().is_empty());
    }
}
