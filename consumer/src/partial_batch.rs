//! The records of a batch that is not complete.

use std::mem;

use crate::fetched_record::{FetchedRecord, value_bytes};
use crate::projection::ProjectionLimits;

/// Records, up to the limits of a batch.
#[derive(Debug)]
pub(crate) struct PartialBatch {
    records: Vec<FetchedRecord>,
    bytes: usize,
    limits: ProjectionLimits,
}

impl PartialBatch {
    pub(crate) fn new(limits: ProjectionLimits) -> Self {
        Self { records: Vec::new(), bytes: 0, limits }
    }

    pub(crate) fn push(&mut self, record: FetchedRecord) {
        self.bytes += value_bytes(&record);
        self.records.push(record);
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.limits.batch_events_max || self.bytes >= self.limits.batch_bytes_max
    }

    /// The records, if there are any.
    pub(crate) fn take(&mut self) -> Option<Vec<FetchedRecord>> {
        self.bytes = 0;
        let records = mem::take(&mut self.records);
        (!records.is_empty()).then_some(records)
    }
}
