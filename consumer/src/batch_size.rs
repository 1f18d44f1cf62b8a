//! How many records one transaction applies: fewer after a limit was exceeded.

use std::collections::VecDeque;

use crate::fetched_record::FetchedRecord;

/// Committed transactions after which the size doubles again.
const COMMITS_BEFORE_GROWTH: u32 = 32;

/// The number of records of one transaction.
#[derive(Debug)]
pub(crate) struct BatchSize {
    records: usize,
    records_max: usize,
    commits: u32,
}

impl BatchSize {
    pub(crate) fn new(records_max: usize) -> Self {
        Self { records: records_max, records_max, commits: 0 }
    }

    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Halves the size of a batch that exceeded a limit.
    pub(crate) fn shrink(&mut self, records: usize) {
        self.records = (records.min(self.records) / 2).max(1);
        self.commits = 0;
    }

    pub(crate) fn record_commit(&mut self) {
        if self.records == self.records_max {
            return;
        }
        self.commits += 1;
        if self.commits >= COMMITS_BEFORE_GROWTH {
            self.records = (self.records * 2).min(self.records_max);
            self.commits = 0;
        }
    }
}

/// Records in parts of at most so many.
pub(crate) fn parts_of(
    records: Vec<FetchedRecord>,
    records_max: usize,
) -> VecDeque<Vec<FetchedRecord>> {
    if records.len() <= records_max {
        return VecDeque::from([records]);
    }
    let mut parts = VecDeque::new();
    split(&mut parts, records, records_max);
    parts
}

/// Puts records before the other parts, in parts of at most so many.
pub(crate) fn split(
    parts: &mut VecDeque<Vec<FetchedRecord>>,
    mut records: Vec<FetchedRecord>,
    records_max: usize,
) {
    while !records.is_empty() {
        let last = (records.len() - 1) / records_max * records_max;
        parts.push_front(records.split_off(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_shrinks_to_one_record_and_grows_back_to_its_maximum() {
        let mut size = BatchSize::new(100);
        size.shrink(30);
        assert_eq!(size.records(), 15);
        for _ in 0..10 {
            size.shrink(size.records());
        }
        assert_eq!(size.records(), 1);
        for _ in 0..7 * COMMITS_BEFORE_GROWTH {
            size.record_commit();
        }
        assert_eq!(size.records(), 100);
    }
}
