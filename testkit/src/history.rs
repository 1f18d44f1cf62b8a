//! The record of a run, as its observers saw it: the writers, the tables, the consumers.

use uuid::Uuid;

/// All observations of one run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The writers' attempts, and the answers they received.
    pub attempts: Vec<Attempt>,
    /// The events in the store.
    pub recorded: Vec<Recorded>,
    /// The events that a consumer received, in the order in which it received them.
    pub consumed: Vec<Consumed>,
}

/// One append, with all its repetitions.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The outcome as the writer knows it.
    pub outcome: Outcome,
    /// Its events.
    pub events: Vec<AttemptedEvent>,
}

/// A writer's knowledge of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The store answered that it is recorded.
    Acknowledged,
    /// There was no answer: all recorded or nothing, never half.
    Unknown,
    /// The store answered that nothing is recorded.
    Refused,
    /// The writer rolled its transaction back.
    RolledBack,
}

/// An event that a writer tried to record.
#[derive(Debug, Clone)]
pub struct AttemptedEvent {
    /// Its id.
    pub id: Uuid,
    /// Its stream.
    pub stream: String,
    /// The version in the store's answer.
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
    /// The encoded value.
    pub payload: Vec<u8>,
}

/// An event as received from a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// Its id.
    pub id: Uuid,
    /// Its stream.
    pub stream: String,
    /// Its number in the stream.
    pub version: i64,
    /// The encoded value.
    pub payload: Vec<u8>,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}
