//! Repeatable randomness.

/// A generator of pseudo-random numbers (SplitMix64) with a seed that a failing test prints.
#[derive(Debug, Clone)]
pub struct Dice {
    seed: u64,
    state: u64,
    is_shown: bool,
}

impl Dice {
    /// A generator with the seed of `ANNALS_TEST_SEED`, or with a new one. A panicking test prints
    /// the seed.
    ///
    /// # Panics
    /// If `ANNALS_TEST_SEED` is not a number.
    #[must_use]
    pub fn of_this_run() -> Self {
        let seed = match std::env::var("ANNALS_TEST_SEED") {
            Ok(text) => {
                text.parse().unwrap_or_else(|_| panic!("ANNALS_TEST_SEED={text} is not a number"))
            }
            Err(_unset) => uuid::Uuid::new_v4().as_u64_pair().0,
        };
        Self { is_shown: true, ..Self::with_seed(seed) }
    }

    /// A generator with this seed.
    #[must_use]
    pub const fn with_seed(seed: u64) -> Self {
        Self { seed, state: seed, is_shown: false }
    }

    /// A second generator, for another task, derived from this one.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self::with_seed(self.next())
    }

    /// A number from 0 to `limit` - 1, all about equally likely.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % limit).unwrap_or(0)
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Drop for Dice {
    fn drop(&mut self) {
        if self.is_shown && std::thread::panicking() {
            eprintln!("to throw the same dice again: ANNALS_TEST_SEED={}", self.seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same_numbers_and_another_seed_others() {
        let throw = |seed| {
            let mut dice = Dice::with_seed(seed);
            (0..20).map(|_| dice.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(throw(7), throw(7));
        assert_ne!(throw(7), throw(8));
        assert!(throw(7).iter().all(|number| *number < 1_000));
    }
}
