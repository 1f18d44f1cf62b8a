//! The numbers of an event, and the location of its record.

use std::fmt;
use std::sync::Arc;

/// The number of an event within its stream, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(i64);

/// The number of an event within its store: grows, with gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(i64);

/// The number of a record within its partition, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(i64);

/// The number of an owner of a partition: rises with each new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerEpoch(i64);

/// The topic, partition and offset of a record. Displays as `topic[partition]@offset`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordLocation {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: i32,
    /// The offset within the partition.
    pub offset: Offset,
}

/// A topic and the number of one of its partitions.
pub(crate) type TopicPartition = (Arc<str>, i32);

impl RecordLocation {
    pub(crate) fn topic_partition(&self) -> TopicPartition {
        (Arc::clone(&self.topic), self.partition)
    }

    pub(crate) fn is_in_partition_of(&self, other: &Self) -> bool {
        self.partition == other.partition && self.topic == other.topic
    }

    /// The location behind this one in the same partition.
    pub(crate) fn next(&self) -> Self {
        Self { offset: self.offset.next(), ..self.clone() }
    }
}

/// The common parts of the numbers.
macro_rules! number_from_zero {
    ($name:ident, $new:literal) => {
        impl $name {
            /// The first one.
            pub const ZERO: Self = Self(0);

            #[doc = $new]
            #[must_use]
            pub const fn new(number: i64) -> Option<Self> {
                if number < 0 { None } else { Some(Self(number)) }
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_from_zero!(Version, "A version, unless the number is negative.");
number_from_zero!(Position, "A position, unless the number is negative.");
number_from_zero!(Offset, "An offset, unless the number is negative.");
number_from_zero!(OwnerEpoch, "An epoch, unless the number is negative.");

impl Version {
    /// The version before this one; none before version 0.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        Self::new(self.0 - 1)
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Offset {
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub(crate) fn previous(self) -> Self {
        Self((self.0 - 1).max(0))
    }
}

impl fmt::Display for RecordLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, offset } = self;
        write!(f, "{topic}[{partition}]@{offset}")
    }
}
