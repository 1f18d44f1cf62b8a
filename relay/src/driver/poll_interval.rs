//! How long to wait when there is nothing to publish.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(1);
/// The longest pause while hints come: they end it before, and a hint that is lost costs no more than this.
const LAST_HINTED: Duration = Duration::from_millis(250);

/// Pauses that double from a millisecond, until something was found again.
#[derive(Debug)]
pub(crate) struct Idle {
    next: Duration,
    last: Duration,
    /// Whether a hint told of the last events that came to a relay at rest, and not its own look. Before the first ones
    /// it is believed.
    is_hinted: bool,
}

impl Idle {
    pub(crate) const fn new(last: Duration) -> Self {
        Self { next: FIRST, last, is_hinted: true }
    }

    pub(crate) fn next_pause(&mut self) -> Duration {
        let last = if self.is_hinted { self.last.max(LAST_HINTED) } else { self.last };
        let pause = self.next.min(last);
        self.next = (pause * 2).min(last);
        pause
    }

    /// A hint has come.
    pub(crate) fn hinted(&mut self) {
        self.is_hinted = true;
        self.next = FIRST;
    }

    /// A look for events has found some, or not.
    pub(crate) fn saw(&mut self, events: bool) {
        if events {
            // Found after a long pause, and no hint had come: there may be none.
            self.is_hinted &= self.next <= self.last;
            self.next = FIRST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(idle: &mut Idle, count: usize) -> Vec<u128> {
        (0..count).map(|_| idle.next_pause().as_millis()).collect()
    }

    #[test]
    fn pauses_double_up_to_the_last_and_begin_again_when_something_is_found() {
        let mut idle = Idle::new(Duration::from_millis(20));
        idle.is_hinted = false;
        assert_eq!(millis(&mut idle, 7), [1, 2, 4, 8, 16, 20, 20]);
        idle.saw(false);
        assert_eq!(millis(&mut idle, 1), [20]);
        idle.saw(true);
        assert_eq!(millis(&mut idle, 1), [1]);
    }

    #[test]
    fn pauses_grow_longer_until_something_is_found_that_no_hint_told_of() {
        let mut idle = Idle::new(Duration::from_millis(20));
        assert_eq!(millis(&mut idle, 10), [1, 2, 4, 8, 16, 32, 64, 128, 250, 250]);
        idle.saw(true);
        assert_eq!(millis(&mut idle, 7), [1, 2, 4, 8, 16, 20, 20]);
        idle.hinted();
        assert_eq!(millis(&mut idle, 9).last(), Some(&250));
    }

    #[test]
    fn events_that_a_hint_told_of_keep_the_pauses_long() {
        let mut idle = Idle::new(Duration::from_millis(20));
        for _ in 0..2 {
            idle.hinted();
            idle.saw(true);
            let last = (0..9).map(|_| idle.next_pause()).last();
            assert_eq!(last, Some(LAST_HINTED));
        }
    }
}
