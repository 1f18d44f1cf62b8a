//! The size of transactions: smaller after each that did not succeed in time, and larger again with
//! those that are committed. A quota or a slow link can make the configured size impossible.
//!
//! A size that has failed is tried again only after several commits just below it, and after twice
//! as many each time that it fails. So under a lasting quota little time is spent on transactions
//! that do not succeed.

use std::num::NonZeroUsize;

use crate::config;
use crate::model::batch::{BatchSize, Limits};

/// The configured size has so many parts; the smallest transaction has one.
const PARTS: u32 = 1_024;
/// The most commits before a size that has failed is tried again.
const PATIENCE_MAX: u32 = 32;

/// The present size of transactions. All sizes are in parts.
#[derive(Debug)]
pub(crate) struct ShrinkingBatch {
    max: Limits,
    parts: u32,
    /// The size that was first to fail after a commit, unless a larger one was committed since.
    failed: Option<u32>,
    /// The largest transaction that was committed since the last failure.
    committed: u32,
    /// The two transactions that were sent last: a failure is that of one of them.
    sent: [u32; 2],
    /// The number of commits at the present size.
    commits: u32,
    /// How many of them precede a larger size that can fail.
    patience: u32,
}

impl ShrinkingBatch {
    pub(crate) fn new(relay: &config::Relay) -> Self {
        Self {
            max: configured(relay),
            parts: PARTS,
            failed: None,
            committed: 0,
            sent: [0; 2],
            commits: 0,
            patience: 1,
        }
    }

    /// A transaction of this size begins.
    pub(crate) fn sends(&mut self, size: BatchSize) {
        let [_, last] = self.sent;
        self.sent = [last, self.parts_of(size)];
    }

    /// A transaction did not succeed. The next ones have half of its size, or the size of one that
    /// was committed, if that is larger; but not more records than Kafka has `acknowledged` of it,
    /// if that is known. Returns the limits.
    pub(crate) fn shrink(&mut self, acknowledged: Option<usize>) -> Limits {
        let sent = self.sent.into_iter().max().filter(|sent| *sent > 0);
        let size = sent.unwrap_or(self.parts).min(self.parts);
        let committed = std::mem::take(&mut self.committed);
        if committed > 0 {
            self.failed = Some(size);
        }
        self.parts = (size / 2).max(1);
        if (1..size).contains(&committed) {
            self.parts = self.parts.max(committed);
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
        }
        if let Some(events) = acknowledged {
            self.parts = self.parts.min(self.parts_of(BatchSize { events, bytes: 0 }));
        }
        self.commits = 0;
        self.limits()
    }

    /// A transaction of this size was committed: returns the limits, if they have grown.
    pub(crate) fn grow(&mut self, size: BatchSize) -> Option<Limits> {
        let size = self.parts_of(size).min(self.parts);
        self.committed = self.committed.max(size);
        // A small transaction does not show that the present size succeeds.
        if self.parts == PARTS || size.saturating_mul(4) < self.parts {
            return None;
        }
        self.commits += 1;
        let is_far_below = |failed: u32| self.parts.saturating_mul(4) <= failed;
        let is_risk = !self.failed.is_some_and(is_far_below);
        if is_risk && self.commits < self.patience {
            return None;
        }
        self.commits = 0;
        let step = if is_risk && self.failed.is_some() { self.parts / 8 } else { self.parts };
        if self.failed.is_none_or(|failed| failed <= self.parts) {
            // What made it fail seems to be over.
            self.failed = None;
            self.patience = (self.patience / 2).max(1);
        }
        self.parts = (self.parts + step.max(1)).min(PARTS);
        Some(self.limits())
    }

    /// Other sizes are configured: returns the limits.
    pub(crate) fn configure(&mut self, relay: &config::Relay) -> Limits {
        self.max = configured(relay);
        self.limits()
    }

    pub(crate) fn limits(&self) -> Limits {
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

    /// The parts that a transaction has, rounded up; at most [`PARTS`].
    fn parts_of(&self, BatchSize { events, bytes }: BatchSize) -> u32 {
        let parts = |size: usize, max: usize| {
            size.saturating_mul(usize::try_from(PARTS).unwrap_or(usize::MAX)).div_ceil(max.max(1))
        };
        let events = parts(events, self.max.events_max.get());
        let size = events.max(parts(bytes, self.max.bytes_max));
        u32::try_from(size).unwrap_or(PARTS).clamp(1, PARTS)
    }
}

fn configured(relay: &config::Relay) -> Limits {
    Limits { events_max: relay.batch_events_max, bytes_max: relay.batch_bytes_max }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The time after which a transaction has failed.
    const DEADLINE_S: f64 = 3.0;

    fn new() -> ShrinkingBatch {
        ShrinkingBatch::new(&Config::example().relay)
    }

    /// A transaction that is as large as the limits.
    fn largest(size: &ShrinkingBatch) -> BatchSize {
        let Limits { events_max, bytes_max } = size.limits();
        BatchSize { events: events_max.get(), bytes: bytes_max }
    }

    fn small() -> BatchSize {
        BatchSize { events: 1, bytes: 100 }
    }

    /// The largest transaction fails.
    fn fail(size: &mut ShrinkingBatch) -> Limits {
        size.sends(largest(size));
        size.shrink(None)
    }

    /// The largest transaction is committed.
    fn commit(size: &mut ShrinkingBatch) -> Option<Limits> {
        size.sends(largest(size));
        size.grow(largest(size))
    }

    /// Commits until the size is that of the configuration; returns their number.
    fn commits_to_full(size: &mut ShrinkingBatch) -> u32 {
        let mut commits = 0;
        while size.parts < PARTS {
            commits += 1;
            commit(size);
            assert!(size.limits().bytes_max <= 8_388_608);
        }
        commits
    }

    /// What became of some time under a quota.
    struct UnderQuota {
        published: f64,
        wasted_s: f64,
    }

    /// Largest transactions for so many seconds, if so many parts can be published in one.
    fn under_quota(size: &mut ShrinkingBatch, parts_per_s: f64, time_s: f64) -> UnderQuota {
        let mut of = UnderQuota { published: 0.0, wasted_s: 0.0 };
        let mut passed_s = 0.0;
        while passed_s < time_s {
            let parts = f64::from(size.parts);
            let took_s = parts / parts_per_s;
            if took_s > DEADLINE_S {
                fail(size);
                of.wasted_s += DEADLINE_S;
                passed_s += DEADLINE_S;
            } else {
                commit(size);
                of.published += parts;
                passed_s += took_s;
            }
        }
        of
    }

    #[test]
    fn a_transaction_is_never_tried_again_at_the_size_that_failed_and_grows_back() {
        let mut size = new();
        assert!(commit(&mut size).is_none(), "it has its largest size");
        let sizes: Vec<usize> = (0..14).map(|_| fail(&mut size).events_max.get()).collect();
        assert!(sizes.windows(2).all(|two| two[1] < two[0] || two[1] == 3), "{sizes:?}");
        let commits = commits_to_full(&mut size);
        assert!(commits < 20, "{commits}");
        assert_eq!(size.limits().bytes_max, 8_388_608);
    }

    #[test]
    fn half_of_a_transaction_is_tried_also_if_it_was_far_smaller_than_the_limits() {
        let mut size = new();
        size.sends(BatchSize { events: 80, bytes: 1 << 20 });
        size.sends(small());
        assert_eq!(size.shrink(None).bytes_max, 1 << 19);
    }

    #[test]
    fn it_has_no_more_records_than_were_acknowledged_in_time() {
        let mut size = new();
        size.sends(BatchSize { events: 1_000, bytes: 1 << 20 });
        let events = size.shrink(Some(20)).events_max.get();
        assert!((10..=30).contains(&events), "{events}");
        size.sends(BatchSize { events, bytes: 1 << 15 });
        assert_eq!(size.shrink(Some(0)).events_max.get(), 3, "the smallest size");
    }

    #[test]
    fn most_of_the_time_under_a_lasting_quota_is_spent_publishing() {
        for parts_per_s in [0.7, 5.0, 10.0, 33.0, 84.0, 200.0, 340.0] {
            let mut size = new();
            commit(&mut size);
            let UnderQuota { published, wasted_s } = under_quota(&mut size, parts_per_s, 600.0);
            assert!(wasted_s <= 60.0, "{parts_per_s}: {wasted_s}");
            assert!(published >= 0.9 * 600.0 * parts_per_s, "{parts_per_s}: {published}");
            let later = under_quota(&mut size, parts_per_s, 600.0);
            assert!(later.wasted_s <= 30.0, "{parts_per_s}: {}", later.wasted_s);
            let commits = commits_to_full(&mut size);
            assert!(commits < 150, "{parts_per_s}: {commits}");
        }
    }

    #[test]
    fn small_transactions_do_not_make_a_failed_size_likelier() {
        let mut size = new();
        commit(&mut size);
        fail(&mut size);
        fail(&mut size);
        commit(&mut size);
        let parts = size.parts;
        for _ in 0..1_000 {
            size.sends(small());
            assert!(size.grow(small()).is_none());
        }
        assert_eq!(size.parts, parts);
    }

    #[test]
    fn an_outage_does_not_delay_full_size_for_long() {
        let mut size = new();
        for _ in 0..20 {
            size.sends(small());
            size.grow(small());
        }
        (0..100).for_each(|_| {
            size.sends(small());
            size.shrink(None);
        });
        let commits = commits_to_full(&mut size);
        assert!(commits < 20, "{commits}");
    }
}
