//! What must add up.

use std::collections::BTreeMap;

/// Sums over some flights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) flights: i64,
    pub(crate) cancelled: i64,
    pub(crate) departed: i64,
    pub(crate) arrived: i64,
    pub(crate) departure_delay_minutes: i64,
    pub(crate) arrival_delay_minutes: i64,
}

/// Sums over the legs of one aircraft, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flown {
    pub(crate) legs: i64,
    pub(crate) miles: i64,
    pub(crate) air_time_minutes: i64,
}

/// All totals of a file, or of the read model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) all: Tally,
    pub(crate) flown: Flown,
    pub(crate) by_carrier: BTreeMap<String, Tally>,
    pub(crate) by_destination: BTreeMap<String, Tally>,
    pub(crate) by_aircraft: BTreeMap<String, Flown>,
}

impl Tally {
    /// Minutes, of the flights that left; `None` if none did.
    pub(crate) fn departure_delay_mean(&self) -> Option<f64> {
        mean(self.departure_delay_minutes, self.departed)
    }

    /// Minutes, of the flights that arrived; `None` if none did.
    pub(crate) fn arrival_delay_mean(&self) -> Option<f64> {
        mean(self.arrival_delay_minutes, self.arrived)
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.flights += other.flights;
        self.cancelled += other.cancelled;
        self.departed += other.departed;
        self.arrived += other.arrived;
        self.departure_delay_minutes += other.departure_delay_minutes;
        self.arrival_delay_minutes += other.arrival_delay_minutes;
    }
}

impl std::ops::AddAssign for Flown {
    fn add_assign(&mut self, other: Self) {
        self.legs += other.legs;
        self.miles += other.miles;
        self.air_time_minutes += other.air_time_minutes;
    }
}

fn mean(sum: i64, count: i64) -> Option<f64> {
    // Minutes of delay of all flights of a century are far below 2^53.
    #[expect(clippy::cast_precision_loss, reason = "sums of minutes are far below 2^53")]
    (count > 0).then(|| sum as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_of_no_flights_is_not_zero() {
        assert_eq!(Tally::default().departure_delay_mean(), None);
        let late = Tally { arrived: 2, arrival_delay_minutes: 5, ..Tally::default() };
        assert_eq!(late.arrival_delay_mean(), Some(2.5));
    }
}
