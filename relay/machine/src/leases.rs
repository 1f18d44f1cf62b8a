//! Leases: which session publishes which shard.

use std::collections::BTreeSet;

/// A part of the outbox: all streams with the same hash of their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

/// A shard with the epoch in which it was acquired. Each acquisition makes a new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The shard.
    pub shard: Shard,
    /// The epoch.
    pub epoch: u64,
}

/// The leases of a deployment at one moment, as a session sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Leases {
    /// The leases of this session.
    pub mine: Vec<Lease>,
    /// Shards without an owner.
    pub free: Vec<Shard>,
    /// The number of ready sessions, this one included.
    pub members: u16,
    /// The number of them that joined before this one.
    pub rank: u16,
}

impl Leases {
    /// The number of shards that this session should own: the same for all sessions, and one more
    /// for the first ones if the division leaves a rest.
    fn share(&self, shards: usize) -> usize {
        let members = usize::from(self.members.max(1));
        shards / members + usize::from(usize::from(self.rank) < shards % members)
    }

    /// The free shards to acquire, the lowest first.
    #[must_use]
    pub fn to_acquire(&self, shards: usize) -> Vec<Shard> {
        let lacking = self.share(shards).saturating_sub(self.mine.len());
        let free: BTreeSet<Shard> = self.free.iter().copied().collect();
        free.into_iter().take(lacking).collect()
    }

    /// The shards to release, the highest first.
    #[must_use]
    pub fn to_release(&self, shards: usize) -> Vec<Shard> {
        let surplus = self.mine.len().saturating_sub(self.share(shards));
        let mine: BTreeSet<Shard> = self.mine.iter().map(|lease| lease.shard).collect();
        mine.into_iter().rev().take(surplus).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(mine: std::ops::Range<u16>, free: std::ops::Range<u16>, who: (u16, u16)) -> Leases {
        let lease = |number| Lease { shard: Shard(number), epoch: 1 };
        let (rank, members) = who;
        Leases { mine: mine.map(lease).collect(), free: free.map(Shard).collect(), members, rank }
    }

    #[test]
    fn a_single_session_acquires_all_shards() {
        assert_eq!(leases(0..0, 0..8, (0, 1)).to_acquire(8).len(), 8);
    }

    #[test]
    fn shares_add_up_to_all_shards_whatever_the_number_of_members() {
        for members in 1..12 {
            let share = |rank| leases(0..0, 0..8, (rank, members)).share(8);
            let shares: Vec<usize> = (0..members).map(share).collect();
            assert_eq!(shares.iter().sum::<usize>(), 8, "{shares:?}");
            assert!(shares[0] - shares[shares.len() - 1] <= 1, "{shares:?}");
        }
    }

    #[test]
    fn the_highest_shards_are_released_and_the_lowest_free_ones_acquired() {
        assert_eq!(leases(0..8, 0..0, (0, 3)).to_release(8), [7, 6, 5, 4, 3].map(Shard));
        assert_eq!(leases(0..1, 3..8, (1, 3)).to_acquire(8), [3, 4].map(Shard));
        assert!(leases(0..3, 3..8, (1, 3)).to_release(8).is_empty());
    }
}
