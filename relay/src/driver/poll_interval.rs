//! The interval at which an idle relay polls for events.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(1);
/// The longest pause while notifications arrive, which end it before; a lost notification costs no
/// more than this.
const LAST_NOTIFIED: Duration = Duration::from_millis(250);

/// Whether a poll has found events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageRead {
    /// It has.
    Events,
    /// It has not.
    Nothing,
}

/// Pauses that double from a millisecond, until a poll finds events.
#[derive(Debug)]
pub(crate) struct PollInterval {
    next: Duration,
    last: Duration,
    /// Whether a notification announced the last events that an idle relay found, and not its own
    /// poll. True before the first ones.
    is_notified: bool,
}

impl PollInterval {
    pub(crate) const fn new(last: Duration) -> Self {
        Self { next: FIRST, last, is_notified: true }
    }

    pub(crate) fn next_pause(&mut self) -> Duration {
        let last = if self.is_notified { self.last.max(LAST_NOTIFIED) } else { self.last };
        let pause = self.next.min(last);
        self.next = (pause * 2).min(last);
        pause
    }

    /// A notification has arrived.
    pub(crate) fn notified(&mut self) {
        self.is_notified = true;
        self.next = FIRST;
    }

    /// A page was read.
    pub(crate) fn page_read(&mut self, found: PageRead) {
        if found == PageRead::Events {
            // Found after a long pause without a notification: perhaps none arrive.
            self.is_notified &= self.next <= self.last;
            self.next = FIRST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(interval: &mut PollInterval, count: usize) -> Vec<u128> {
        (0..count).map(|_| interval.next_pause().as_millis()).collect()
    }

    #[test]
    fn pauses_double_up_to_the_last_and_begin_again_when_something_is_found() {
        let mut interval = PollInterval::new(Duration::from_millis(20));
        interval.is_notified = false;
        assert_eq!(millis(&mut interval, 7), [1, 2, 4, 8, 16, 20, 20]);
        interval.page_read(PageRead::Nothing);
        assert_eq!(millis(&mut interval, 1), [20]);
        interval.page_read(PageRead::Events);
        assert_eq!(millis(&mut interval, 1), [1]);
    }

    #[test]
    fn pauses_grow_longer_until_events_come_without_a_notification() {
        let mut interval = PollInterval::new(Duration::from_millis(20));
        assert_eq!(millis(&mut interval, 10), [1, 2, 4, 8, 16, 32, 64, 128, 250, 250]);
        interval.page_read(PageRead::Events);
        assert_eq!(millis(&mut interval, 7), [1, 2, 4, 8, 16, 20, 20]);
        interval.notified();
        assert_eq!(millis(&mut interval, 9).last(), Some(&250));
    }

    #[test]
    fn notified_events_keep_the_pauses_long() {
        let mut interval = PollInterval::new(Duration::from_millis(20));
        for _ in 0..2 {
            interval.notified();
            interval.page_read(PageRead::Events);
            let last = (0..9).map(|_| interval.next_pause()).last();
            assert_eq!(last, Some(LAST_NOTIFIED));
        }
    }
}
