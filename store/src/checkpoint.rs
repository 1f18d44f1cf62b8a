//! How far a follower of the log has come: one small value, to be kept wherever the follower keeps its own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::outbox::{Bound, History, Window};

/// The format that this version of the crate writes.
const FORMAT: u8 = 1;

/// How far a follower has come. Keep it with what the events were turned into, in the same transaction;
/// [`Follow::after`](crate::Follow::after) goes on from there.
///
/// Serialises to some 500 bytes, more while many transactions are open. It belongs to one store, and holds evidence of what
/// was passed: where the database may have another history, after a restore or a promotion, the follower looks whether all of it is
/// there, and goes on if it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Checkpoint {
    pub(crate) history: Arc<History>,
    /// Everything that was visible then is behind the follower.
    pub(crate) since: Arc<Bound>,
    /// The end of the window that the follower is inside, if it is inside one.
    pub(crate) until: Option<Arc<Bound>>,
    /// The position up to which that window is behind the follower.
    pub(crate) after: i64,
    /// What it passed last; none before the first event.
    pub(crate) passed: Option<Passed>,
}

/// The events of the last window that had some, as far as the follower has passed it: evidence of its history.
///
/// What a database can lose is an end of its log. Every event that was visible at the window's begin was committed before
/// each of these: while these are there, all of those are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passed {
    /// The window's begin.
    pub(crate) since: Arc<Bound>,
    /// Its end.
    pub(crate) until: Arc<Bound>,
    /// The position behind which events of the window were counted; 0: from its begin.
    pub(crate) start: i64,
    /// The position up to which they were.
    pub(crate) after: i64,
    /// Which events were counted.
    pub(crate) filter: Arc<Filter>,
    pub(crate) events: u64,
    /// The exclusive or of the events' ids, lower halves, with their positions.
    pub(crate) digest: i64,
    /// The event at the end.
    pub(crate) last: Uuid,
}

/// Which events a follower gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) category: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) types: Option<Vec<String>>,
}

impl Checkpoint {
    /// At the bound `since`, inside no window.
    pub(crate) const fn at(history: Arc<History>, since: Arc<Bound>) -> Self {
        Self { history, since, until: None, after: 0, passed: None }
    }

    /// The window that it is inside.
    pub(crate) fn window(&self) -> Option<Window<'_>> {
        self.until.as_ref().map(|until| Window { since: &self.since, until })
    }

    /// At the end of the window that it is inside.
    pub(crate) fn at_its_end(self) -> Self {
        match self.until {
            Some(until) => Self { since: until, until: None, after: 0, ..self },
            None => self,
        }
    }

    /// After one more event of the window that it is inside.
    pub(crate) fn passing(&self, position: i64, id: Uuid, filter: &Arc<Filter>) -> Self {
        let Some(until) = &self.until else { return self.clone() };
        let counted = self.passed.as_ref().filter(|passed| {
            passed.since == self.since && passed.until == *until && passed.filter == *filter
        });
        let (start, events, digest) = counted
            .map_or((self.after, 0, 0), |passed| (passed.start, passed.events, passed.digest));
        let passed = Passed {
            since: Arc::clone(&self.since),
            until: Arc::clone(until),
            start,
            after: position,
            filter: Arc::clone(filter),
            events: events + 1,
            digest: digest ^ lower_half(id) ^ position,
            last: id,
        };
        Self { after: position, passed: Some(passed), ..self.clone() }
    }
}

fn lower_half(id: Uuid) -> i64 {
    i64::from_be_bytes(id.as_u64_pair().1.to_be_bytes())
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u8,
    history: History,
    since: Bound,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Bound>,
    #[serde(default)]
    after: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passed: Option<WrittenPassed>,
}

#[derive(Serialize, Deserialize)]
struct WrittenPassed {
    since: Bound,
    until: Bound,
    start: i64,
    after: i64,
    #[serde(flatten)]
    filter: Filter,
    events: u64,
    digest: i64,
    last: Uuid,
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
        let Written { format, history, since, until, after, passed } = written;
        if format != FORMAT {
            return Err(CheckpointFormatError { format });
        }
        let (history, since, until) = (Arc::new(history), Arc::new(since), until.map(Arc::new));
        let passed = passed.map(|passed| {
            let WrittenPassed { since, until, start, after, filter, events, digest, last } = passed;
            let (since, until) = (Arc::new(since), Arc::new(until));
            Passed { since, until, start, after, filter: Arc::new(filter), events, digest, last }
        });
        Ok(Self { history, since, until, after, passed })
    }
}

impl From<Checkpoint> for Written {
    fn from(checkpoint: Checkpoint) -> Self {
        let Checkpoint { history, since, until, after, passed } = checkpoint;
        let passed = passed.map(|passed| {
            let Passed { since, until, start, after, filter, events, digest, last } = passed;
            let (since, until) = (Arc::unwrap_or_clone(since), Arc::unwrap_or_clone(until));
            let filter = Arc::unwrap_or_clone(filter);
            WrittenPassed { since, until, start, after, filter, events, digest, last }
        });
        Self {
            format: FORMAT,
            history: Arc::unwrap_or_clone(history),
            since: Arc::unwrap_or_clone(since),
            until: until.map(Arc::unwrap_or_clone),
            after,
            passed,
        }
    }
}
