//! The partitions that a runner may update, with their next offsets.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::position::{Offset, OwnerEpoch, RecordLocation, TopicPartition};
use crate::progress::{OffsetUpdate, PartitionProgress};

/// Interval in which the group is told the next offsets.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// The partitions of one runner.
#[derive(Debug)]
pub(crate) struct OwnedPartitions {
    owned: HashMap<TopicPartition, OwnedPartition>,
    /// Partitions whose offsets have changed since they were shown.
    unshown: HashSet<TopicPartition>,
    show_due: Instant,
}

#[derive(Debug, Clone, Copy)]
struct OwnedPartition {
    next: Offset,
    owner_epoch: OwnerEpoch,
}

impl OwnedPartitions {
    pub(crate) fn new() -> Self {
        Self { owned: HashMap::new(), unshown: HashSet::new(), show_due: Instant::now() }
    }

    pub(crate) fn add(&mut self, progress: &[PartitionProgress]) {
        for PartitionProgress { next, owner_epoch, .. } in progress {
            self.set(next, *owner_epoch);
        }
    }

    pub(crate) fn remove(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.owned.remove(partition);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.owned.clear();
    }

    /// The updates that a batch with these last records makes.
    pub(crate) fn updates(
        &self,
        ends: &HashMap<TopicPartition, (Offset, Uuid)>,
    ) -> Vec<OffsetUpdate> {
        let updates = ends.iter().map(|(key, &(offset, last_event))| {
            let (topic, partition) = key.clone();
            // No owner has this epoch.
            let unknown = OwnedPartition { next: Offset::ZERO, owner_epoch: OwnerEpoch::ZERO };
            let OwnedPartition { next: expected, owner_epoch } =
                self.owned.get(key).copied().unwrap_or(unknown);
            let next = RecordLocation { topic, partition, offset: offset.next() };
            OffsetUpdate { expected, next, last_event, owner_epoch }
        });
        let mut updates: Vec<OffsetUpdate> = updates.collect();
        updates.sort_by(|a, b| a.next.cmp(&b.next));
        updates
    }

    pub(crate) fn record(&mut self, updates: &[OffsetUpdate]) {
        for OffsetUpdate { next, owner_epoch, .. } in updates {
            self.set(next, *owner_epoch);
        }
    }

    fn set(&mut self, next: &RecordLocation, owner_epoch: OwnerEpoch) {
        let owned = OwnedPartition { next: next.offset, owner_epoch };
        self.owned.insert(next.topic_partition(), owned);
        self.unshown.insert(next.topic_partition());
    }

    /// The changed next offsets, at most once in [`SHOW_INTERVAL`].
    pub(crate) fn take_to_show(&mut self) -> Vec<RecordLocation> {
        if Instant::now() < self.show_due { Vec::new() } else { self.take_all_to_show() }
    }

    /// The changed next offsets.
    pub(crate) fn take_all_to_show(&mut self) -> Vec<RecordLocation> {
        self.show_due = Instant::now() + SHOW_INTERVAL;
        let changed = std::mem::take(&mut self.unshown).into_iter();
        let next = changed.filter_map(|key| {
            let offset = self.owned.get(&key)?.next;
            Some(RecordLocation { topic: key.0, partition: key.1, offset })
        });
        next.collect()
    }
}
