//! How long to wait when there is nothing to publish.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(1);

/// Pauses that double from a millisecond, until something was found again.
#[derive(Debug)]
pub(crate) struct Idle {
    next: Duration,
    last: Duration,
}

impl Idle {
    pub(crate) const fn new(last: Duration) -> Self {
        Self { next: FIRST, last }
    }

    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.next.min(self.last);
        self.next = (pause * 2).min(self.last);
        pause
    }

    /// A look for events has found some, or not.
    pub(crate) fn saw(&mut self, events: bool) {
        if events {
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
}
