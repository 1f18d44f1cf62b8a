//! The events of a store in memory, and the checks of an append.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use annals_schemas::{Broken, Compatibility, Incompatible, Schema};
use jiff::Timestamp;

use crate::append::{Append, AppendCondition, Appended, refused_elsewhere};
use crate::error::{AppendError, Conflict, Refusal, TagConflict};
use crate::event::{EventId, NewEvent, RecordedEvent};
use crate::event_store::sealed::RecordedId;
use crate::memory::changes::Changes;
use crate::read::{Key, Read};
use crate::stream::{ExpectedVersion, Position, StreamName, Version};
use crate::tag::Tag;

/// All events, in position order.
#[derive(Debug, Default)]
pub(crate) struct MemoryLog {
    events: Vec<RecordedEvent>,
    /// Indices of a stream's events, by version.
    streams: HashMap<StreamName, Vec<usize>>,
    ids: HashMap<EventId, usize>,
    /// Indices of the events with a tag.
    tags: HashMap<Tag, BTreeSet<usize>>,
    /// Indices of the events that reads do not return.
    absent: BTreeMap<usize, Absence>,
    pub(super) changes: HashMap<StreamName, Changes>,
    /// The schemas of a category.
    schemas: BTreeMap<String, Vec<Schema>>,
    compatibility: Compatibility,
}

/// Why reads do not return an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// It was removed for good.
    Removed,
    /// Its stream is archived.
    Archived,
}

impl MemoryLog {
    pub(crate) fn new(compatibility: Compatibility) -> Self {
        Self { compatibility, ..Self::default() }
    }

    pub(crate) fn version(&self, stream: &StreamName) -> Option<Version> {
        let events = self.streams.get(stream)?.len();
        Version::new(i64::try_from(events).unwrap_or(i64::MAX) - 1)
    }

    pub(crate) fn recorded(&self, id: EventId) -> Option<RecordedId> {
        let RecordedEvent { id, stream, version, position, recorded_at, .. } = self.by_id(id)?;
        let (id, version, position) = (*id, *version, *position);
        Some(RecordedId {
            id,
            stream: stream.clone(),
            version,
            position,
            recorded_at: *recorded_at,
        })
    }

    fn next_position(&self) -> Position {
        let last = i64::try_from(self.events.len()).unwrap_or(i64::MAX);
        Position::ORIGIN.saturating_add(last).saturating_add(1)
    }

    fn by_id(&self, id: EventId) -> Option<&RecordedEvent> {
        let index = self.ids.get(&id).filter(|index| !self.absent.contains_key(index))?;
        self.events.get(*index)
    }

    /// The id of the event that was recorded at a position, also if it is absent.
    pub(super) fn id_at(&self, position: Position) -> Option<EventId> {
        let index = usize::try_from(position.get()).ok()?.checked_sub(1)?;
        self.events.get(index).map(|event| event.id)
    }

    /// The last position; the origin before the first event.
    pub(super) fn end(&self) -> Position {
        self.events.last().map_or(Position::ORIGIN, |event| event.position)
    }

    pub(crate) fn read<K: Key>(&self, read: &Read<K>) -> Vec<RecordedEvent> {
        let events_max = usize::try_from(read.events_max).unwrap_or(usize::MAX);
        let with_tag = read.of_tag().map(|tag| self.tags.get(tag));
        let mut events: Vec<_> = self.events.iter().enumerate().collect();
        if let Some(indices) = with_tag {
            events.retain(|(index, _)| indices.is_some_and(|indices| indices.contains(index)));
        }
        if read.is_backwards {
            events.reverse();
        }
        let mut removed = 0;
        let selected = events.into_iter().filter_map(|(index, event)| {
            let absence = self.absent.get(&index);
            if absence.is_some_and(|absence| !read.has_archived || *absence == Absence::Removed) {
                removed += u64::from(read.counts_removed(event));
                return None;
            }
            let is_selected = read.selects(event);
            is_selected.then(|| RecordedEvent {
                removed_before: std::mem::take(&mut removed),
                ..event.clone()
            })
        });
        selected.take(events_max).collect()
    }

    /// Makes the present events of a stream below a version absent; their number.
    pub(super) fn take_out(
        &mut self,
        stream: &StreamName,
        before: Option<Version>,
        absence: Absence,
    ) -> u64 {
        let present =
            self.indices(stream).iter().filter(|index| !self.absent.contains_key(index)).copied();
        let is_before = |index: &usize| {
            let version = self.events.get(*index).map(|event| event.version);
            before.is_none_or(|before| version < Some(before))
        };
        let taken: Vec<usize> = present.filter(is_before).collect();
        self.absent.extend(taken.iter().map(|index| (*index, absence)));
        taken.len() as u64
    }

    /// Makes the archived events of a stream present; their number.
    pub(super) fn put_back(&mut self, stream: &StreamName) -> u64 {
        let archived = self.archived(stream);
        for index in &archived {
            self.absent.remove(index);
        }
        archived.len() as u64
    }

    /// Whether an id of an archived event was recorded again meanwhile.
    pub(super) fn has_other_events_with_archived_ids(&self, stream: &StreamName) -> bool {
        let mut ids = self.archived(stream).into_iter().filter_map(|index| {
            let event = self.events.get(index)?;
            Some((index, self.ids.get(&event.id)?))
        });
        ids.any(|(index, last)| index != *last)
    }

    fn indices(&self, stream: &StreamName) -> &[usize] {
        self.streams.get(stream).map(Vec::as_slice).unwrap_or_default()
    }

    fn archived(&self, stream: &StreamName) -> BTreeSet<usize> {
        let is_archived = |index: &&usize| self.absent.get(index) == Some(&Absence::Archived);
        self.indices(stream).iter().filter(is_archived).copied().collect()
    }

    /// The number of absent events of a stream up to a version.
    pub(super) fn absent_up_to(&self, stream: &StreamName, version: Version) -> u64 {
        let up_to = usize::try_from(version.get()).unwrap_or(usize::MAX).saturating_add(1);
        let indices = self.indices(stream).iter().take(up_to);
        indices.filter(|index| self.absent.contains_key(index)).count() as u64
    }

    /// Appends, with the checks of the database in their order.
    pub(crate) fn append(&mut self, append: &Append) -> Result<Appended, AppendError> {
        self.register_schemas(append)?;
        if append.events().any(|event| self.by_id(event.id).is_some()) {
            return self.repeated(append);
        }
        let tag_conflicts: Vec<_> = self.tag_conflicts(append).map(Refusal::TagConflict).collect();
        if !tag_conflicts.is_empty() {
            return Err(AppendError::Refused(tag_conflicts));
        }
        let conflicts = self.conflicts(append).map(Refusal::Conflict);
        let refusals: Vec<Refusal> = conflicts.chain(self.closed_to(append)).collect();
        if !refusals.is_empty() {
            return Err(AppendError::Refused(refusals));
        }
        Ok(self.record(append))
    }

    fn register_schemas(&mut self, append: &Append) -> Result<(), AppendError> {
        let mode = self.compatibility;
        for (category, event) in append.by_category() {
            let schema = event.schema;
            let known = self.schemas.entry(category.to_owned()).or_default();
            if known.iter().any(|known| known.fingerprint() == schema.fingerprint()) {
                continue;
            }
            let earlier = known.iter().filter(|known| known.full_name() == schema.full_name());
            let incompatible =
                earlier.flat_map(|earlier| incompatibilities(mode, &schema, earlier));
            let refusals: Vec<_> =
                refused_elsewhere(event).into_iter().chain(incompatible).collect();
            if !refusals.is_empty() {
                return Err(AppendError::Refused(refusals));
            }
            known.push(schema);
        }
        Ok(())
    }

    /// The original answer, if all events are recorded with the same content.
    fn repeated(&self, append: &Append) -> Result<Appended, AppendError> {
        let found = append.events.iter().filter_map(|(index, event)| {
            let (stream, _) = append.streams.get(*index)?;
            Some((stream, event, self.by_id(event.id)?))
        });
        let found: Vec<_> = found.collect();
        let mut refusals: Vec<_> =
            found.iter().filter_map(|(stream, event, held)| taken(stream, event, held)).collect();
        if found.len() < append.events.len() {
            let event_ids = found.iter().map(|(_, event, _)| event.id).collect();
            refusals.push(Refusal::PartlyKnown { event_ids });
        }
        if !refusals.is_empty() {
            return Err(AppendError::Refused(refusals));
        }
        Ok(Appended {
            events: found.iter().map(|(_, _, held)| (held.version, held.position)).collect(),
            recorded_at: found.iter().map(|(_, _, held)| held.recorded_at).min(),
            repeated: true,
        })
    }

    fn conflicts(&self, append: &Append) -> impl Iterator<Item = Conflict> {
        let events_max = usize::try_from(append.conflict_events_max).unwrap_or(0);
        append.streams.iter().filter_map(move |(stream, expected)| {
            let (expected, actual) = (*expected, self.version(stream));
            if is_met(expected, actual) {
                return None;
            }
            let from = match expected {
                ExpectedVersion::Exactly(version) => version.next(),
                ExpectedVersion::Any
                | ExpectedVersion::NoStream
                | ExpectedVersion::StreamExists => Version::FIRST,
            };
            let since = Read::stream(stream).from(from).events_max(events_max as u64);
            // Without the number of removed events, which only reads count.
            let events = self.read(&since).into_iter();
            let events = events.map(|event| RecordedEvent { removed_before: 0, ..event }).collect();
            Some(Conflict { stream: stream.clone(), expected, actual, events })
        })
    }

    fn tag_conflicts(&self, append: &Append) -> impl Iterator<Item = TagConflict> {
        let events_max = usize::try_from(append.conflict_events_max).unwrap_or(0);
        append.conditions.iter().filter_map(move |condition| {
            let AppendCondition { tag, after, .. } = condition;
            let mut events = self.read(&Read::tag(tag));
            events.retain(|event| condition.is_broken_by(event));
            let last = events.last()?.position;
            events.truncate(events_max);
            Some(TagConflict { tag: tag.clone(), after: *after, last, events })
        })
    }

    /// The refusals by closed streams. One without events of the append is only checked.
    fn closed_to(&self, append: &Append) -> impl Iterator<Item = Refusal> {
        append.streams.iter().enumerate().filter_map(|(index, (stream, _))| {
            let closed_at = self.closed_at(stream)?;
            let has_events = append.events.iter().any(|(of, _)| *of == index);
            has_events.then(|| Refusal::StreamClosed { stream: stream.clone(), closed_at })
        })
    }

    fn record(&mut self, append: &Append) -> Appended {
        let mut appended = Appended::nothing();
        let now = now();
        for (index, event) in &append.events {
            let Some((stream, _)) = append.streams.get(*index) else { continue };
            let version = Version::after(self.version(stream));
            let position = self.next_position();
            self.ids.insert(event.id, self.events.len());
            for tag in &event.tags {
                self.tags.entry(tag.clone()).or_default().insert(self.events.len());
            }
            self.streams.entry(stream.clone()).or_default().push(self.events.len());
            self.events.push(event.recorded(stream, (version, position), Some(now)));
            appended.events.push((version, position));
            appended.recorded_at = Some(now);
        }
        appended
    }
}

/// The time in microseconds, as PostgreSQL records it.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

fn is_met(expected: ExpectedVersion, actual: Option<Version>) -> bool {
    match expected {
        ExpectedVersion::Any => true,
        ExpectedVersion::NoStream => actual.is_none(),
        ExpectedVersion::StreamExists => actual.is_some(),
        ExpectedVersion::Exactly(version) => actual == Some(version),
    }
}

fn taken(stream: &StreamName, event: &NewEvent, held: &RecordedEvent) -> Option<Refusal> {
    let fields = [
        ("stream", held.stream != *stream),
        ("event_type", held.event_type != event.event_type),
        ("schema", held.schema.fingerprint() != event.schema.fingerprint()),
        ("payload", held.payload != event.payload),
    ];
    let differs: Vec<String> = fields
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(field, _)| field.to_owned())
        .collect();
    let (event_id, stream) = (event.id, held.stream.to_string());
    (!differs.is_empty()).then_some(Refusal::IdTaken { event_id, stream, differs })
}

fn incompatibilities(compatibility: Compatibility, new: &Schema, earlier: &Schema) -> Vec<Refusal> {
    let broken = compatibility.broken_by(new, earlier).into_iter();
    let refusal = |(breaks, reason): (Broken, Incompatible)| {
        let (full_name, reason) = (new.full_name().to_owned(), reason.to_string());
        Refusal::IncompatibleSchema { full_name, earlier: earlier.fingerprint(), breaks, reason }
    };
    broken.map(refusal).collect()
}
