//! Reading partitions from their end: a few last records first, and from ever further back where
//! these do not hold what is looked for. A partition of checkpoints has millions of records, and one of each shard that
//! counts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// How many last offsets are read first.
const OFFSETS_FIRST: i64 = 500;
/// How many times as many are read the next time.
const FACTOR: i64 = 20;

/// The shards whose records are looked for, by partition. Of one without, the end is read.
pub(crate) type Wanted = BTreeMap<u16, BTreeSet<u16>>;
/// The last records that were read, by partition and shard; `None` for a deletion.
pub(crate) type Last = BTreeMap<(i32, u16), Option<Vec<u8>>>;

/// What is to be read still, and what was found.
pub(crate) struct Tails {
    open: BTreeMap<u16, Tail>,
    records: Last,
}

/// The end of a partition.
struct Tail {
    /// The first offset that there is.
    first: i64,
    /// From where to read.
    start: i64,
    /// The end at the beginning of the reading: everything before it counts.
    end: i64,
    /// The shards of which no record was found yet.
    wanted: BTreeSet<u16>,
}

impl Tails {
    /// For partitions, each with its first offset and its end.
    pub(crate) fn new(wanted: &Wanted, ends: impl IntoIterator<Item = (u16, (i64, i64))>) -> Self {
        let tail = |(partition, (first, end)): (u16, (i64, i64))| {
            let wanted = wanted.get(&partition).cloned().unwrap_or_default();
            (partition, Tail { first, start: first.max(end - OFFSETS_FIRST), end, wanted })
        };
        let open = ends.into_iter().map(tail).filter(|(_, tail)| tail.end > tail.first);
        Self { open: open.collect(), records: Last::new() }
    }

    /// For partitions that are read from given offsets up to their ends.
    pub(crate) fn between(parts: impl IntoIterator<Item = (u16, (i64, i64))>) -> Self {
        let tail = |(partition, (start, end))| {
            (partition, Tail { first: start, start, end, wanted: BTreeSet::new() })
        };
        let open = parts.into_iter().map(tail).filter(|(_, tail)| tail.end > tail.start);
        Self { open: open.collect(), records: Last::new() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// What was found.
    pub(crate) fn records(self) -> Last {
        self.records
    }

    /// Where to read from, by partition.
    pub(crate) fn starts(&self) -> impl Iterator<Item = (i32, i64)> {
        self.open.iter().map(|(partition, tail)| (i32::from(*partition), tail.start))
    }

    /// Whether every partition was fetched up to its end. `next` is the next offset to fetch.
    pub(crate) fn are_fetched(&self, next: &BTreeMap<i32, i64>) -> bool {
        self.missing_ones(next).next().is_none()
    }

    /// Which partitions were not, for people.
    pub(crate) fn missing(&self, next: &BTreeMap<i32, i64>) -> String {
        let missing: Vec<String> = self
            .missing_ones(next)
            .map(|(partition, at, end)| format!("partition {partition} at offset {at} of {end}"))
            .collect();
        format!(
            "an open transaction of another producer, or a partition without a leader, holds back {}; if that lasts, \
             look with kafka-transactions.sh find-hanging",
            missing.join(", ")
        )
    }

    /// Takes the last records that were read. Partitions in which something is missing are read again from further
    /// back, unless they were read whole.
    pub(crate) fn take(&mut self, last: Last) {
        self.records.extend(last);
        for (partition, mut tail) in std::mem::take(&mut self.open) {
            tail.wanted.retain(|shard| !self.records.contains_key(&(partition.into(), *shard)));
            if !tail.wanted.is_empty() && tail.start > tail.first {
                let offsets = (tail.end - tail.start).saturating_mul(FACTOR);
                tail.start = tail.first.max(tail.end.saturating_sub(offsets));
                self.open.insert(partition, tail);
            }
        }
    }

    fn missing_ones(&self, next: &BTreeMap<i32, i64>) -> impl Iterator<Item = (u16, i64, i64)> {
        let place = |(partition, tail): (&u16, &Tail)| {
            let at =
                next.get(&i32::from(*partition)).copied().unwrap_or(tail.start).max(tail.start);
            (*partition, at, tail.end)
        };
        self.open.iter().map(place).filter(|(_, at, end)| at < end)
    }
}

/// The next offset to fetch of each partition, by topic.
pub(crate) type Fetched = BTreeMap<String, BTreeMap<i32, i64>>;

/// What librdkafka's statistics say of it.
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
        next_offset: i64,
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

    /// Of partitions in which the shard of the same number is looked for.
    fn tails(ends: &[(i64, i64)]) -> Tails {
        let own = (0..).zip(ends).map(|(partition, _)| (partition, [partition].into()));
        Tails::new(&own.collect(), (0..).zip(ends.iter().copied()))
    }

    fn starts(tails: &Tails) -> Vec<(i32, i64)> {
        tails.starts().collect()
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
        assert!(!tails.are_fetched(&[(0, 10), (1, 19)].into()));
        assert!(
            tails
                .missing(&[(0, 10), (1, 19)].into())
                .contains("back partition 1 at offset 19 of 20;")
        );
        assert!(tails.are_fetched(&[(0, 11), (1, 20)].into()));
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
        let mut tails = Tails::new(&[(0, [0, 3].into())].into(), [(0, (0, 600))]);
        let (of_0, of_3) = (Some(b"of 0".to_vec()), Some(b"of 3".to_vec()));
        tails.take([((0, 0), of_0.clone()), ((0, 5), Some(b"of 5".to_vec()))].into());
        assert_eq!(starts(&tails), [(0, 0)]);
        tails.take([((0, 0), of_0.clone()), ((0, 3), of_3.clone())].into());
        assert!(tails.is_done());
        let records = tails.records();
        assert_eq!((&records[&(0, 0)], &records[&(0, 3)]), (&of_0, &of_3));
    }
}
