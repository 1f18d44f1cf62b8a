//! From records to the events of one transaction: filtered, decoded, in order.

use std::collections::HashMap;
use std::sync::Arc;

use annals_schemas::{DecodeError, EventSet};
use uuid::Uuid;

use crate::envelope::Delivered;
use crate::filter::{Fault, LastApplied, Verdict, VersionFilter};
use crate::registry::{DecodeFailure, Schemas};
use crate::runner::RunError;

/// An event, decoded, with what it was delivered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<E> {
    /// The event itself.
    pub data: E,
    /// The record it came in: stream, version, ids, times, place.
    pub delivered: Delivered,
}

/// What a projection does with event types that its [`EventSet`] does not declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownEvents {
    /// Ends the run with an error that names the type: nothing is passed over unseen.
    #[default]
    Refuse,
    /// Passes over them: the read model needs only some of the category's events.
    Skip,
}

/// What is to be applied in one transaction.
#[derive(Debug)]
pub(crate) struct Batch<E> {
    pub(crate) events: Vec<Event<E>>,
    /// Records of types to pass over, each with the number of events before it.
    skipped: Vec<(usize, Delivered)>,
    /// The last record of each partition, and its event.
    pub(crate) ends: HashMap<(Arc<str>, i32), (i64, Uuid)>,
    /// What is last applied of each stream, once the batch is committed.
    pub(crate) lasts: HashMap<String, LastApplied>,
    pub(crate) duplicates: usize,
    /// What ended the batch early; the records before it are still to be applied.
    pub(crate) fault: Option<RunError>,
}

impl<E: EventSet> Batch<E> {
    /// Waits only where a schema is not known yet and the registry is away.
    pub(crate) async fn sift(
        records: Vec<Delivered>,
        filter: &mut VersionFilter,
        schemas: &Schemas,
        unknown: UnknownEvents,
    ) -> Self {
        let mut batch = Self {
            events: Vec::with_capacity(records.len()),
            skipped: Vec::new(),
            ends: HashMap::new(),
            lasts: HashMap::new(),
            duplicates: 0,
            fault: None,
        };
        for record in records {
            let key = (Arc::clone(&record.topic), record.partition);
            let end = (record.offset, record.event_id);
            if let Err(fault) = batch.take(record, filter, schemas, unknown).await {
                batch.fault = Some(fault);
                break;
            }
            batch.ends.insert(key, end);
        }
        batch
    }

    async fn take(
        &mut self,
        record: Delivered,
        filter: &mut VersionFilter,
        schemas: &Schemas,
        unknown: UnknownEvents,
    ) -> Result<(), RunError> {
        let verdict = filter
            .check(&record.stream, record.version, record.event_id)
            .map_err(|fault| refused(fault, &record))?;
        if verdict == Verdict::Duplicate {
            self.duplicates += 1;
            return Ok(());
        }
        let stream = record.stream.clone();
        match record.decode::<E>(schemas).await {
            Ok(data) => self.events.push(Event { data, delivered: record }),
            Err(DecodeFailure::Payload {
                source: DecodeError::UnknownEventType { .. }, ..
            }) if unknown == UnknownEvents::Skip => self.skipped.push((self.events.len(), record)),
            Err(failure) => return Err(failure.into()),
        }
        if let Some(last) = filter.last_applied(&stream) {
            self.lasts.insert(stream, last.clone());
        }
        Ok(())
    }
}

fn refused(fault: Fault, record: &Delivered) -> RunError {
    let place = record.place();
    match fault {
        Fault::Gap(gap) => RunError::Gap { place, gap },
        Fault::Forked(fork) => RunError::Forked { place, fork },
    }
}

impl<E> Batch<E> {
    pub(crate) fn skipped(&self) -> usize {
        self.skipped.len()
    }

    /// The records that are not duplicates, as they came.
    pub(crate) fn into_records(self) -> Vec<Delivered> {
        let mut records = Vec::with_capacity(self.events.len() + self.skipped.len());
        let mut skipped = self.skipped.into_iter().peekable();
        for (before, event) in self.events.into_iter().enumerate() {
            while let Some((_, record)) = skipped.next_if(|(place, _)| *place <= before) {
                records.push(record);
            }
            records.push(event.delivered);
        }
        records.extend(skipped.map(|(_, record)| record));
        records
    }
}
