//! Which part of each partition to read: the last few records first, and more of them while a
//! shard's record is missing. A partition of checkpoints has millions of records, and only the last
//! one of each shard counts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::model::offsets::{OffsetRange, RecordOffset};

/// How many offsets before the end are read first.
const OFFSETS_FIRST: u64 = 500;
/// The factor by which that grows each time.
const FACTOR: u64 = 20;

/// The shards to find, by partition. Of a partition without any, only the end is read.
pub(crate) type WantedShards = BTreeMap<u16, BTreeSet<u16>>;
/// The last record of each partition and shard; `None` for a deletion.
pub(crate) type LastRecords = BTreeMap<(i32, u16), Option<Vec<u8>>>;

/// The partitions that are still to be read, and the records found so far.
pub(crate) struct TailScan {
    open: BTreeMap<u16, PartitionTail>,
    records: LastRecords,
}

/// The part of a partition that is to be read.
struct PartitionTail {
    /// The first offset of the partition.
    first: RecordOffset,
    /// The offset to read from.
    start: RecordOffset,
    /// The end offset when the scan began.
    end: RecordOffset,
    /// The shards without a record so far.
    wanted: BTreeSet<u16>,
}

impl TailScan {
    /// Partitions with their first and their end offsets.
    pub(crate) fn new(
        wanted: &WantedShards,
        ends: impl IntoIterator<Item = (u16, OffsetRange)>,
    ) -> Self {
        let tail = |(partition, OffsetRange { first, end }): (u16, OffsetRange)| {
            let wanted = wanted.get(&partition).cloned().unwrap_or_default();
            (
                partition,
                PartitionTail { first, start: first.max(end.back(OFFSETS_FIRST)), end, wanted },
            )
        };
        let open = ends.into_iter().map(tail).filter(|(_, tail)| tail.end > tail.first);
        Self { open: open.collect(), records: LastRecords::new() }
    }

    /// Partitions that are read from given offsets to their ends.
    pub(crate) fn between(parts: impl IntoIterator<Item = (u16, OffsetRange)>) -> Self {
        let tail = |(partition, OffsetRange { first, end })| {
            (partition, PartitionTail { first, start: first, end, wanted: BTreeSet::new() })
        };
        let open = parts.into_iter().map(tail).filter(|(_, tail)| tail.end > tail.start);
        Self { open: open.collect(), records: LastRecords::new() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// The records that were found.
    pub(crate) fn records(self) -> LastRecords {
        self.records
    }

    /// The offset to read from, by partition.
    pub(crate) fn starts(&self) -> impl Iterator<Item = (i32, RecordOffset)> {
        self.open.iter().map(|(partition, tail)| (i32::from(*partition), tail.start))
    }

    /// The number of offsets to read.
    pub(crate) fn offsets(&self) -> u64 {
        self.open.values().map(|tail| tail.end.since(tail.start)).sum()
    }

    /// Whether every partition is fetched up to its end. `next` has the next offset to fetch.
    pub(crate) fn are_fetched(&self, next: &BTreeMap<i32, RecordOffset>) -> bool {
        self.missing_ones(next).next().is_none()
    }

    /// The partitions that are not, for operators.
    pub(crate) fn missing(&self, next: &BTreeMap<i32, RecordOffset>) -> String {
        let missing: Vec<String> = self
            .missing_ones(next)
            .map(|(partition, at, end)| format!("partition {partition} at offset {at} of {end}"))
            .collect();
        format!(
            "an open transaction of another producer, or a partition without a leader, blocks {}; if that lasts, \
             see kafka-transactions.sh find-hanging",
            missing.join(", ")
        )
    }

    /// Takes the last records that were read. A partition that lacks a record is read again from an
    /// earlier offset, unless it was read whole.
    pub(crate) fn take(&mut self, last: LastRecords) {
        self.records.extend(last);
        for (partition, mut tail) in std::mem::take(&mut self.open) {
            tail.wanted.retain(|shard| !self.records.contains_key(&(partition.into(), *shard)));
            if !tail.wanted.is_empty() && tail.start > tail.first {
                let offsets = tail.end.since(tail.start).saturating_mul(FACTOR);
                tail.start = tail.first.max(tail.end.back(offsets));
                self.open.insert(partition, tail);
            }
        }
    }

    fn missing_ones(
        &self,
        next: &BTreeMap<i32, RecordOffset>,
    ) -> impl Iterator<Item = (u16, RecordOffset, RecordOffset)> {
        let place = |(partition, tail): (&u16, &PartitionTail)| {
            let at =
                next.get(&i32::from(*partition)).copied().unwrap_or(tail.start).max(tail.start);
            (*partition, at, tail.end)
        };
        self.open.iter().map(place).filter(|(_, at, end)| at < end)
    }
}

/// The next offset to fetch of each partition, by topic.
pub(crate) type Fetched = BTreeMap<String, BTreeMap<i32, RecordOffset>>;

/// The next offsets to fetch, from librdkafka's statistics.
pub(crate) fn fetched(statistics: &[u8]) -> Option<Fetched> {
    #[derive(Deserialize)]
    struct Statistics {
        topics: BTreeMap<String, Topic>,
    }
    #[derive(Deserialize)]
    struct Topic {
        partitions: BTreeMap<i32, Partition>,
    }
    #[derive(Deserialize)]
    struct Partition {
        next_offset: RecordOffset,
    }
    let Statistics { topics } = serde_json::from_slice(statistics).ok()?;
    let partitions = |topic: Topic| {
        topic.partitions.into_iter().map(|(number, partition)| (number, partition.next_offset))
    };
    Some(topics.into_iter().map(|(name, topic)| (name, partitions(topic).collect())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Partitions in which the shard of the same number is to be found.
    fn range(first: i64, end: i64) -> OffsetRange {
        OffsetRange { first: RecordOffset::new(first), end: RecordOffset::new(end) }
    }

    fn next<const N: usize>(offsets: [(i32, i64); N]) -> BTreeMap<i32, RecordOffset> {
        offsets.map(|(partition, offset)| (partition, RecordOffset::new(offset))).into()
    }

    fn tails(ends: &[(i64, i64)]) -> TailScan {
        let own = (0..).zip(ends).map(|(partition, _)| (partition, [partition].into()));
        TailScan::new(
            &own.collect(),
            (0..).zip(ends.iter().map(|(first, end)| range(*first, *end))),
        )
    }

    fn starts(tails: &TailScan) -> Vec<(i32, i64)> {
        tails.starts().map(|(partition, start)| (partition, start.get())).collect()
    }

    #[test]
    fn only_the_end_is_read_and_an_empty_partition_not_at_all() {
        let tails = tails(&[(0, 1_000_000), (7, 7), (10, 60)]);
        assert_eq!(starts(&tails), [(0, 999_500), (2, 10)]);
    }

    #[test]
    fn a_partition_is_fetched_when_the_next_offset_is_its_end() {
        let tails = tails(&[(0, 10), (0, 20)]);
        assert!(!tails.are_fetched(&BTreeMap::new()));
        assert!(!tails.are_fetched(&next([(0, 10), (1, 19)])));
        assert!(
            tails
                .missing(&next([(0, 10), (1, 19)]))
                .contains("blocks partition 1 at offset 19 of 20;")
        );
        assert!(tails.are_fetched(&next([(0, 11), (1, 20)])));
    }

    #[test]
    fn where_no_record_is_committed_it_is_looked_for_further_back_until_the_first_offset() {
        let mut tails = tails(&[(100, 30_000), (0, 10)]);
        tails.take([((1, 1), Some(b"one".to_vec()))].into());
        assert_eq!(starts(&tails), [(0, 20_000)]);
        tails.take(BTreeMap::new());
        assert_eq!(starts(&tails), [(0, 100)]);
        tails.take(BTreeMap::new());
        assert!(tails.is_done());
        assert_eq!(tails.records(), [((1, 1), Some(b"one".to_vec()))].into());
    }

    #[test]
    fn a_deletion_is_no_record_and_nothing_before_it_counts() {
        let mut tails = tails(&[(0, 30_000)]);
        tails.take([((0, 0), None)].into());
        assert!(tails.is_done());
        assert_eq!(tails.records(), [((0, 0), None)].into());
    }

    #[test]
    fn a_partition_is_read_from_further_back_while_one_of_its_shards_is_missing() {
        let mut tails = TailScan::new(&[(0, [0, 3].into())].into(), [(0, range(0, 600))]);
        let (of_0, of_3) = (Some(b"of 0".to_vec()), Some(b"of 3".to_vec()));
        tails.take([((0, 0), of_0.clone()), ((0, 5), Some(b"of 5".to_vec()))].into());
        assert_eq!(starts(&tails), [(0, 0)]);
        tails.take([((0, 0), of_0.clone()), ((0, 3), of_3.clone())].into());
        assert!(tails.is_done());
        let records = tails.records();
        assert_eq!((&records[&(0, 0)], &records[&(0, 3)]), (&of_0, &of_3));
    }
}
