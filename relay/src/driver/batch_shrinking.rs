//! The size of transactions: smaller after each that did not succeed in time, and larger again with
//! each that is committed. A quota or a slow link can make the configured size impossible.

use std::num::NonZeroUsize;

use crate::config;
use crate::model::batch::Limits;

/// The configured size has so many parts; the smallest transaction has one.
const PARTS: u32 = 1_024;
/// The parts by which a transaction grows beyond half of the size that did not succeed.
const STEP: u32 = PARTS / 64;

/// The present size of transactions.
#[derive(Debug)]
pub(super) struct ShrinkingBatch {
    max: Limits,
    parts: u32,
    /// The size that did not succeed.
    failed: u32,
    has_failed: bool,
}

impl ShrinkingBatch {
    pub(super) fn new(relay: &config::Relay) -> Self {
        Self { max: configured(relay), parts: PARTS, failed: PARTS, has_failed: false }
    }

    /// A transaction did not succeed: half of it is tried next. Returns the limits.
    pub(super) fn halve(&mut self) -> Limits {
        if !std::mem::replace(&mut self.has_failed, true) {
            self.failed = self.parts;
        }
        self.parts = (self.parts / 2).max(1);
        self.limits()
    }

    /// A transaction was committed: returns the limits, if they have grown.
    pub(super) fn grow(&mut self) -> Option<Limits> {
        self.has_failed = false;
        if self.parts == PARTS {
            return None;
        }
        let is_far_below = self.parts.saturating_mul(4) <= self.failed;
        let grown = if is_far_below { self.parts * 2 } else { self.parts + STEP };
        self.parts = grown.min(PARTS);
        Some(self.limits())
    }

    /// Other sizes are configured: returns the limits.
    pub(super) fn configure(&mut self, relay: &config::Relay) -> Limits {
        self.max = configured(relay);
        self.limits()
    }

    pub(super) fn limits(&self) -> Limits {
        let part = |max: usize| {
            let parts = usize::try_from(self.parts).unwrap_or(usize::MAX);
            max.saturating_mul(parts) / usize::try_from(PARTS).unwrap_or(usize::MAX)
        };
        let events_max = NonZeroUsize::new(part(self.max.events_max.get()));
        Limits {
            events_max: events_max.unwrap_or(NonZeroUsize::MIN),
            bytes_max: part(self.max.bytes_max).max(1),
        }
    }
}

fn configured(relay: &config::Relay) -> Limits {
    Limits { events_max: relay.batch_events_max, bytes_max: relay.batch_bytes_max }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_transaction_is_never_tried_again_at_the_size_that_failed_and_grows_back() {
        let mut size = ShrinkingBatch::new(&Config::example().relay);
        assert!(size.grow().is_none(), "it has its largest size");
        let sizes: Vec<usize> = (0..14).map(|_| size.halve().events_max.get()).collect();
        assert!(sizes.windows(2).all(|two| two[1] < two[0] || two[1] == 3), "{sizes:?}");
        let mut commits = 0;
        while let Some(limits) = size.grow() {
            commits += 1;
            assert!(limits.bytes_max <= 8_388_608);
        }
        assert!(commits < 80, "{commits}");
        assert_eq!(size.limits().bytes_max, 8_388_608);
    }

    #[test]
    fn growing_comes_slowly_to_the_size_that_failed() {
        let mut size = ShrinkingBatch::new(&Config::example().relay);
        size.halve();
        size.grow();
        assert_eq!(size.parts, 512 + STEP);
    }
}
