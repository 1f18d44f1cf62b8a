//! The events that a replay publishes: fixed when it begins, and stored, so that a resumed one is
//! the same.

use annals_store::{Position, Version};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::quarantine::category_of;

/// Which events, to which topic, and the cursors that cover them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The side topic; none: the topics of the categories.
    pub(crate) target: Option<String>,
    pub(crate) parts: Vec<ReplayPart>,
    pub(crate) range: Range,
    pub(crate) covered: Covered,
}

/// The events of one category or of one stream, or some of a category. The order of each stream is
/// kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplayPart {
    /// A category.
    Category(String),
    /// A stream.
    Stream(String),
    /// Events of a category, in position order.
    Lost(LostEvents),
}

/// Published events of a category that are not in its topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LostEvents {
    pub(crate) category: String,
    pub(crate) positions: Vec<Position>,
}

/// Limits of a replay, each of which includes its ends but for the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) after: Position,
    pub(crate) until: Position,
    pub(crate) first_version: Option<Version>,
    pub(crate) last_version: Option<Version>,
    pub(crate) first_time: Option<Timestamp>,
    pub(crate) end_time: Option<Timestamp>,
}

/// The cursors that cover the events of a replay: those of the shards, and for quarantined streams
/// and categories their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Covered {
    pub(crate) shards: Vec<i16>,
    pub(crate) cursors: Vec<serde_json::Value>,
    pub(crate) entries: Vec<CoveredEntry>,
}

/// The cursor of a quarantined stream or category in one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CoveredEntry {
    pub(crate) shard: i16,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) cursor: serde_json::Value,
}

/// How far a replay is: written to Kafka in the transaction of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplayProgress {
    pub(super) format: u8,
    /// The part that is published.
    pub(crate) part: usize,
    /// The last published position of the part.
    pub(crate) after: Position,
    /// The number of published events.
    pub(crate) events: u64,
}

impl ReplayProgress {
    pub(crate) const FORMAT: u8 = 1;

    /// Before the first event.
    pub(crate) const fn begin() -> Self {
        Self { format: Self::FORMAT, part: 0, after: Position::ORIGIN, events: 0 }
    }

    /// Reads a record's value; none if it is not of this format.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|of: &Self| of.format == Self::FORMAT)
    }
}

impl ReplayPart {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Category(name) | Self::Stream(name) => name,
            Self::Lost(lost) => &lost.category,
        }
    }

    pub(crate) fn category(&self) -> &str {
        category_of(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_survives_the_way_to_kafka_and_another_format_is_none() {
        let progress = ReplayProgress { part: 2, events: 7, ..ReplayProgress::begin() };
        let bytes = serde_json::to_vec(&progress).unwrap();
        assert_eq!(ReplayProgress::from_bytes(&bytes), Some(progress));
        assert_eq!(
            ReplayProgress::from_bytes(br#"{"format":2,"part":0,"after":0,"events":0}"#),
            None
        );
    }
}
