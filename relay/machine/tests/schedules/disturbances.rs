//! The disturbances of a world besides faults of relays, of the network and of the broker.

/// The switches of a world. A world without disturbances is small: every schedule can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Disturbances {
    pub(crate) history: History,
    pub(crate) quarantine: Quarantine,
    pub(crate) pages: Pages,
    pub(crate) replicas: Replicas,
}

/// Whether partitions can have too few replicas. A transaction that has written to one is decided,
/// and does not end before the partition has its replicas again: its transactional id is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Replicas {
    /// They have enough: a session has one pair of transactional ids.
    #[default]
    Enough,
    /// They can have too few: a session has two pairs, of which it uses one.
    CanBeTooFew,
}

impl Replicas {
    /// The number of pairs of transactional ids of a session.
    pub(crate) const fn pairs(self) -> u8 {
        match self {
            Self::Enough => 1,
            Self::CanBeTooFew => 2,
        }
    }
}

/// Whether the database can go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum History {
    /// It cannot: relays copy and verify nothing.
    #[default]
    Fixed,
    /// It can: relays copy their checkpoints, and verify the history in each incarnation.
    Moves,
}

/// Whether events can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Quarantine {
    /// They cannot: nothing is quarantined, and checkpoints are read in one step.
    #[default]
    Impossible,
    /// They can, until an operator repairs the cause.
    Possible,
}

/// How far a relay reads a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Pages {
    /// To its end.
    #[default]
    Whole,
    /// A deadline ends the reading of a shard after so many rows.
    UpTo(u8),
}

impl Pages {
    pub(crate) fn are_over(self, rows: u8) -> bool {
        match self {
            Self::Whole => false,
            Self::UpTo(max) => rows >= max,
        }
    }
}
