//! What a run did, as its observers saw it: the writers, the tables, the consumers.

use uuid::Uuid;

/// Everything that was seen of one run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What writers tried, and what they were told.
    pub attempts: Vec<Attempt>,
    /// What the store has.
    pub recorded: Vec<Recorded>,
    /// What a consumer was given, in the order in which it was given.
    pub consumed: Vec<Consumed>,
}

/// One append, with all its repetitions.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// What the writer knows in the end.
    pub outcome: Outcome,
    /// Its events.
    pub events: Vec<AttemptedEvent>,
}

/// What a writer knows of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The store said that it is recorded.
    Acknowledged,
    /// Nobody said anything: recorded or not, but not half.
    Unknown,
    /// The store said that nothing is recorded.
    Refused,
    /// The writer rolled its transaction back.
    RolledBack,
}

/// An event that a writer wanted recorded.
#[derive(Debug, Clone)]
pub struct AttemptedEvent {
    /// Its id.
    pub id: Uuid,
    /// Its stream.
    pub stream: String,
    /// The version that the store answered with.
    pub version: Option<i64>,
}

/// An event in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its id.
    pub id: Uuid,
    /// Its stream.
    pub stream: String,
    /// Its number in the stream.
    pub version: i64,
    /// Its number in the store.
    pub position: i64,
    /// What was encoded.
    pub payload: Vec<u8>,
}

/// An event as it came from a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// Its id.
    pub id: Uuid,
    /// Its stream.
    pub stream: String,
    /// Its number in the stream.
    pub version: i64,
    /// What was encoded.
    pub payload: Vec<u8>,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}
