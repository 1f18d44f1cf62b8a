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
    /// Whether a hint told of the last events that came to a relay at rest, and not its own look.
    is_hinted: bool,
}

impl Idle {
    pub(crate) const fn new(last: Duration) -> Self {
        Self { next: FIRST, last, is_hinted: false }
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

    #[test]
    fn pauses_double_up_to_the_last_and_begin_again_when_something_is_found() {
        let mut idle = Idle::new(Duration::from_millis(20));
        let mut millis =
            |count| (0..count).map(|_| idle.next_pause().as_millis()).collect::<Vec<_>>();
        assert_eq!(millis(7), [1, 2, 4, 8, 16, 20, 20]);
        idle.saw(false);
        assert_eq!(idle.next_pause().as_millis(), 20);
        idle.saw(true);
        assert_eq!(idle.next_pause().as_millis(), 1);
    }

    #[test]
    fn pauses_grow_longer_while_hints_come() {
        let mut idle = Idle::new(Duration::from_millis(20));
        idle.hinted();
        let mut millis =
            |count| (0..count).map(|_| idle.next_pause().as_millis()).collect::<Vec<_>>();
        assert_eq!(millis(10), [1, 2, 4, 8, 16, 32, 64, 128, 250, 250]);
        // Nobody told of these.
        idle.saw(true);
        let pauses: Vec<_> = (0..7).map(|_| idle.next_pause().as_millis()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 20, 20]);
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
