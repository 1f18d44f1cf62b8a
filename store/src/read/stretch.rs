//! Stretches of the log: how many positions one statement looks through for events that it selects,
//! so that a rare type is found in any log, within the deadline of a statement.

use std::io::ErrorKind;
use std::time::Duration;

use crate::sqlstate::exceeded_time;

/// At first, and after a statement that took long: a fraction of a second, and some seconds where
/// nothing is in the memory of the server.
const POSITIONS_MIN: i64 = 1 << 16;
/// Few statements for positions without events.
const POSITIONS_MAX: i64 = 1 << 20;
/// A statement that took less may be followed by one of four times its size.
const FAST_MAX: Duration = Duration::from_millis(500);

/// The number of positions that the next statement looks through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch(i64);

impl Stretch {
    pub(crate) const FIRST: Self = Self(POSITIONS_MIN);

    pub(crate) const fn positions(self) -> i64 {
        self.0
    }

    /// A statement has looked through the whole stretch.
    pub(crate) fn passed(&mut self, took: Duration) {
        let positions = if took < FAST_MAX { self.0.saturating_mul(4) } else { POSITIONS_MIN };
        self.0 = positions.min(POSITIONS_MAX);
    }

    /// Whether the statement that failed is to be tried again, on a shorter stretch: it took too
    /// long, and was not on the shortest one.
    pub(crate) fn is_shortened_after(&mut self, error: &sqlx::Error) -> bool {
        let before = std::mem::replace(self, Self::FIRST);
        before != Self::FIRST && (exceeded_time(error) || is_timeout(error))
    }
}

fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_grow_while_statements_are_fast_and_begin_again_after_a_slow_one() {
        let mut stretch = Stretch::FIRST;
        for _ in 0..100 {
            stretch.passed(Duration::ZERO);
        }
        assert_eq!(stretch.positions(), POSITIONS_MAX);
        stretch.passed(Duration::from_secs(1));
        assert_eq!(stretch, Stretch::FIRST);
    }

    #[test]
    fn a_statement_that_takes_too_long_is_tried_once_more_on_the_shortest_stretch() {
        let late = sqlx::Error::Io(ErrorKind::TimedOut.into());
        let mut stretch = Stretch::FIRST;
        stretch.passed(Duration::ZERO);
        let long = stretch;
        assert!(stretch.is_shortened_after(&late));
        assert_eq!(stretch, Stretch::FIRST);
        assert!(!stretch.is_shortened_after(&late));
        let mut stretch = long;
        assert!(!stretch.is_shortened_after(&sqlx::Error::PoolClosed));
    }
}
