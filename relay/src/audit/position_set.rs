//! A set of positions with one bit for each, in pages that exist only where a position is.

use std::collections::HashMap;

use annals_store::Position;

const PAGE_POSITIONS: i64 = 65_536;
const WORDS: usize = 1_024;
const WORD_BITS: i64 = 64;
/// The memory of a page, with its part of the map.
const PAGE_BYTES: usize = WORDS * 8 + 64;

/// Positions that were found.
#[derive(Default)]
pub(super) struct PositionSet {
    pages: HashMap<i64, Box<[u64; WORDS]>>,
}

impl PositionSet {
    /// Adds a position; false if the set has it.
    pub(super) fn insert(&mut self, position: Position) -> bool {
        let (page, word, bit) = place(position);
        let page = self.pages.entry(page).or_insert_with(|| Box::new([0; WORDS]));
        let is_new = page[word] & bit == 0;
        page[word] |= bit;
        is_new
    }

    pub(super) fn contains(&self, position: Position) -> bool {
        let (page, word, bit) = place(position);
        self.pages.get(&page).is_some_and(|page| page[word] & bit != 0)
    }

    /// Its memory.
    pub(super) fn bytes(&self) -> usize {
        self.pages.len() * PAGE_BYTES
    }
}

/// The page of a position, its word there, and its bit.
fn place(position: Position) -> (i64, usize, u64) {
    let (page, within) = (position.get() / PAGE_POSITIONS, position.get() % PAGE_POSITIONS);
    let word = usize::try_from(within / WORD_BITS).unwrap_or_default();
    (page, word, 1 << (within % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_in_the_set_once_it_was_inserted() {
        let mut set = PositionSet::default();
        for number in [1, 63, 64, 65_535, 65_536, 1 << 40] {
            let position = Position::new(number).unwrap();
            assert!(!set.contains(position));
            assert!(set.insert(position) && !set.insert(position));
            assert!(set.contains(position));
            assert!(
                !set.contains(Position::new(number + 1).unwrap())
                    || number == 63
                    || number == 65_535
            );
        }
        assert_eq!(set.bytes(), 3 * PAGE_BYTES);
    }
}
