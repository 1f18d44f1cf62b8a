//! The pause before another try.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The longest pause before the second try; it doubles with each try.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Waits for a random part of the longest pause after so many tries ("full jitter").
pub(crate) async fn pause(tries: u32) {
    pause_up_to(PAUSE_MAX, tries).await;
}

/// The same with another bound.
pub(crate) async fn pause_up_to(pause_max: Duration, tries: u32) {
    tokio::time::sleep(longest(tries, pause_max).mul_f64(fraction())).await;
}

fn longest(tries: u32, pause_max: Duration) -> Duration {
    let doublings = tries.saturating_sub(1).min(16);
    (PAUSE_FIRST * 2_u32.saturating_pow(doublings)).min(pause_max)
}

/// A random number from 0 to 1: each `RandomState` has other keys.
fn fraction() -> f64 {
    let bits = RandomState::new().hash_one(0) >> 32;
    f64::from(u32::try_from(bits).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = [1, 2, 3, 8, 100].map(|tries| longest(tries, PAUSE_MAX).as_millis());
        assert_eq!(pauses, [1, 2, 4, 100, 100]);
    }

    #[test]
    fn two_tasks_do_not_pause_alike() {
        let fractions: Vec<f64> = (0..100).map(|_| fraction()).collect();
        assert!(fractions.iter().all(|fraction| (0.0..=1.0).contains(fraction)));
        let mean = fractions.iter().sum::<f64>() / 100.0;
        assert!((0.2..0.8).contains(&mean), "{mean}");
    }
}
