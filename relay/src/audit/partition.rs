//! One partition of an audit: which of its records are new, which can be out of order, and where
//! the next audit reads on.

use annals_store::Position;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::offsets::RecordOffset;

/// The most marks; above it, every second one is dropped.
const MARKS_MAX: usize = 512;
const STRIDE_FIRST: u64 = 256;

/// A place in a partition: all records before it have positions up to `highest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) offset: RecordOffset,
    pub(super) highest: Position,
}

/// A record by which the next audit recognizes the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Anchor {
    pub(super) offset: RecordOffset,
    pub(super) event_id: Uuid,
}

/// The proof of an audit about a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProvenPartition {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The first offset of the partition.
    pub(super) first: RecordOffset,
    /// The next audit reads from here.
    pub(super) start: Mark,
    /// Records before it are counted, if their positions are proven.
    pub(super) end: RecordOffset,
    /// The last record before the end.
    pub(super) anchor: Option<Anchor>,
}

/// A partition that is read.
#[derive(Debug)]
pub(super) struct PartitionState {
    first: RecordOffset,
    counted_until: RecordOffset,
    end: RecordOffset,
    highest: Position,
    marks: Vec<Mark>,
    stride: u64,
    since_mark: u64,
    anchor: Option<Anchor>,
}

/// The place of a record in the order of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordOrder {
    /// An earlier audit has counted it, or it is behind the end.
    Counted,
    /// Its position is above those of all records before it: no later version can be before it.
    InOrder,
    /// A later version of its stream may be before it.
    Late,
}

impl PartitionState {
    /// A partition that is read from its beginning.
    pub(super) fn from_the_beginning(first: RecordOffset, end: RecordOffset) -> Self {
        Self::starting_at(Mark { offset: first, highest: Position::ORIGIN }, first, (first, end))
    }

    /// A partition that is read on from an earlier audit.
    pub(super) fn after(proven: &ProvenPartition, end: RecordOffset) -> Self {
        let state = Self::starting_at(proven.start, proven.end, (proven.first, end));
        Self { anchor: proven.anchor, ..state }
    }

    fn starting_at(
        start: Mark,
        counted_until: RecordOffset,
        (first, end): (RecordOffset, RecordOffset),
    ) -> Self {
        Self {
            first,
            counted_until,
            end,
            highest: start.highest,
            marks: vec![start],
            stride: STRIDE_FIRST,
            since_mark: 0,
            anchor: None,
        }
    }

    /// Where it is read from.
    pub(super) fn start(&self) -> RecordOffset {
        self.marks.first().map_or(self.first, |mark| mark.offset)
    }

    /// Takes the next record.
    pub(super) fn take(
        &mut self,
        record: Anchor,
        position: Position,
        proven: Position,
    ) -> RecordOrder {
        if record.offset >= self.end {
            return RecordOrder::Counted;
        }
        self.since_mark += 1;
        if self.since_mark >= self.stride {
            self.mark(record.offset);
        }
        self.anchor = Some(record);
        let is_in_order = position > self.highest;
        self.highest = self.highest.max(position);
        match is_in_order {
            _ if position <= proven && record.offset < self.counted_until => RecordOrder::Counted,
            true => RecordOrder::InOrder,
            false => RecordOrder::Late,
        }
    }

    fn mark(&mut self, offset: RecordOffset) {
        self.since_mark = 0;
        self.marks.push(Mark { offset, highest: self.highest });
        if self.marks.len() > MARKS_MAX {
            let mut number = 0;
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.stride *= 2;
        }
    }

    /// The proof if every event up to a position is accounted for.
    pub(super) fn proven(&self, topic: &str, partition: i32, proven: Position) -> ProvenPartition {
        let before = self.marks.iter().rev().find(|mark| mark.highest <= proven);
        let start = before.or(self.marks.first()).copied();
        let start = start.unwrap_or(Mark { offset: self.first, highest: Position::ORIGIN });
        let (first, end, anchor) = (self.first, self.end, self.anchor);
        ProvenPartition { topic: topic.to_owned(), partition, first, start, end, anchor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: i64) -> Position {
        Position::new(number).unwrap()
    }

    fn record(offset: i64) -> Anchor {
        Anchor { offset: RecordOffset::new(offset), event_id: Uuid::from_u128(1) }
    }

    #[test]
    fn a_record_behind_a_higher_position_is_late() {
        let mut state =
            PartitionState::from_the_beginning(RecordOffset::new(0), RecordOffset::new(3));
        assert_eq!(state.take(record(0), at(10), Position::ORIGIN), RecordOrder::InOrder);
        assert_eq!(state.take(record(1), at(9), Position::ORIGIN), RecordOrder::Late);
        assert_eq!(state.take(record(2), at(10), Position::ORIGIN), RecordOrder::Late);
        assert_eq!(state.take(record(3), at(11), Position::ORIGIN), RecordOrder::Counted);
    }

    #[test]
    fn the_next_audit_reads_every_record_above_the_proven_position_again_and_counts_the_others_once()
     {
        const RECORDS: i64 = 400_000;
        let mut state =
            PartitionState::from_the_beginning(RecordOffset::new(0), RecordOffset::new(RECORDS));
        // Each position once, and every tenth ten records late.
        let position = |offset: i64| if offset % 10 == 9 { offset - 8 } else { offset + 2 };
        for offset in 0..RECORDS {
            state.take(record(offset), at(position(offset)), Position::ORIGIN);
        }
        assert!(state.marks.len() <= MARKS_MAX);
        let proven = at(123_456);
        let known = state.proven("t", 0, proven);
        let start = known.start.offset.get();
        assert!((0..start).all(|offset| at(position(offset)) <= proven), "{start}");
        assert!(start > 120_000, "{start}");
        let mut next = PartitionState::after(&known, RecordOffset::new(RECORDS + 1));
        for offset in start..RECORDS {
            let place = next.take(record(offset), at(position(offset)), proven);
            assert_eq!(place == RecordOrder::Counted, at(position(offset)) <= proven, "{offset}");
        }
        assert_eq!(next.take(record(RECORDS), at(5), proven), RecordOrder::Late);
    }
}
