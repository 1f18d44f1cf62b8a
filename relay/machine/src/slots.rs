//! The two producers, and which of them sends or commits next.

/// One of the two producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// The state of a producer's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Idle,
    Sending,
    Acknowledged,
    Committing,
}

/// Both producers. They take turns, and commit in the order in which they sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Slots {
    producers: Producers,
    a: Stage,
    b: Stage,
    next: Slot,
}

/// How many producers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Producers {
    /// Two, in turns: one sends while the broker closes the other's transaction.
    Two,
    /// One: each batch is committed before the next one is sent.
    One,
}

impl Slots {
    pub(crate) const fn new(producers: Producers) -> Self {
        Self { producers, a: Stage::Idle, b: Stage::Idle, next: Slot::A }
    }

    /// Whether no transaction is under way.
    pub(crate) fn are_idle(&self) -> bool {
        Slot::ALL.into_iter().all(|slot| self.stage(slot) == Stage::Idle)
    }

    /// The producer that can send now: it has no transaction, and every record of the other is
    /// acknowledged.
    /// acknowledged.
    pub(crate) fn free(&self) -> Option<Slot> {
        let is_free =
            self.stage(self.next) == Stage::Idle && self.stage(self.next.other()) != Stage::Sending;
        is_free.then_some(self.next)
    }

    /// The producer that can commit now: the one that sent first, once its records are
    /// acknowledged.
    pub(crate) fn due(&self) -> Option<Slot> {
        // If both have transactions, the next one sent first.
        let first =
            if self.stage(self.next) == Stage::Idle { self.next.other() } else { self.next };
        (self.stage(first) == Stage::Acknowledged).then_some(first)
    }

    pub(crate) fn sending(&mut self, slot: Slot) {
        self.set(slot, Stage::Sending);
        self.next = match self.producers {
            Producers::Two => slot.other(),
            Producers::One => slot,
        };
    }

    pub(crate) fn acknowledged(&mut self, slot: Slot) {
        self.set(slot, Stage::Acknowledged);
    }

    pub(crate) fn committing(&mut self, slot: Slot) {
        self.set(slot, Stage::Committing);
    }

    pub(crate) fn committed(&mut self, slot: Slot) {
        self.set(slot, Stage::Idle);
    }

    fn stage(&self, slot: Slot) -> Stage {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    fn set(&mut self, slot: Slot, stage: Stage) {
        match slot {
            Slot::A => self.a = stage,
            Slot::B => self.b = stage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_producer_commits_before_it_sends_again() {
        let mut slots = Slots::new(Producers::One);
        slots.sending(Slot::A);
        slots.acknowledged(Slot::A);
        assert_eq!((slots.free(), slots.due()), (None, Some(Slot::A)));
        slots.committing(Slot::A);
        assert_eq!((slots.free(), slots.due()), (None, None));
        slots.committed(Slot::A);
        assert_eq!((slots.free(), slots.due()), (Some(Slot::A), None));
    }

    #[test]
    fn the_second_sends_when_the_first_is_acknowledged_and_commits_when_the_first_has() {
        let mut slots = Slots::new(Producers::Two);
        assert_eq!((slots.free(), slots.due()), (Some(Slot::A), None));
        slots.sending(Slot::A);
        assert_eq!((slots.free(), slots.due()), (None, None));
        slots.acknowledged(Slot::A);
        assert_eq!((slots.free(), slots.due()), (Some(Slot::B), Some(Slot::A)));
        slots.committing(Slot::A);
        slots.sending(Slot::B);
        slots.acknowledged(Slot::B);
        assert_eq!((slots.free(), slots.due()), (None, None));
        slots.committed(Slot::A);
        assert_eq!((slots.free(), slots.due()), (Some(Slot::A), Some(Slot::B)));
    }
}
