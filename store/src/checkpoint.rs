//! How far a follower of the log has come: one small value, to be kept wherever the follower keeps its own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::outbox::{Bound, Cluster};

/// The format that this version of the crate writes.
const FORMAT: u8 = 1;

/// How far a follower has come. Keep it with what the events were turned into, in the same transaction;
/// [`Follow::after`](crate::Follow::after) goes on from there.
///
/// Serialises to some 200 bytes, more while many transactions are open. It belongs to one history of one
/// database cluster: transaction ids mean nothing in another, and a follower refuses it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Checkpoint {
    pub(crate) cluster: Arc<Cluster>,
    /// Everything that was visible then is behind the follower.
    pub(crate) since: Arc<Bound>,
    /// The end of the window that the follower is inside, if it is inside one.
    pub(crate) until: Option<Arc<Bound>>,
    /// The position up to which that window is behind the follower.
    pub(crate) after: i64,
}

impl Checkpoint {
    /// At the bound `since`, inside no window.
    pub(crate) const fn at(cluster: Arc<Cluster>, since: Arc<Bound>) -> Self {
        Self { cluster, since, until: None, after: 0 }
    }

    /// The same history, or the error that says what is not the same.
    pub(crate) fn check(&self, found: &Cluster) -> Result<(), Error> {
        if *self.cluster == *found {
            return Ok(());
        }
        Err(Error::OtherHistory { checkpoint: (*self.cluster).clone(), found: found.clone() })
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u8,
    cluster: Cluster,
    since: Bound,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Bound>,
    #[serde(default)]
    after: i64,
}

/// A checkpoint that a later version of the crate has written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a checkpoint of format {format}, and this version reads format {FORMAT}: it was written by a later one"
)]
pub struct CheckpointFormatError {
    format: u8,
}

impl TryFrom<Written> for Checkpoint {
    type Error = CheckpointFormatError;

    fn try_from(written: Written) -> Result<Self, CheckpointFormatError> {
        let Written { format, cluster, since, until, after } = written;
        if format != FORMAT {
            return Err(CheckpointFormatError { format });
        }
        let (cluster, since, until) = (Arc::new(cluster), Arc::new(since), until.map(Arc::new));
        Ok(Self { cluster, since, until, after })
    }
}

impl From<Checkpoint> for Written {
    fn from(checkpoint: Checkpoint) -> Self {
        let Checkpoint { cluster, since, until, after } = checkpoint;
        Self {
            format: FORMAT,
            cluster: Arc::unwrap_or_clone(cluster),
            since: Arc::unwrap_or_clone(since),
            until: until.map(Arc::unwrap_or_clone),
            after,
        }
    }
}
