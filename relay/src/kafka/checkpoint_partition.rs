//! The partition of checkpoints: one generation of producers writes all of its checkpoints to the
//! same one. librdkafka sends the records of each partition in a request of their own, and a broker
//! takes these one after the other: so a transaction has one request for its checkpoints, and not
//! one for each shard.

use std::collections::BTreeSet;

use annals_relay_machine::{Lease, Shard};
use serde::{Deserialize, Serialize};

use crate::model::checkpoint::ShardCheckpoint;

/// The version of the pointer format: none of the checkpoint format.
const FORMAT: u8 = 2;

/// The partition that one generation of producers writes its checkpoints to.
///
/// The last record with the shard's key in the shard's own partition is its checkpoint, or a
/// [`CheckpointPointer`] to it. Only the owner of the shard writes either, and it writes the
/// pointer in the same transaction that moves the checkpoint to another partition: so a pointer
/// never leads to an older checkpoint.
#[derive(Debug, Default)]
pub(crate) struct CheckpointPartition {
    partition: Option<Shard>,
    /// The leases whose shards have a pointer to it. A shard that is acquired again has another
    /// lease: another owner may have moved its checkpoint in between.
    found: BTreeSet<Lease>,
}

/// The partitions of one transaction's checkpoints and pointers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CheckpointRoute {
    /// The partition of all checkpoints.
    pub(crate) partition: Shard,
    /// The shards that need a pointer in their own partitions.
    pub(crate) pointers: Vec<Shard>,
}

/// A record in a shard's own partition that names the partition of its checkpoint.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckpointPointer {
    format: u8,
    pub(crate) partition: u16,
}

impl CheckpointPartition {
    /// The route of the next transaction's checkpoints; none if it has no checkpoint.
    pub(crate) fn route(
        &mut self,
        checkpoints: &[(Lease, ShardCheckpoint)],
    ) -> Option<CheckpointRoute> {
        let leases = checkpoints.iter().map(|(lease, _)| *lease);
        let partition = *self.partition.get_or_insert(leases.clone().map(|l| l.shard).min()?);
        let is_new = |lease: &Lease| self.found.insert(*lease) && lease.shard != partition;
        let pointers = leases.filter(is_new).map(|lease| lease.shard).collect();
        Some(CheckpointRoute { partition, pointers })
    }
}

impl CheckpointPointer {
    pub(crate) const fn to(Shard(partition): Shard) -> Self {
        Self { format: FORMAT, partition }
    }

    /// Reads a record's value; none if it is no pointer.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|pointer: &Self| pointer.format == FORMAT)
    }
}

#[cfg(test)]
mod tests {
    use annals_store::outbox::History;
    use uuid::Uuid;

    use super::*;
    use crate::model::checkpoint::Cursor;

    fn routed(
        partition: &mut CheckpointPartition,
        leases: &[(u16, u64)],
    ) -> Option<(u16, Vec<u16>)> {
        let history = History {
            store_id: Uuid::nil(),
            number: 1,
            system_identifier: "7".into(),
            timeline: "00000001".into(),
        };
        let checkpoint = ShardCheckpoint::new(history, Cursor::origin(), Vec::new());
        let lease = |(shard, epoch): &(u16, u64)| Lease { shard: Shard(*shard), epoch: *epoch };
        let checkpoints: Vec<_> = leases.iter().map(|l| (lease(l), checkpoint.clone())).collect();
        let CheckpointRoute { partition, pointers } = partition.route(&checkpoints)?;
        Some((partition.0, pointers.into_iter().map(|Shard(shard)| shard).collect()))
    }

    #[test]
    fn all_checkpoints_go_to_one_partition_and_the_others_get_one_pointer() {
        let mut partition = CheckpointPartition::default();
        assert_eq!(routed(&mut partition, &[]), None);
        assert_eq!(routed(&mut partition, &[(5, 1), (2, 1)]), Some((2, vec![5])));
        assert_eq!(routed(&mut partition, &[(5, 1), (1, 1), (2, 1)]), Some((2, vec![1])));
        assert_eq!(routed(&mut partition, &[(5, 1)]), Some((2, vec![])));
    }

    #[test]
    fn a_shard_with_another_lease_gets_its_pointer_again() {
        let mut partition = CheckpointPartition::default();
        assert_eq!(routed(&mut partition, &[(2, 1), (5, 1)]), Some((2, vec![5])));
        assert_eq!(routed(&mut partition, &[(2, 3), (5, 3)]), Some((2, vec![5])));
    }

    #[test]
    fn a_signpost_is_told_from_a_checkpoint() {
        let written = serde_json::to_vec(&CheckpointPointer::to(Shard(3))).unwrap();
        assert_eq!(CheckpointPointer::from_bytes(&written), Some(CheckpointPointer::to(Shard(3))));
        assert_eq!(CheckpointPointer::from_bytes(br#"{"format":1,"partition":3}"#), None);
        assert_eq!(CheckpointPointer::from_bytes(b"3"), None);
    }
}
