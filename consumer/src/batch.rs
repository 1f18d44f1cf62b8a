//! Filters and decodes records: the events of one transaction, in order.

use std::collections::HashMap;
use std::sync::Arc;

use annals_schemas::{DecodeError, EventSet, UnknownEvents};
use uuid::Uuid;

use crate::envelope::Delivered;
use crate::error::RunError;
use crate::position::{Offset, TopicPartition};
use crate::registry::{DecodeRecordError, SchemaRegistry};
use crate::version_filter::{FilterDecision, FilterError, LastApplied, VersionFilter};

/// A decoded event with its record.
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
    /// Skipped records, each with the number of events before it.
    skipped: Vec<(usize, Delivered)>,
    /// The last record of each partition, and its event.
    pub(crate) ends: HashMap<TopicPartition, (Offset, Uuid)>,
    /// The last applied events of each stream after the commit.
    pub(crate) versions: HashMap<String, LastApplied>,
    pub(crate) duplicates: usize,
    /// The error that ended the batch; the records before it are applied.
    pub(crate) error: Option<RunError>,
}

impl<E: EventSet> EventBatch<E> {
    /// Waits only for a schema that is not cached while the registry is unavailable.
    pub(crate) async fn filter_and_decode(
        records: Vec<Delivered>,
        filter: &mut VersionFilter,
        schemas: &SchemaRegistry,
        unknown: UnknownEvents,
    ) -> Self {
        let mut batch = Self {
            events: Vec::with_capacity(records.len()),
            skipped: Vec::new(),
            ends: HashMap::new(),
            versions: HashMap::new(),
            duplicates: 0,
            error: None,
        };
        for record in records {
            let key = (Arc::clone(&record.topic), record.partition);
            let end = (record.offset, record.event_id);
            if let Err(error) = batch.add(record, filter, schemas, unknown).await {
                batch.error = Some(error);
                break;
            }
            batch.ends.insert(key, end);
        }
        batch
    }

    async fn add(
        &mut self,
        record: Delivered,
        filter: &mut VersionFilter,
        schemas: &SchemaRegistry,
        unknown: UnknownEvents,
    ) -> Result<(), RunError> {
        let decision =
            filter.check_delivered(&record).map_err(|error| run_error(error, &record))?;
        if decision == FilterDecision::Duplicate {
            self.duplicates += 1;
            return Ok(());
        }
        let stream = record.stream.clone();
        match record.decode::<E>(schemas).await {
            Ok(data) => self.events.push(DeliveredEvent { data, delivered: record }),
            Err(DecodeRecordError::Payload {
                source: DecodeError::UnknownEventType { .. },
                ..
            }) if unknown == UnknownEvents::Skip => self.skipped.push((self.events.len(), record)),
            Err(failure) => return Err(failure.into()),
        }
        if let Some(last) = filter.last_applied(&stream) {
            self.versions.insert(stream, last.clone());
        }
        Ok(())
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
    pub(crate) fn skipped(&self) -> usize {
        self.skipped.len()
    }

    /// The records that are not duplicates, in the order of delivery.
    pub(crate) fn into_records(self) -> Vec<Delivered> {
        let mut records = Vec::with_capacity(self.events.len() + self.skipped.len());
        let mut skipped = self.skipped.into_iter().peekable();
        for (before, event) in self.events.into_iter().enumerate() {
            while let Some((_, record)) = skipped.next_if(|(location, _)| *location <= before) {
                records.push(record);
            }
            records.push(event.delivered);
        }
        records.extend(skipped.map(|(_, record)| record));
        records
    }
}
