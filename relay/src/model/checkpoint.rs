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
    /// The open quarantine entries; none if there is no entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_entries: Option<OpenEntries>,
}

/// The open quarantine entries of a shard at its checkpoint, in constant size: evidence that the
/// database has them all. The checkpoint has advanced over their events: without its entry, a
/// quarantined event would never be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenEntries {
    /// The highest number. Later entries have higher ones.
    pub last: EntryId,
    /// How many there are.
    pub count: u64,
    /// The exclusive or of their numbers.
    pub digest: i64,
}

impl OpenEntries {
    /// The evidence of these entries; none if there is no entry.
    pub(crate) fn of(entries: impl IntoIterator<Item = EntryId>) -> Option<Self> {
        entries.into_iter().fold(None, |found: Option<Self>, entry| {
            let Self { last, count, digest } =
                found.unwrap_or(Self { last: entry, count: 0, digest: 0 });
            Some(Self { last: last.max(entry), count: count + 1, digest: digest ^ entry.get() })
        })
    }

    /// Whether these are the entries of the checkpoint, and possibly later ones.
    pub(crate) fn are_among(self, entries: impl IntoIterator<Item = EntryId>) -> bool {
        let earlier = entries.into_iter().filter(|entry| *entry <= self.last);
        Self::of(earlier) == Some(self)
    }
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

    /// Whether less is published than at another cursor of the same shard and generation.
    #[must_use]
    pub fn is_behind(&self, other: &Self) -> bool {
        let is_same_window = self.since == other.since && self.until == other.until;
        self.since.position < other.since.position
            || self.since == other.since && self.until.is_none() && other.until.is_some()
            || is_same_window && self.after < other.after
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
        Self { format: FORMAT, history, cursor, last: None, quarantine, open_entries: None }
    }

    /// The same, with the last published event.
    #[must_use]
    pub fn ending_with(self, last: Option<LastEvent>) -> Self {
        Self { last, ..self }
    }

    /// The same, with the open quarantine entries.
    #[must_use]
    pub(crate) fn with_open_entries(self, open_entries: Option<OpenEntries>) -> Self {
        Self { open_entries, ..self }
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
    fn cursors_of_a_shard_are_ordered_by_windows_and_within_them_by_positions() {
        let bound = |position: i64| {
            let snapshot = format!("{position}:{position}:");
            let position = Position::new(position).unwrap();
            Bound { snapshot, position, ..Bound::origin() }
        };
        let at = |position| Position::new(position).unwrap();
        let (start, next) = (Cursor::done(&bound(10)), Cursor::done(&bound(20)));
        let [early, late] = [12, 15].map(|position| start.within(&bound(20), at(position)));
        let all = [start, early, late, next];
        for (left, one) in all.iter().enumerate() {
            for (right, other) in all.iter().enumerate() {
                assert_eq!(one.is_behind(other), left < right, "{left} {right}");
            }
        }
    }

    #[test]
    fn open_entries_are_found_among_later_ones_and_missed_if_one_is_lost() {
        let ids = |numbers: &[i64]| numbers.iter().copied().map(EntryId::new).collect::<Vec<_>>();
        assert_eq!(OpenEntries::of(ids(&[])), None);
        let open = OpenEntries::of(ids(&[7, 3, 12])).unwrap();
        assert!(open.are_among(ids(&[12, 7, 3])));
        assert!(open.are_among(ids(&[3, 7, 12, 13, 40])));
        for lost in [&[][..], &[3, 7], &[7, 12], &[3, 12, 13], &[3, 4, 7, 12], &[3, 8, 12]] {
            assert!(!open.are_among(ids(lost)), "{lost:?}");
        }
    }

    #[test]
    fn a_later_format_is_refused_by_its_number() {
        let later = br#"{"format":2,"something":"else"}"#;
        let refused = ShardCheckpoint::from_bytes(3, later).unwrap_err();
        assert!(matches!(refused, CheckpointError::Format { shard: 3, found: 2 }), "{refused}");
    }
}
