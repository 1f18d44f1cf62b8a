//! Where checkpoints stand in their topic: those of one generation of producers together, in one partition. librdkafka
//! sends the records of each partition in a request of their own, which a broker takes one after the other: a
//! transaction has one for its checkpoints this way, not one for each shard.

use std::collections::BTreeSet;

use annals_relay_machine::{Lease, Shard};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;

/// The form in which signposts are written: none that checkpoints have.
const FORMAT: u8 = 2;

/// The partition that one generation of producers writes its checkpoints to.
///
/// Whoever looks for the checkpoint of a shard looks into the shard's own partition first: the last record with the
/// shard's key is the checkpoint, or a [`Signpost`] to it. Both are written only by who owns the shard, one after the
/// other, and the signpost in the very transaction that moves the checkpoint: so it never leads to an older one.
#[derive(Debug, Default)]
pub(crate) struct Home {
    partition: Option<Shard>,
    /// Those whose checkpoints are found from their own partitions. A shard that is taken again has another lease, for
    /// somebody else may have moved its checkpoint in between.
    found: BTreeSet<Lease>,
}

/// Where the checkpoints of one transaction go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Placing {
    /// The partition of all of them.
    pub(crate) partition: Shard,
    /// The shards in whose own partitions that is to be said.
    pub(crate) signposts: Vec<Shard>,
}

/// Stands in a shard's own partition, and says in which one its checkpoint is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signpost {
    format: u8,
    pub(crate) partition: u16,
}

impl Home {
    /// For the next transaction; none when it has no checkpoint.
    pub(crate) fn place(&mut self, checkpoints: &[(Lease, Checkpoint)]) -> Option<Placing> {
        let leases = checkpoints.iter().map(|(lease, _)| *lease);
        let partition = *self.partition.get_or_insert(leases.clone().map(|l| l.shard).min()?);
        let is_new = |lease: &Lease| self.found.insert(*lease) && lease.shard != partition;
        let signposts = leases.filter(is_new).map(|lease| lease.shard).collect();
        Some(Placing { partition, signposts })
    }
}

impl Signpost {
    pub(crate) const fn to(Shard(partition): Shard) -> Self {
        Self { format: FORMAT, partition }
    }

    /// Reads a record's value; none when it is something else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|signpost: &Self| signpost.format == FORMAT)
    }
}

#[cfg(test)]
mod tests {
    use annals_store::outbox::History;
    use uuid::Uuid;

    use super::*;
    use crate::checkpoint::Place;

    fn placed(home: &mut Home, leases: &[(u16, u64)]) -> Option<(u16, Vec<u16>)> {
        let history = History {
            store_id: Uuid::nil(),
            number: 1,
            system_identifier: "7".into(),
            timeline: "00000001".into(),
        };
        let checkpoint = Checkpoint::new(history, Place::origin(), Vec::new());
        let lease = |(shard, epoch): &(u16, u64)| Lease { shard: Shard(*shard), epoch: *epoch };
        let checkpoints: Vec<_> = leases.iter().map(|l| (lease(l), checkpoint.clone())).collect();
        let Placing { partition, signposts } = home.place(&checkpoints)?;
        Some((partition.0, signposts.into_iter().map(|Shard(shard)| shard).collect()))
    }

    #[test]
    fn all_go_to_one_partition_and_the_others_say_so_once() {
        let mut home = Home::default();
        assert_eq!(placed(&mut home, &[]), None);
        assert_eq!(placed(&mut home, &[(5, 1), (2, 1)]), Some((2, vec![5])));
        assert_eq!(placed(&mut home, &[(5, 1), (1, 1), (2, 1)]), Some((2, vec![1])));
        assert_eq!(placed(&mut home, &[(5, 1)]), Some((2, vec![])));
    }

    #[test]
    fn a_shard_that_was_somebody_elses_in_between_is_told_of_again() {
        let mut home = Home::default();
        assert_eq!(placed(&mut home, &[(2, 1), (5, 1)]), Some((2, vec![5])));
        assert_eq!(placed(&mut home, &[(2, 3), (5, 3)]), Some((2, vec![5])));
    }

    #[test]
    fn a_signpost_is_told_from_a_checkpoint() {
        let written = serde_json::to_vec(&Signpost::to(Shard(3))).unwrap();
        assert_eq!(Signpost::from_bytes(&written), Some(Signpost::to(Shard(3))));
        assert_eq!(Signpost::from_bytes(br#"{"format":1,"partition":3}"#), None);
        assert_eq!(Signpost::from_bytes(b"3"), None);
    }
}
