//! Growing pauses between attempts, with jitter, so that relays do not retry in step. None is
//! longer than the configured maximum.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Pauses between attempts: each between half and the whole of a length that doubles from the first
/// to the last.
#[derive(Debug)]
pub(crate) struct Backoff {
    halves: ExponentialBuilder,
    pauses: ExponentialBackoff,
    last: Duration,
}

impl Backoff {
    /// Pauses from `first` to `last`.
    #[must_use]
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        // The jitter adds up to once the delay: the delays are the halves of the pauses.
        let halves = ExponentialBuilder::new()
            .with_min_delay(first / 2)
            .with_max_delay(last / 2)
            .without_max_times()
            .with_jitter();
        Self { halves, pauses: halves.build(), last }
    }

    /// The next pause.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.last)
    }

    /// Begins again with the first pause, after a success.
    pub(crate) fn reset(&mut self) {
        self.pauses = self.halves.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_millis(1_000);

    #[test]
    fn pauses_double_up_to_the_last_with_jitter_of_half_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(FIRST, LAST);
        for _ in 0..100 {
            for longest in [100, 200, 400, 800, 1_000, 1_000].map(Duration::from_millis) {
                let pause = backoff.next_delay();
                assert!((longest / 2..=longest).contains(&pause), "{pause:?} of {longest:?}");
            }
            backoff.reset();
        }
    }

    #[test]
    fn two_relays_that_fail_together_do_not_retry_together() {
        let pauses = |_| {
            let mut backoff = Backoff::new(LAST, LAST);
            [(); 8].map(|()| backoff.next_delay())
        };
        let [one, other] = [(), ()].map(pauses);
        assert_ne!(one, other);
    }
}
