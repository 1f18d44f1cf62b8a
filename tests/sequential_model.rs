//! The sequential model of appends to single streams: the observations of concurrent callers must
//! be possible if the appends were made one after the other, in an order that agrees with real
//! time.

use std::collections::{BTreeMap, BTreeSet};

use annals_store::ExpectedVersion;
use annals_testkit::Recorded;
use uuid::Uuid;

/// One call of `append`, and its result.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    pub(crate) stream: String,
    pub(crate) expected: ExpectedVersion,
    pub(crate) ids: Vec<Uuid>,
    /// Times of a logical clock.
    pub(crate) started: u64,
    pub(crate) ended: u64,
    pub(crate) outcome: Observed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Observed {
    Recorded {
        versions: Vec<i64>,
        positions: Vec<i64>,
        repeated: bool,
    },
    Conflict {
        actual: Option<i64>,
        events: Vec<Uuid>,
    },
    /// Refused for another reason.
    Refused,
    Unknown,
}

/// A contradiction to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contradiction {
    /// A result names another version or position than the store has for the event, or none.
    NotAsRecorded,
    /// An append was recorded against its expected version.
    UnexpectedVersion,
    /// A conflict where there was none at any time of the call, or with other events.
    ImpossibleConflict,
    /// An event of an append that was only refused is recorded.
    RefusedButRecorded,
    /// An append was recorded before one that had ended when it started.
    AgainstRealTime,
    /// Two calls say that they recorded the same events first.
    RecordedTwice,
}

/// Checks observations against the recorded events.
pub(crate) fn contradictions(
    observations: &[Observation],
    recorded: &[Recorded],
) -> BTreeSet<Contradiction> {
    let model = Model::new(observations, recorded);
    let mut found: BTreeSet<_> = observations.iter().filter_map(|one| model.check(one)).collect();
    let firsts = observations.iter().filter(|one| one.is_first());
    let firsts: Vec<_> = firsts.map(|one| &one.ids).collect();
    if firsts.iter().collect::<BTreeSet<_>>().len() < firsts.len() {
        found.insert(Contradiction::RecordedTwice);
    }
    if recorded.iter().any(|event| !model.possible.contains(&event.id)) {
        found.insert(Contradiction::RefusedButRecorded);
    }
    found
}

impl Observation {
    fn is_first(&self) -> bool {
        matches!(self.outcome, Observed::Recorded { repeated: false, .. })
    }

    fn first_version(&self) -> Option<i64> {
        match &self.outcome {
            Observed::Recorded { versions, .. } => versions.first().copied(),
            Observed::Conflict { .. } | Observed::Refused | Observed::Unknown => None,
        }
    }
}

struct Model<'a> {
    observations: &'a [Observation],
    by_id: BTreeMap<Uuid, &'a Recorded>,
    by_version: BTreeMap<(&'a str, i64), &'a Recorded>,
    /// The ids of appends that may be recorded.
    possible: BTreeSet<Uuid>,
}

impl<'a> Model<'a> {
    fn new(observations: &'a [Observation], recorded: &'a [Recorded]) -> Self {
        let may_be_recorded = |one: &&Observation| {
            matches!(one.outcome, Observed::Recorded { .. } | Observed::Unknown)
        };
        Self {
            observations,
            by_id: recorded.iter().map(|event| (event.id, event)).collect(),
            by_version: recorded
                .iter()
                .map(|event| ((event.stream.as_str(), event.version), event))
                .collect(),
            possible: observations
                .iter()
                .filter(may_be_recorded)
                .flat_map(|one| one.ids.iter().copied())
                .collect(),
        }
    }

    fn check(&self, one: &Observation) -> Option<Contradiction> {
        match &one.outcome {
            Observed::Recorded { versions, positions, .. } => {
                if !self.is_as_recorded(one, versions, positions) {
                    Some(Contradiction::NotAsRecorded)
                } else if one.is_first() && !is_expected(one) {
                    Some(Contradiction::UnexpectedVersion)
                } else if one.is_first() && !self.follows_real_time(one) {
                    Some(Contradiction::AgainstRealTime)
                } else {
                    None
                }
            }
            Observed::Conflict { actual, events } => {
                let is_possible = self.is_possible_conflict(one, actual.unwrap_or(-1), events);
                (!is_possible).then_some(Contradiction::ImpossibleConflict)
            }
            Observed::Refused | Observed::Unknown => None,
        }
    }

    fn is_as_recorded(&self, one: &Observation, versions: &[i64], positions: &[i64]) -> bool {
        let is_recorded = |((id, version), position): ((&Uuid, &i64), &i64)| {
            self.by_id.get(id).is_some_and(|event| {
                event.stream == one.stream
                    && event.version == *version
                    && event.position == *position
            })
        };
        let lengths = [versions.len(), positions.len()];
        let is_rising = |numbers: &[i64]| numbers.is_sorted_by(|one, next| one < next);
        lengths == [one.ids.len(); 2]
            && versions.windows(2).all(|pair| pair[0] + 1 == pair[1])
            && is_rising(positions)
            && one.ids.iter().zip(versions).zip(positions).all(is_recorded)
    }

    fn follows_real_time(&self, one: &Observation) -> bool {
        let earlier = self.observations.iter().filter(|other| {
            other.is_first() && other.stream == one.stream && other.ended < one.started
        });
        earlier.into_iter().all(|other| other.first_version() < one.first_version())
    }

    /// Whether the stream can have been at this version at some time of the call.
    fn is_possible_conflict(&self, one: &Observation, actual: i64, events: &[Uuid]) -> bool {
        let is_conflict = match one.expected {
            ExpectedVersion::Any => false,
            ExpectedVersion::NoStream => actual >= 0,
            ExpectedVersion::StreamExists => actual < 0,
            ExpectedVersion::Exactly(version) => version.get() != actual,
        };
        let at = |version| self.by_version.get(&(one.stream.as_str(), version));
        let was_written = actual < 0 || at(actual).is_some_and(|event| !self.is_later(one, event));
        // The next event was not acknowledged when the call started.
        let is_next_new = at(actual + 1).is_none_or(|event| !self.is_earlier(one, event));
        let since = match one.expected {
            ExpectedVersion::Exactly(version) => version.get() + 1,
            ExpectedVersion::NoStream | ExpectedVersion::StreamExists | ExpectedVersion::Any => 0,
        };
        let carried = (since..=actual).filter_map(at).map(|event| event.id).take(CARRIED_MAX);
        is_conflict && was_written && is_next_new && carried.eq(events.iter().copied())
    }

    /// Whether all calls that may have recorded the event started after this one ended.
    fn is_later(&self, one: &Observation, event: &Recorded) -> bool {
        self.calls_with(event).all(|other| other.started > one.ended)
    }

    /// Whether a call that recorded the event ended before this one started.
    fn is_earlier(&self, one: &Observation, event: &Recorded) -> bool {
        self.calls_with(event).any(|other| {
            matches!(other.outcome, Observed::Recorded { .. }) && other.ended < one.started
        })
    }

    fn calls_with(&self, event: &Recorded) -> impl Iterator<Item = &'a Observation> {
        let id = event.id;
        self.observations.iter().filter(move |one| one.ids.contains(&id))
    }
}

/// Events that conflicts carry in these tests.
pub(crate) const CARRIED_MAX: usize = 3;

fn is_expected(one: &Observation) -> bool {
    let Some(first) = one.first_version() else { return false };
    match one.expected {
        ExpectedVersion::Any => true,
        ExpectedVersion::NoStream => first == 0,
        ExpectedVersion::StreamExists => first > 0,
        ExpectedVersion::Exactly(version) => first == version.get() + 1,
    }
}
