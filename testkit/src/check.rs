//! The checker: finds every promise that a run broke. Pure; it trusts no side of the system.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use crate::history::{Attempt, Consumed, History, Outcome, Recorded};
use crate::violation::Violation;

/// Every broken promise of a finished run, in which no append is in flight and everything is
/// published. Sorted; empty when every promise held.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let recorded: HashMap<Uuid, &Recorded> =
        history.recorded.iter().map(|event| (event.id, event)).collect();
    let mut violations = Vec::new();
    for attempt in &history.attempts {
        violations.extend(of_attempt(attempt, &recorded));
    }
    violations.extend(of_table(&history.recorded));
    violations.extend(between(&history.recorded, &history.consumed, &recorded));
    violations.extend(repeated(&history.consumed));
    violations.extend(disordered(&history.consumed));
    violations.sort();
    violations
}

fn of_attempt(attempt: &Attempt, recorded: &HashMap<Uuid, &Recorded>) -> Vec<Violation> {
    match attempt.outcome {
        Outcome::Acknowledged => acknowledged(attempt, recorded),
        Outcome::Refused | Outcome::RolledBack => unwanted(attempt, recorded),
        Outcome::Unknown => torn(attempt, recorded).into_iter().collect(),
    }
}

fn acknowledged(attempt: &Attempt, recorded: &HashMap<Uuid, &Recorded>) -> Vec<Violation> {
    let wrong =
        |event: &crate::history::AttemptedEvent| match (recorded.get(&event.id), event.version) {
            (None, _) => {
                Some(Violation::AcknowledgedMissing { id: event.id, stream: event.stream.clone() })
            }
            (Some(found), Some(answered)) if found.version != answered => {
                Some(Violation::AnswerWrong { id: event.id, answered, recorded: found.version })
            }
            (Some(_), _) => None,
        };
    attempt.events.iter().filter_map(wrong).collect()
}

fn unwanted(attempt: &Attempt, recorded: &HashMap<Uuid, &Recorded>) -> Vec<Violation> {
    let found = attempt.events.iter().filter(|event| recorded.contains_key(&event.id));
    found
        .map(|event| Violation::Unwanted {
            id: event.id,
            stream: event.stream.clone(),
            outcome: attempt.outcome,
        })
        .collect()
}

fn torn(attempt: &Attempt, recorded: &HashMap<Uuid, &Recorded>) -> Option<Violation> {
    let ids = attempt.events.iter().map(|event| event.id);
    let (ids_recorded, ids_missing): (Vec<_>, Vec<_>) =
        ids.partition(|id| recorded.contains_key(id));
    let is_torn = !ids_recorded.is_empty() && !ids_missing.is_empty();
    is_torn.then_some(Violation::Torn { ids_recorded, ids_missing })
}

fn of_table(recorded: &[Recorded]) -> Vec<Violation> {
    let mut streams: BTreeMap<&str, BTreeMap<i64, i64>> = BTreeMap::new();
    for event in recorded {
        streams.entry(&event.stream).or_default().insert(event.version, event.position);
    }
    let mut violations = Vec::new();
    for (stream, versions) in streams {
        let missing = missing_below_last(versions.keys().copied());
        violations.extend(
            missing.map(|version| Violation::HoleInStream { stream: stream.to_owned(), version }),
        );
        let later = versions.iter().zip(versions.iter().skip(1));
        let inverted = later.filter(|((_, before), (_, after))| before > after);
        violations.extend(inverted.map(|(_, (&version, _))| Violation::PositionsInverted {
            stream: stream.to_owned(),
            version,
        }));
    }
    violations
}

/// The missing versions from 0 to the last one.
fn missing_below_last(versions: impl Iterator<Item = i64>) -> impl Iterator<Item = i64> {
    let there: BTreeSet<i64> = versions.collect();
    let last = there.last().copied().unwrap_or(-1);
    (0..=last).filter(move |version| !there.contains(version))
}

/// Events that one side has and the other lacks, or has with other content.
fn between(
    recorded: &[Recorded],
    consumed: &[Consumed],
    by_id: &HashMap<Uuid, &Recorded>,
) -> Vec<Violation> {
    let came: HashSet<Uuid> = consumed.iter().map(|event| event.id).collect();
    let lost = recorded.iter().filter(|event| !came.contains(&event.id)).map(|event| {
        Violation::Lost { id: event.id, stream: event.stream.clone(), version: event.version }
    });
    let foreign = consumed.iter().filter_map(|event| {
        let (id, place) = (event.id, place(event));
        match by_id.get(&id) {
            None => Some(Violation::Ghost { id, place }),
            Some(found) if !is_same(found, event) => Some(Violation::Altered { id, place }),
            Some(_) => None,
        }
    });
    lost.chain(foreign).collect()
}

fn is_same(recorded: &Recorded, consumed: &Consumed) -> bool {
    recorded.stream == consumed.stream
        && recorded.version == consumed.version
        && recorded.payload == consumed.payload
}

fn repeated(consumed: &[Consumed]) -> Vec<Violation> {
    let mut ids: HashMap<Uuid, &Consumed> = HashMap::new();
    let mut versions: HashMap<(&str, i64), &Consumed> = HashMap::new();
    let mut violations = Vec::new();
    for event in consumed {
        let by_id = ids.insert(event.id, event);
        let by_version = versions.insert((&event.stream, event.version), event);
        if let Some(first) = by_id {
            let (first, again) = (place(first), place(event));
            violations.push(Violation::Duplicate { id: event.id, first, again });
        } else if let Some(first) = by_version {
            let (stream, version) = (event.stream.clone(), event.version);
            let (first, again) = (place(first), place(event));
            violations.push(Violation::VersionTwice { stream, version, first, again });
        }
    }
    violations
}

fn disordered(consumed: &[Consumed]) -> Vec<Violation> {
    let mut streams: BTreeMap<&str, Vec<&Consumed>> = BTreeMap::new();
    let mut offsets: HashMap<(&str, i32), i64> = HashMap::new();
    let mut violations = Vec::new();
    for event in consumed {
        streams.entry(&event.stream).or_default().push(event);
        let before = offsets.insert((&event.topic, event.partition), event.offset);
        if let Some(after) = before.filter(|before| *before >= event.offset) {
            violations.push(Violation::OffsetsInverted { place: place(event), after });
        }
    }
    for (stream, events) in streams {
        violations.extend(of_stream(stream, &events));
    }
    violations
}

fn of_stream(stream: &str, events: &[&Consumed]) -> Vec<Violation> {
    let mut violations = inversions(events);
    let missing = missing_below_last(events.iter().map(|event| event.version));
    violations.extend(missing.map(|version| Violation::Gap { stream: stream.to_owned(), version }));
    let partitions: BTreeSet<(&str, i32)> =
        events.iter().map(|event| (event.topic.as_str(), event.partition)).collect();
    if partitions.len() > 1 {
        let partitions = partitions.iter().map(|(topic, number)| format!("{topic}[{number}]"));
        let (stream, partitions) = (stream.to_owned(), partitions.collect());
        violations.push(Violation::SplitStream { stream, partitions });
    }
    violations
}

/// First occurrences only: a repeated event is a duplicate, at any place.
fn inversions(events: &[&Consumed]) -> Vec<Violation> {
    let mut seen = HashSet::new();
    let mut highest: HashMap<i32, i64> = HashMap::new();
    let mut violations = Vec::new();
    for event in events.iter().filter(|event| seen.insert(event.version)) {
        let highest = highest.entry(event.partition).or_insert(-1);
        if *highest > event.version {
            let (stream, version) = (event.stream.clone(), event.version);
            violations.push(Violation::Inversion {
                stream,
                version,
                after: *highest,
                place: place(event),
            });
        }
        *highest = event.version.max(*highest);
    }
    violations
}

fn place(event: &Consumed) -> String {
    format!("{}[{}]@{}", event.topic, event.partition, event.offset)
}

#[cfg(test)]
mod tests;
