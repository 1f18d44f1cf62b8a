//! Offsets and partitions of topics.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The offsets of a partition from a first one to an end, which is behind the last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetRange {
    pub(crate) first: i64,
    pub(crate) end: i64,
}

/// The end offsets of topics, by topic and partition: each is the offset behind the last record.
pub(crate) type TopicEnds = HashMap<(String, i32), i64>;
/// The partitions of a topic with their offsets.
pub(crate) type Ends = Vec<(u16, OffsetRange)>;
/// Partitions of topics.
pub(crate) type Partitions = HashSet<(Arc<str>, i32)>;
