//! Growing pauses between attempts, with jitter, so that relays do not retry in step. None is
//! longer than the configured maximum.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Pauses between attempts: each between half and the whole of a length that doubles from the first
/// to the last.
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
    random: Box<dyn FnMut() -> u32 + Send>,
}

impl Backoff {
    /// Pauses from `first` to `last`.
    #[must_use]
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        let mut drawn = 0_u32;
        // The operating system keys it anew in each process: random enough.
        let keys = RandomState::new();
        let random = move || {
            drawn = drawn.wrapping_add(1);
            let [a, b, c, d, ..] = keys.hash_one(drawn).to_le_bytes();
            u32::from_le_bytes([a, b, c, d])
        };
        Self::with(first, last, random)
    }

    /// The same with another source of random numbers.
    fn with(first: Duration, last: Duration, random: impl FnMut() -> u32 + Send + 'static) -> Self {
        Self { first, last, next: first, random: Box::new(random) }
    }

    /// The next pause.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let longest = self.next;
        self.next = self.next.saturating_mul(2).min(self.last);
        let half = longest / 2;
        half + half.mul_f64(f64::from((self.random)()) / f64::from(u32::MAX))
    }

    /// Begins again with the first pause, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

impl std::fmt::Debug for Backoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { first, last, next, random: _ } = self;
        f.debug_struct("Backoff")
            .field("first", first)
            .field("last", last)
            .field("next", next)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_millis(1_000);

    fn millis(backoff: &mut Backoff, pauses: usize) -> Vec<u128> {
        (0..pauses).map(|_| backoff.next_delay().as_millis()).collect()
    }

    #[test]
    fn pauses_double_up_to_the_last_and_start_over_after_a_success() {
        let mut longest = Backoff::with(FIRST, LAST, || u32::MAX);
        assert_eq!(millis(&mut longest, 6), [100, 200, 400, 800, 1_000, 1_000]);
        longest.reset();
        assert_eq!(millis(&mut longest, 2), [100, 200]);
    }

    #[test]
    fn jitter_shortens_a_pause_by_at_most_half() {
        let mut shortest = Backoff::with(FIRST, LAST, || 0);
        assert_eq!(millis(&mut shortest, 6), [50, 100, 200, 400, 500, 500]);
    }

    #[test]
    fn two_relays_that_fail_together_do_not_retry_together() {
        let pauses = |_| millis(&mut Backoff::new(LAST, LAST), 8);
        let [one, other] = [(), ()].map(pauses);
        assert_ne!(one, other);
    }
}
