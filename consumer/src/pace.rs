//! How fast a run processes records.

use std::time::{Duration, Instant};

/// The time over which a rate is measured.
const WINDOW: Duration = Duration::from_secs(5);

/// Measures the rate over the last one or two windows.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The beginning of the window before, and of this one, each with the number of records then.
    before: (Instant, u64),
    current: (Instant, u64),
    records: u64,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { before: (now, 0), current: (now, 0), records: 0 }
    }

    pub(crate) fn add(&mut self, records: u64, now: Instant) {
        if now.duration_since(self.current.0) >= WINDOW {
            self.before = self.current;
            self.current = (now, self.records);
        }
        self.records += records;
    }

    pub(crate) fn per_second(&self, now: Instant) -> f64 {
        let (since, records) = self.before;
        let seconds = now.duration_since(since).as_secs_f64().max(0.001);
        let records = u32::try_from(self.records - records).unwrap_or(u32::MAX);
        f64::from(records) / seconds
    }

    /// The time that so many records take at this rate.
    pub(crate) fn time_for(&self, records: u64, now: Instant) -> Option<Duration> {
        let rate = self.per_second(now);
        let records = f64::from(u32::try_from(records).unwrap_or(u32::MAX));
        (rate > 0.0).then(|| Duration::try_from_secs_f64(records / rate).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_that_of_the_last_windows() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for second in 0..20 {
            pace.add(1_000, start + Duration::from_secs(second));
        }
        for second in 20..40 {
            pace.add(100, start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(40);
        let rate = pace.per_second(now);
        assert!((95.0..=110.0).contains(&rate), "{rate}");
        let left = pace.time_for(1_000, now).unwrap().as_secs();
        assert!((9..=10).contains(&left), "{left}");
    }
}
