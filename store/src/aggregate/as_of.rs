//! The moment of a stream up to which an aggregate is loaded.

use jiff::Timestamp;

use crate::event::RecordedEvent;
use crate::stream::{Position, Version};

/// The last event of a stream that counts: by its version, its time of recording or its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AsOf {
    /// The event of this version.
    Version(Version),
    /// The last event before the first one that was recorded later than this time, by the
    /// database's clock, in microseconds.
    Time(Timestamp),
    /// The last event at or below this position. The position of an append gives each of its
    /// streams as it was after the append.
    Position(Position),
}

impl AsOf {
    /// Whether an event is behind the moment.
    pub(crate) fn excludes(self, event: &RecordedEvent) -> bool {
        match self {
            Self::Version(version) => event.version > version,
            Self::Time(time) => event.recorded_at > time,
            Self::Position(position) => event.position > position,
        }
    }
}

impl From<Version> for AsOf {
    fn from(version: Version) -> Self {
        Self::Version(version)
    }
}

impl From<Timestamp> for AsOf {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

impl From<Position> for AsOf {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}
