//! The results of several rounds.

use serde::Serialize;

use crate::report::number;

/// The median of several rounds, the minimum and the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of the rounds' results; `None` without a round.
    pub(crate) fn of(rounds: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = rounds.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { min, median, max })
    }

    /// The minimum and the maximum, for people.
    pub(crate) fn ends(self) -> String {
        format!("{}..{}", number(self.min), number(self.max))
    }
}

/// A count as a floating-point number.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        let odd = Spread { min: 1.0, median: 2.0, max: 9.0 };
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), Some(odd));
        let even = Spread { min: 1.0, median: 3.0, max: 9.0 };
        assert_eq!(Spread::of([4.0, 9.0, 1.0, 2.0]), Some(even));
        assert_eq!(Spread::of([]), None);
    }
}
