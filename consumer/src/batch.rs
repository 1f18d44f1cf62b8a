//! Filters and decodes records: the events of one transaction, in order.

use std::collections::{HashMap, HashSet};
use std::error::Error;

use annals_schemas::{DecodeError, EventSet, UnknownEvents};
use uuid::Uuid;

use crate::dead_letter::DeadLetter;
use crate::envelope::Delivered;
use crate::error::RunError;
use crate::fetched_record::{FetchedRecord, identity, location};
use crate::filter_error::FilterError;
use crate::position::{Offset, RecordLocation, TopicPartition};
use crate::progress::LastApplied;
use crate::projection::RecordPolicies;
use crate::registry::{DecodeRecordError, SchemaRegistry};
use crate::version_filter::{FilterDecision, VersionFilter};

/// A decoded event with its record. Of a record whose event an upcaster makes several of, each has
/// that record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredEvent<E> {
    /// The event.
    pub data: E,
    /// Its record: stream, version, ids, times and location.
    pub delivered: Delivered,
}

/// The events to apply in one transaction.
#[derive(Debug)]
pub(crate) struct EventBatch<E> {
    pub(crate) events: Vec<DeliveredEvent<E>>,
    /// The number of records with these events.
    pub(crate) records: usize,
    /// Records without an event to apply, each with the number of events before it.
    passed: Vec<(usize, PassedRecord)>,
    /// The last record of each partition, and its identity.
    pub(crate) ends: HashMap<TopicPartition, (Offset, Uuid)>,
    /// The last applied events of each stream after the commit; set by [`Self::keep_versions`].
    pub(crate) versions: HashMap<String, LastApplied>,
    pub(crate) duplicates: usize,
    /// The error that ended the batch; the records before it are applied.
    pub(crate) error: Option<RunError>,
}

/// A record that the projection passes.
#[derive(Debug)]
enum PassedRecord {
    /// Its event type is not declared.
    Skipped(Box<Delivered>),
    /// It cannot be applied.
    DeadLetter(DeadLetter),
}

impl<E: EventSet> EventBatch<E> {
    /// Waits only for a schema that is not cached while the registry is unavailable.
    pub(crate) async fn filter_and_decode(
        records: Vec<FetchedRecord>,
        filter: &mut VersionFilter,
        schemas: &SchemaRegistry,
        policies: &RecordPolicies,
    ) -> Self {
        let mut batch = Self {
            events: Vec::with_capacity(records.len()),
            records: 0,
            passed: Vec::new(),
            ends: HashMap::new(),
            versions: HashMap::new(),
            duplicates: 0,
            error: None,
        };
        // The last record of those before that are of one partition, and its identity.
        let mut run: Option<(RecordLocation, Uuid)> = None;
        for record in records {
            let (location, identity) = (location(&record), identity(&record));
            let added = match record {
                Ok(event) => batch.add(event, filter, schemas, policies).await,
                Err(error) => {
                    batch.pass(DeadLetter::NotAnEvent(error), policies).map_or(Ok(()), Err)
                }
            };
            if let Err(error) = added {
                batch.error = Some(error);
                break;
            }
            batch.end_run(run.take_if(|(last, _)| !location.is_in_partition_of(last)));
            run = Some((location, identity));
        }
        batch.end_run(run);
        batch
    }

    fn end_run(&mut self, run: Option<(RecordLocation, Uuid)>) {
        if let Some((last, identity)) = run {
            self.ends.insert(last.topic_partition(), (last.offset, identity));
        }
    }

    async fn add(
        &mut self,
        record: Delivered,
        filter: &mut VersionFilter,
        schemas: &SchemaRegistry,
        policies: &RecordPolicies,
    ) -> Result<(), RunError> {
        let decision = filter.decide(&record).map_err(|error| run_error(error, &record))?;
        if decision == FilterDecision::Duplicate {
            self.duplicates += 1;
            return Ok(());
        }
        let letter = match record.decode_all::<E>(schemas).await {
            Ok(data) => {
                filter.advance(&record.stream, record.version, record.event_id);
                self.decoded(record, data);
                return Ok(());
            }
            Err(DecodeRecordError::Payload {
                source: DecodeError::UnknownEventType { .. },
                ..
            }) if policies.unknown_events == UnknownEvents::Skip => {
                filter.advance(&record.stream, record.version, record.event_id);
                self.passed.push((self.events.len(), PassedRecord::Skipped(Box::new(record))));
                return Ok(());
            }
            Err(failure) => DeadLetter::Undecodable(Box::new(record), failure),
        };
        if let Some(event) = letter.event().filter(|_| !policies.unreadable.stops()) {
            filter.advance(&event.stream, event.version, event.event_id);
        }
        self.pass(letter, policies).map_or(Ok(()), Err)
    }
}

impl<E> EventBatch<E> {
    /// Adds the events of a record. One without events, by its upcaster, is skipped.
    fn decoded(&mut self, record: Delivered, mut data: Vec<E>) {
        let Some(last) = data.pop() else {
            self.passed.push((self.events.len(), PassedRecord::Skipped(Box::new(record))));
            return;
        };
        let events = data.into_iter();
        self.events.extend(events.map(|data| DeliveredEvent { data, delivered: record.clone() }));
        self.events.push(DeliveredEvent { data: last, delivered: record });
        self.records += 1;
    }
}

fn run_error(error: FilterError, record: &Delivered) -> RunError {
    let location = record.location();
    match error {
        FilterError::Gap(gap) => RunError::Gap { location, gap },
        FilterError::Forked(fork) => RunError::Forked { location, fork },
    }
}

impl<E> EventBatch<E> {
    /// Passes a record that cannot be read, or returns the error that ends the run.
    fn pass(&mut self, letter: DeadLetter, policies: &RecordPolicies) -> Option<RunError> {
        if policies.unreadable.stops() {
            return Some(letter.into_run_error());
        }
        self.passed.push((self.events.len(), PassedRecord::DeadLetter(letter)));
        None
    }

    /// Makes a dead letter of the single record whose events the handler rejected.
    pub(crate) fn reject(&mut self, error: Box<dyn Error + Send + Sync>) {
        let rejected = self.events.pop();
        (self.records, self.events) = (0, Vec::new());
        if let Some(DeliveredEvent { delivered, .. }) = rejected {
            let letter = DeadLetter::Rejected(Box::new(delivered), error);
            self.passed.push((0, PassedRecord::DeadLetter(letter)));
        }
    }

    pub(crate) fn skipped(&self) -> usize {
        self.passed.len() - self.dead_letters().count()
    }

    pub(crate) fn dead_letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.passed.iter().filter_map(|(_, record)| match record {
            PassedRecord::Skipped(_) => None,
            PassedRecord::DeadLetter(letter) => Some(letter),
        })
    }

    /// Takes the versions of the streams that the batch changes from its filter.
    pub(crate) fn keep_versions(&mut self, filter: VersionFilter) {
        self.versions = filter.into_last();
        if self.duplicates > 0 || self.error.is_some() {
            let passed = self.passed.iter().filter_map(|(_, record)| record.event());
            let events = self.events.iter().map(|event| &event.delivered);
            let changed: HashSet<&str> =
                events.chain(passed).map(|event| event.stream.as_str()).collect();
            self.versions.retain(|stream, _| changed.contains(stream.as_str()));
        }
    }

    /// The number of records that handlers process: those with events, and dead letters.
    pub(crate) fn handled(&self) -> usize {
        self.records + self.dead_letters().count()
    }

    /// The records that are not duplicates, in the order of delivery.
    pub(crate) fn into_records(self) -> Vec<FetchedRecord> {
        let mut records: Vec<FetchedRecord> = Vec::with_capacity(self.records + self.passed.len());
        let mut passed = self.passed.into_iter().peekable();
        for (before, event) in self.events.into_iter().enumerate() {
            while let Some((_, record)) = passed.next_if(|(place, _)| *place <= before) {
                records.push(record.into_record());
            }
            let is_of_record = |of: &FetchedRecord| location(of) == event.delivered.location();
            if !records.last().is_some_and(is_of_record) {
                records.push(Ok(event.delivered));
            }
        }
        records.extend(passed.map(|(_, record)| record.into_record()));
        records
    }
}

impl PassedRecord {
    fn event(&self) -> Option<&Delivered> {
        match self {
            Self::Skipped(event) => Some(event),
            Self::DeadLetter(letter) => letter.event(),
        }
    }

    fn into_record(self) -> FetchedRecord {
        match self {
            Self::Skipped(event) => Ok(*event),
            Self::DeadLetter(letter) => letter.into_record(),
        }
    }
}
