//! Offsets and partitions of topics.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The number of a record in its partition.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub(crate) struct RecordOffset(i64);

impl RecordOffset {
    pub(crate) const fn new(number: i64) -> Self {
        Self(number)
    }

    pub(crate) const fn get(self) -> i64 {
        self.0
    }

    /// The offset of the next record.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The offset so many records before this one.
    pub(crate) const fn back(self, records: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(records))
    }

    /// The number of offsets from an earlier one to this one.
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0).unsigned_abs()
    }
}

impl fmt::Display for RecordOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The offsets of a partition from a first one to an end, which is behind the last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetRange {
    pub(crate) first: RecordOffset,
    pub(crate) end: RecordOffset,
}

/// The end offsets of topics, by topic and partition: each is the offset behind the last record.
pub(crate) type TopicEnds = HashMap<(String, i32), RecordOffset>;
/// The partitions of a topic with their offsets.
pub(crate) type Ends = Vec<(u16, OffsetRange)>;
/// Partitions of topics.
pub(crate) type Partitions = HashSet<(Arc<str>, i32)>;
