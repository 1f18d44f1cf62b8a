//! The findings of an audit about events and records.

use std::fmt;

use annals_store::{Position, Version};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// One event or one record, with its known facts. Printed as a line of text, or as a JSON
/// object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub(crate) enum Finding {
    /// The event is published, in this record.
    Published(FoundRecord),
    /// The event will be published: no checkpoint covers it yet, or its quarantine has ended.
    Waiting(FoundEvent),
    /// The event waits for its quarantined stream or category.
    Quarantined {
        /// The event.
        #[serde(flatten)]
        event: FoundEvent,
        /// `stream` or `category`.
        kind: String,
        /// The name of the stream or the category.
        name: String,
        /// The cause of the quarantine.
        cause: String,
        /// The component's own words.
        reason: String,
    },
    /// An operator has skipped the event.
    Skipped {
        /// The event.
        #[serde(flatten)]
        event: FoundEvent,
        /// The operator's reason.
        reason: Option<String>,
        /// The operator.
        skipped_by: Option<String>,
    },
    /// The event counts as published, and no record has it.
    Lost {
        /// The event.
        #[serde(flatten)]
        event: FoundEvent,
        /// The topic in which it is missing.
        topic: String,
        /// The partition of its stream; none if the topic does not exist.
        partition: Option<i32>,
        /// The probable cause.
        cause: LossCause,
    },
    /// An earlier record has the same event.
    Duplicate(FoundRecord),
    /// A later version of the stream is in an earlier record.
    Inversion {
        /// The record.
        #[serde(flatten)]
        record: FoundRecord,
        /// The position of that later version.
        later_position: Position,
    },
    /// The record differs from its event in stream, version or value.
    Changed(FoundRecord),
    /// The store never had an event with the record's id.
    Unknown(FoundRecord),
    /// The record is in another partition than its stream belongs to.
    Misplaced {
        /// The record.
        #[serde(flatten)]
        record: FoundRecord,
        /// The partition of its stream.
        expected_partition: i32,
    },
}

/// An event of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FoundEvent {
    pub(crate) position: Position,
    pub(crate) stream: String,
    pub(crate) version: Version,
    pub(crate) event_id: Uuid,
    pub(crate) category: String,
    pub(crate) recorded_at: Timestamp,
}

/// A record of a topic. A missing header is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FoundRecord {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) stream: Option<String>,
    pub(crate) version: Option<Version>,
    pub(crate) event_id: Option<Uuid>,
    pub(crate) position: Option<Position>,
    /// Whether a replay wrote it.
    pub(crate) is_replayed: bool,
}

/// Why a published event may be missing in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LossCause {
    /// The topic does not exist.
    TopicMissing,
    /// The topic ends before an offset that a relay has recorded: it was deleted and created again.
    TopicRecreated,
    /// The first records of the partition were deleted: a retention time, or a deletion by hand.
    RecordsDeleted,
    /// The partition has records from its beginning, and not this one: an aborted hanging
    /// transaction, an unclean election, or a topic that was created again and has grown since.
    NotInTopic,
}

impl LossCause {
    const fn describe(self) -> &'static str {
        match self {
            Self::TopicMissing => "the topic does not exist",
            Self::TopicRecreated => "the topic was deleted and created again",
            Self::RecordsDeleted => "the first records of the partition were deleted",
            Self::NotInTopic => "no record of the partition has it",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published(record) => write!(f, "published    {record}"),
            Self::Waiting(event) => write!(f, "waiting      {event}"),
            Self::Quarantined { event, kind, name, cause, .. } => {
                write!(f, "quarantined  {event}: {kind} {name}, cause {cause}")
            }
            Self::Skipped { event, reason, skipped_by } => {
                let (by, reason) =
                    (skipped_by.as_deref().unwrap_or("-"), reason.as_deref().unwrap_or("-"));
                write!(f, "skipped      {event}: by {by}, {reason}")
            }
            Self::Lost { event, topic, partition, cause } => {
                let partition = partition.map_or_else(String::new, |number| format!("[{number}]"));
                write!(f, "lost         {event} in {topic}{partition}: {}", cause.describe())
            }
            Self::Duplicate(record) => {
                write!(f, "duplicate    {record}: an earlier record has this event")
            }
            Self::Inversion { record, later_position } => {
                write!(
                    f,
                    "inversion    {record}: the later version at position {later_position} is before it"
                )
            }
            Self::Changed(record) => write!(f, "changed      {record}: it differs from its event"),
            Self::Unknown(record) => {
                write!(f, "unknown      {record}: the store never had this event")
            }
            Self::Misplaced { record, expected_partition } => {
                write!(
                    f,
                    "misplaced    {record}: its stream belongs to partition {expected_partition}"
                )
            }
        }
    }
}

impl fmt::Display for FoundEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, stream, version, event_id, .. } = self;
        write!(f, "{stream} version {version} (position {position}, event {event_id})")
    }
}

impl fmt::Display for FoundRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, offset, stream, version, event_id, .. } = self;
        write!(f, "{topic}[{partition}]@{offset} {}", stream.as_deref().unwrap_or("(no key)"))?;
        if let Some(version) = version {
            write!(f, " version {version}")?;
        }
        event_id.map_or(Ok(()), |id| write!(f, " (event {id})"))
    }
}
