//! Cursors and checkpoints. A checkpoint is written to Kafka in the same transaction as the records
//! that it covers.

use annals_store::Position;
use annals_store::outbox::{Bound, History};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version of the checkpoint format.
const FORMAT: u8 = 1;

/// A position in the log: every event before it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Every event that was visible at this bound is published.
    pub since: Bound,
    /// The end of the window that is being published; none between two windows. It is fixed before
    /// the first page of the window: another end would give another order.
    pub until: Option<Bound>,
    /// The window is published up to this position; 0 at its begin.
    pub after: Position,
}

/// How far one shard is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardCheckpoint {
    format: u8,
    /// The history of the database that was published.
    pub history: History,
    /// How far the shard is published, quarantined events excepted.
    #[serde(flatten)]
    pub cursor: Cursor,
    /// The last published event of the shard; none before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastEvent>,
    /// The progress of quarantine entries that PostgreSQL has not recorded yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<EntryProgress>,
}

/// The last event that a checkpoint covers: evidence of the history that the checkpoint belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEvent {
    /// Its position.
    pub position: Position,
    /// Its id.
    pub event_id: Uuid,
}

/// The number of a quarantine entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(i64);

impl EntryId {
    pub(crate) const fn new(number: i64) -> Self {
        Self(number)
    }

    pub(crate) const fn get(self) -> i64 {
        self.0
    }
}

/// How far a quarantine entry is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryProgress {
    /// The entry's number.
    pub entry: EntryId,
    /// The cursor from which it continues; none when it has ended.
    pub cursor: Option<Cursor>,
}

/// Why a checkpoint record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It is not a checkpoint.
    #[error("the checkpoint of shard {shard} cannot be read")]
    Malformed {
        /// The shard.
        shard: u16,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A later version of the relay wrote it.
    #[error(
        "the checkpoint of shard {shard} has format {found}, this relay reads {FORMAT}: run the version that wrote it, \
         or a later one"
    )]
    Format {
        /// The shard.
        shard: u16,
        /// The format that was found.
        found: u8,
    },
}

impl Cursor {
    /// Before the first event of a history.
    #[must_use]
    pub fn origin() -> Self {
        Self { since: Bound::origin(), until: None, after: Position::ORIGIN }
    }

    /// Inside a window.
    #[must_use]
    pub fn within(&self, until: &Bound, after: Position) -> Self {
        Self { until: Some(until.clone()), after, since: self.since.clone() }
    }

    /// At the end of a window.
    #[must_use]
    pub fn done(until: &Bound) -> Self {
        Self { since: until.clone(), until: None, after: Position::ORIGIN }
    }

    /// The highest position that can be published, for operators.
    #[must_use]
    pub fn position(&self) -> Position {
        if self.until.is_some() { self.after } else { self.since.position }
    }
}

impl ShardCheckpoint {
    /// The checkpoint of a shard with this cursor.
    #[must_use]
    pub const fn new(history: History, cursor: Cursor, quarantine: Vec<EntryProgress>) -> Self {
        Self { format: FORMAT, history, cursor, last: None, quarantine }
    }

    /// The same, with the last published event.
    #[must_use]
    pub fn ending_with(self, last: Option<LastEvent>) -> Self {
        Self { last, ..self }
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// [`CheckpointError`] when it is no checkpoint, or one of a later version.
    pub fn from_bytes(shard: u16, bytes: &[u8]) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Head {
            format: u8,
        }
        let malformed = |source| CheckpointError::Malformed { shard, source };
        let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
        if head.format != FORMAT {
            return Err(CheckpointError::Format { shard, found: head.format });
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }
}

#[cfg(test)]
mod tests {
    use annals_store::outbox::TransactionId;

    use super::*;

    fn history() -> History {
        let (store_id, timeline) = (Uuid::nil(), "00000001".into());
        History { store_id, number: 1, system_identifier: "7".into(), timeline }
    }

    #[test]
    fn a_checkpoint_survives_the_way_to_kafka_and_back() {
        let until = Bound {
            snapshot: "10:12:11".into(),
            next_xid: TransactionId::new(14),
            position: Position::new(99).unwrap(),
            event_id: None,
            settled: Position::ORIGIN,
        };
        let cursor = Cursor::origin().within(&until, Position::new(42).unwrap());
        let entries = vec![
            EntryProgress { entry: EntryId::new(7), cursor: Some(cursor.clone()) },
            EntryProgress { entry: EntryId::new(8), cursor: None },
        ];
        for entries in [entries, Vec::new()] {
            let written = ShardCheckpoint::new(history(), cursor.clone(), entries);
            let bytes = serde_json::to_vec(&written).unwrap();
            let read = ShardCheckpoint::from_bytes(3, &bytes).unwrap();
            assert_eq!(read, written);
        }
        assert_eq!([cursor, Cursor::done(&until)].map(|cursor| cursor.position().get()), [42, 99]);
    }

    #[test]
    fn a_later_format_is_refused_by_its_number() {
        let later = br#"{"format":2,"something":"else"}"#;
        let refused = ShardCheckpoint::from_bytes(3, later).unwrap_err();
        assert!(matches!(refused, CheckpointError::Format { shard: 3, found: 2 }), "{refused}");
    }
}
