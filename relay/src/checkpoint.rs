//! How far a shard is published: what stands in Kafka, in the same transaction as the records.

use annals_store::Position;
use annals_store::outbox::{Bound, History};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The form in which checkpoints are written.
const FORMAT: u8 = 1;

/// A place in the log: everything before it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Everything that was visible then is published.
    pub since: Bound,
    /// The end of the window that is being published; none between two windows. Fixed before the
    /// first page of the window, since another end would give another order.
    pub until: Option<Bound>,
    /// Up to this position the window is published; 0 at its begin.
    pub after: Position,
}

/// How far one shard is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    format: u8,
    /// The history that was published from.
    pub history: History,
    /// Where the shard stands, but for what is held.
    #[serde(flatten)]
    pub place: Place,
    /// The last event that was published of the shard; none before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastEvent>,
    /// How far holds got that PostgreSQL does not know yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Progress>,
}

/// The event at a checkpoint's end: evidence of the history that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEvent {
    /// Its position.
    pub position: Position,
    /// Its id.
    pub event_id: Uuid,
}

/// How far what is held got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The hold's number.
    pub hold: i64,
    /// Where it goes on; none when it has ended.
    pub place: Option<Place>,
}

/// A checkpoint record that cannot be used, and why.
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
        "the checkpoint of shard {shard} has format {found}, this relay reads {FORMAT}: run the version that wrote it, or a later one"
    )]
    Format {
        /// The shard.
        shard: u16,
        /// The format that was found.
        found: u8,
    },
}

impl Place {
    /// Before the first event of a history.
    #[must_use]
    pub fn origin() -> Self {
        Self { since: Bound::origin(), until: None, after: Position::ORIGIN }
    }

    /// In the middle of a window.
    #[must_use]
    pub fn within(&self, until: &Bound, after: Position) -> Self {
        Self { until: Some(until.clone()), after, since: self.since.clone() }
    }

    /// At the end of a window.
    #[must_use]
    pub fn done(until: &Bound) -> Self {
        Self { since: until.clone(), until: None, after: Position::ORIGIN }
    }

    /// The highest position that this place can have passed, for people.
    #[must_use]
    pub fn position(&self) -> i64 {
        if self.until.is_some() { self.after.get() } else { self.since.position.get() }
    }
}

impl Checkpoint {
    /// A shard that stands there.
    #[must_use]
    pub const fn new(history: History, place: Place, holds: Vec<Progress>) -> Self {
        Self { format: FORMAT, history, place, last: None, holds }
    }

    /// The same, with the last event that was published.
    #[must_use]
    pub fn ending_with(self, last: Option<LastEvent>) -> Self {
        Self { last, ..self }
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// [`CheckpointError`] when it is something else, or of a later version.
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
    use super::*;

    fn history() -> History {
        let (store_id, timeline) = (Uuid::nil(), "00000001".into());
        History { store_id, number: 1, system_identifier: "7".into(), timeline }
    }

    #[test]
    fn a_checkpoint_survives_the_way_to_kafka_and_back() {
        let until = Bound {
            snapshot: "10:12:11".into(),
            next_xid: 14,
            position: Position::new(99).unwrap(),
            event_id: None,
            settled: Position::ORIGIN,
        };
        let place = Place::origin().within(&until, Position::new(42).unwrap());
        let holds = vec![
            Progress { hold: 7, place: Some(place.clone()) },
            Progress { hold: 8, place: None },
        ];
        for holds in [holds, Vec::new()] {
            let written = Checkpoint::new(history(), place.clone(), holds);
            let bytes = serde_json::to_vec(&written).unwrap();
            let read = Checkpoint::from_bytes(3, &bytes).unwrap();
            assert_eq!(read, written);
        }
        assert_eq!((place.position(), Place::done(&until).position()), (42, 99));
    }

    #[test]
    fn a_later_format_is_refused_by_its_number() {
        let later = br#"{"format":2,"something":"else"}"#;
        let refused = Checkpoint::from_bytes(3, later).unwrap_err();
        assert!(matches!(refused, CheckpointError::Format { shard: 3, found: 2 }), "{refused}");
    }
}
