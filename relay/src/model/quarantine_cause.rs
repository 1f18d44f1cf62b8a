//! The kinds of quarantine entries, and their causes.

use std::fmt;

use serde::Serialize;

/// The quarantined object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One stream: one of its events is refused.
    Stream,
    /// One category: its topic, an id of its schemas, or many of its streams are in the way.
    Category,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Category => "category",
        })
    }
}

/// Why a stream or a category is quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Kafka refuses the record.
    Record,
    /// The registry refuses the schema or lacks it, or its definition cannot be parsed.
    Schema,
    /// The row of the event has content that no append writes.
    Event,
    /// The topic is missing, unfit, or another publication's.
    Topic,
    /// The registry gives no id of a new schema.
    Registry,
}

impl Cause {
    pub(crate) const ALL: [Self; 5] =
        [Self::Record, Self::Schema, Self::Event, Self::Topic, Self::Registry];

    /// The id in the log, the tables and the metrics.
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Schema => "schema",
            Self::Event => "event",
            Self::Topic => "topic",
            Self::Registry => "registry",
        }
    }
}
