//! How far a projection has come: in partitions and in streams.

use uuid::Uuid;

use crate::position::{Offset, OwnerEpoch, RecordLocation, Version};

/// How far a projection has read a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The record to read next.
    pub next: RecordLocation,
    /// The identity of the record before it; `None` if nothing was read.
    pub last_event: Option<Uuid>,
    /// Rises with each new owner of the partition.
    pub owner_epoch: OwnerEpoch,
}

/// The change of a partition's next offset: from `expected` to that of `next`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetUpdate {
    /// The next offset before.
    pub expected: Offset,
    /// The record to read next.
    pub next: RecordLocation,
    /// The identity of the record before it.
    pub last_event: Uuid,
    /// The epoch that the owner got; an owner with another one writes nothing.
    pub owner_epoch: OwnerEpoch,
}

/// The number of event ids that are kept of each stream: those of its last events.
pub(crate) const IDS_MAX: usize = 8;

/// The last events applied of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastApplied {
    version: Version,
    /// Those of this version and those before it, the last first; nil behind `count`.
    event_ids: [Uuid; IDS_MAX],
    count: usize,
}

impl LastApplied {
    /// A stream whose last applied version is this one. `event_ids` are those of this version and
    /// those before it, the last first; no more than 8 are kept.
    #[must_use]
    pub fn new(version: Version, event_ids: &[Uuid]) -> Self {
        let mut kept = [Uuid::nil(); IDS_MAX];
        let count = event_ids.len().min(IDS_MAX);
        kept[..count].copy_from_slice(&event_ids[..count]);
        Self { version, event_ids: kept, count }
    }

    /// The last applied version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The ids of the events of this version and those before it, the last first; at most 8.
    #[must_use]
    pub fn event_ids(&self) -> &[Uuid] {
        &self.event_ids[..self.count]
    }

    pub(crate) fn event_id(&self, version: Version) -> Option<Uuid> {
        let back = self.version.get().checked_sub(version.get())?;
        self.event_ids().get(usize::try_from(back).ok()?).copied()
    }

    pub(crate) fn advance(&mut self, version: Version, event_id: Uuid) {
        // The ids are those of adjacent versions.
        if version != self.version.next() {
            *self = Self::new(version, &[event_id]);
            return;
        }
        self.version = version;
        self.event_ids.rotate_right(1);
        self.event_ids[0] = event_id;
        self.count = (self.count + 1).min(IDS_MAX);
    }
}
