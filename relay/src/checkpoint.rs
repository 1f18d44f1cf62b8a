//! How far a shard is published: what stands in Kafka, in the same transaction as the records.

use annals_relay_core::Shard;
use annals_store::outbox::{Bound, Cluster};
use serde::{Deserialize, Serialize};

use crate::leases::number;

/// The form in which checkpoints are written.
const FORMAT: u8 = 1;

/// How far one shard is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    format: u8,
    /// The history that its transaction ids belong to.
    pub cluster: Cluster,
    /// Everything that was visible then is published.
    pub since: Bound,
    /// The end of the window that is being published; none between two windows. Fixed before the
    /// first page of the window, since another end would give another order.
    pub until: Option<Bound>,
    /// Up to this position the window is published; 0 at its begin.
    pub after: i64,
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

impl Checkpoint {
    /// Before the first event of a history.
    #[must_use]
    pub fn origin(cluster: Cluster) -> Self {
        Self { format: FORMAT, cluster, since: Bound::origin(), until: None, after: 0 }
    }

    /// In the middle of a window.
    #[must_use]
    pub fn within(&self, until: &Bound, after: i64) -> Self {
        Self { until: Some(until.clone()), after, ..self.clone() }
    }

    /// At the end of a window.
    #[must_use]
    pub fn done(&self, until: &Bound) -> Self {
        Self { since: until.clone(), until: None, after: 0, ..self.clone() }
    }

    /// The highest position that this checkpoint can have passed, for people.
    #[must_use]
    pub fn position(&self) -> i64 {
        if self.until.is_some() { self.after } else { self.since.position }
    }

    /// The record's value.
    ///
    /// # Errors
    /// None of a checkpoint's fields can fail to be written; the error is serde's signature.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
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

/// Shards by where they stand: normally all at one place, and apart only after a takeover, until each has
/// finished its window.
pub(crate) fn groups(places: Vec<(Shard, Checkpoint)>) -> Vec<(Checkpoint, Vec<i16>)> {
    let mut groups: Vec<(Checkpoint, Vec<i16>)> = Vec::new();
    for (shard, place) in places {
        match groups.iter_mut().find(|(other, _)| *other == place) {
            Some((_, shards)) => shards.push(number(shard)),
            None => groups.push((place, vec![number(shard)])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let cluster = Cluster { system_identifier: "7".into(), timeline: "00000001".into() };
        Checkpoint::origin(cluster)
    }

    #[test]
    fn a_checkpoint_survives_the_way_to_kafka_and_back() {
        let until = Bound { snapshot: "10:12:11".into(), next_xid: 14, position: 99 };
        let within = checkpoint().within(&until, 42);
        let read = Checkpoint::from_bytes(3, &within.to_bytes().unwrap()).unwrap();
        assert_eq!(read, within);
        assert_eq!((read.position(), read.done(&until).position()), (42, 99));
    }

    #[test]
    fn a_later_format_is_refused_by_its_number() {
        let later = br#"{"format":2,"something":"else"}"#;
        let refused = Checkpoint::from_bytes(3, later).unwrap_err();
        assert!(matches!(refused, CheckpointError::Format { shard: 3, found: 2 }), "{refused}");
    }

    #[test]
    fn shards_apart_are_read_apart_and_together_where_they_meet() {
        let until = Bound { snapshot: "10:12:11".into(), next_xid: 14, position: 99 };
        let behind = checkpoint().within(&until, 42);
        let read = |places: [Checkpoint; 3]| {
            let places = (0..).map(Shard).zip(places).collect();
            groups(places).into_iter().map(|(_, shards)| shards).collect::<Vec<_>>()
        };
        assert_eq!(read([checkpoint(), behind, checkpoint()]), [vec![0, 2], vec![1]]);
        let done = checkpoint().done(&until);
        assert_eq!(read([done.clone(), done.clone(), done]), [[0, 1, 2]]);
    }
}
