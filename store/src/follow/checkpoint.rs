//! Checkpoints: the progress of a follower, as one small value that the application stores.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::history::History;
use crate::outbox::{Bound, Window};
use crate::stream::Position;

/// The format that this version of the crate writes.
const FORMAT: u8 = 1;

/// The progress of a follower. Store it together with the result of processing the events, in the
/// same transaction; [`Follow::after`](crate::Follow::after) continues from it.
///
/// It serializes to some 500 bytes, more while many transactions are open. It belongs to one store
/// and contains evidence of the processed events: after a restore or a promotion, when the database
/// can have another history, the follower verifies that these events are present, and continues if
/// so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Serialized", into = "Serialized")]
pub struct Checkpoint {
    pub(crate) history: Arc<History>,
    /// The follower has processed everything that was visible at this bound.
    pub(crate) since: Arc<Bound>,
    /// The end of the window that the follower is reading, if any.
    pub(crate) until: Option<Arc<Bound>>,
    /// The position up to which the follower has processed that window.
    pub(crate) after: Position,
    /// The last processed events; none before the first event.
    pub(crate) evidence: Option<Evidence>,
}

/// The processed events of the last window that had events: evidence of the history.
///
/// A database loses only the end of its log. Each event that was visible at the window's start was
/// committed before the events of the window: if these are present, all earlier events are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The window's start.
    pub(crate) since: Arc<Bound>,
    /// The window's end.
    pub(crate) until: Arc<Bound>,
    /// Events after this position were counted; the origin: all events from the window's start.
    pub(crate) start: Position,
    /// Events up to this position were counted.
    pub(crate) after: Position,
    /// Only matching events were counted.
    pub(crate) filter: Arc<Filter>,
    pub(crate) events: u64,
    /// The exclusive or of the lower halves of the events' ids and of their positions.
    pub(crate) digest: i64,
    /// The last event.
    pub(crate) last: Uuid,
}

/// The filter of a follower.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) category: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) types: Option<Vec<String>>,
}

impl Checkpoint {
    /// A checkpoint at the bound `since`, outside a window.
    pub(crate) const fn at(history: Arc<History>, since: Arc<Bound>) -> Self {
        Self { history, since, until: None, after: Position::ORIGIN, evidence: None }
    }

    /// The window that the follower is reading.
    pub(crate) fn window(&self) -> Option<Window<'_>> {
        self.until.as_ref().map(|until| Window { since: &self.since, until })
    }

    /// How far the follower has come in the log: it has the events up to this position, except
    /// those of transactions that were open at the window's start.
    pub(crate) fn position(&self) -> Position {
        self.since.position.max(self.after)
    }

    /// The checkpoint at the end of the current window.
    pub(crate) fn at_window_end(self) -> Self {
        match self.until {
            Some(until) => Self { since: until, until: None, after: Position::ORIGIN, ..self },
            None => self,
        }
    }

    /// The checkpoint after one more event of the current window.
    pub(crate) fn after_event(&self, position: Position, id: Uuid, filter: &Arc<Filter>) -> Self {
        let Some(until) = &self.until else { return self.clone() };
        let counted = self.evidence.as_ref().filter(|evidence| {
            evidence.since == self.since && evidence.until == *until && evidence.filter == *filter
        });
        let (start, events, digest) = counted
            .map_or((self.after, 0, 0), |counted| (counted.start, counted.events, counted.digest));
        let evidence = Evidence {
            since: Arc::clone(&self.since),
            until: Arc::clone(until),
            start,
            after: position,
            filter: Arc::clone(filter),
            events: events + 1,
            digest: digest ^ lower_half(id) ^ position.get(),
            last: id,
        };
        Self { after: position, evidence: Some(evidence), ..self.clone() }
    }
}

fn lower_half(id: Uuid) -> i64 {
    i64::from_be_bytes(id.as_u64_pair().1.to_be_bytes())
}

#[derive(Serialize, Deserialize)]
struct Serialized {
    format: u8,
    history: History,
    since: Bound,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Bound>,
    #[serde(default = "origin")]
    after: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence: Option<SerializedEvidence>,
}

#[derive(Serialize, Deserialize)]
struct SerializedEvidence {
    since: Bound,
    until: Bound,
    start: Position,
    after: Position,
    #[serde(flatten)]
    filter: Filter,
    events: u64,
    digest: i64,
    last: Uuid,
}

const fn origin() -> Position {
    Position::ORIGIN
}

/// A later version of the crate wrote the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the checkpoint has format {format}, and this version reads format {FORMAT}: a later version \
     wrote it"
)]
pub struct CheckpointFormatError {
    format: u8,
}

impl TryFrom<Serialized> for Checkpoint {
    type Error = CheckpointFormatError;

    fn try_from(serialized: Serialized) -> Result<Self, CheckpointFormatError> {
        let Serialized { format, history, since, until, after, evidence } = serialized;
        if format != FORMAT {
            return Err(CheckpointFormatError { format });
        }
        let (history, since, until) = (Arc::new(history), Arc::new(since), until.map(Arc::new));
        let evidence = evidence.map(|evidence| {
            let SerializedEvidence { since, until, start, after, filter, events, digest, last } =
                evidence;
            let (since, until) = (Arc::new(since), Arc::new(until));
            Evidence { since, until, start, after, filter: Arc::new(filter), events, digest, last }
        });
        Ok(Self { history, since, until, after, evidence })
    }
}

impl From<Checkpoint> for Serialized {
    fn from(checkpoint: Checkpoint) -> Self {
        let Checkpoint { history, since, until, after, evidence } = checkpoint;
        let evidence = evidence.map(|evidence| {
            let Evidence { since, until, start, after, filter, events, digest, last } = evidence;
            let (since, until) = (Arc::unwrap_or_clone(since), Arc::unwrap_or_clone(until));
            let filter = Arc::unwrap_or_clone(filter);
            SerializedEvidence { since, until, start, after, filter, events, digest, last }
        });
        Self {
            format: FORMAT,
            history: Arc::unwrap_or_clone(history),
            since: Arc::unwrap_or_clone(since),
            until: until.map(Arc::unwrap_or_clone),
            after,
            evidence,
        }
    }
}
