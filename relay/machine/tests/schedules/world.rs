//! Relays around a database and a broker. Each command is executed some time after it is given, and
//! answered some time after that; work in flight of a dead or reset relay may still be executed.

mod choices;
mod histories;
mod places;
mod relay;
mod steps;
mod work;

use std::collections::BTreeSet;

use annals_relay_machine::Input;

use self::relay::{Relay, Task};
use crate::broker::{Batch, Broker, TransactionalId};
use crate::database::{Database, Session};
use crate::disturbances::{Disturbances, History, Quarantine, Replicas};
use crate::outbox::Event;
use crate::planted::Plant;
use crate::reading::Place;

pub(crate) type In = Input<Place, Batch>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) broker: Broker,
    pub(crate) relays: Vec<Option<Relay>>,
    /// Operation in flight that no live relay waits for.
    strays: Vec<Task>,
    session_next: Session,
    /// The number of faults still to come.
    pub(crate) faults: Faults,
    pub(crate) disturbances: Disturbances,
    /// Whether an operator repairs the cause of refusals, and requests retries.
    pub(crate) is_tended: bool,
    /// Earlier states that the database can go back to.
    kept: Option<Box<Database>>,
    /// Of branches and incarnations of the database.
    last: u8,
    /// Events were lost since an operator last acted.
    pub(crate) is_lossy: bool,
    /// A relay found missing events: none is started until an operator has acted.
    pub(crate) is_halted: bool,
    /// Published events of lost histories that an operator has been told of.
    pub(crate) acknowledged: BTreeSet<(usize, Event)>,
    pub(crate) plant: Option<Plant>,
}

/// The number of faults of each kind in a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Faults {
    pub(crate) crashes: u8,
    pub(crate) expiries: u8,
    /// Lost answers of completed work.
    pub(crate) lost: u8,
    /// Abandoned work that is still executed later.
    pub(crate) late: u8,
    pub(crate) timeouts: u8,
    pub(crate) stops: u8,
    /// The number of times that the relay could do nothing for long, and work counts as lost.
    pub(crate) overdue: u8,
    pub(crate) stalls: u8,
    pub(crate) appends: u8,
    /// Appends with an asynchronous commit.
    pub(crate) hasty: u8,
    /// Appends in a transaction that stays open for a while.
    pub(crate) slow: u8,
    /// Transactions that leave only a transaction id.
    pub(crate) empty: u8,
    /// The number of states of the database that are kept to go back to.
    pub(crate) keeps: u8,
    /// The number of crashes, promotions, restores, and moves to a younger cluster.
    pub(crate) histories: [u8; 4],
    /// Events that the broker refuses until an operator repairs the cause.
    pub(crate) refusals: u8,
    pub(crate) mendings: u8,
    /// Retries of quarantined events, in vain or not.
    pub(crate) askings: u8,
    /// Transactions that have written to a partition with too few replicas.
    pub(crate) shortages: u8,
    /// Starts of relays, the first ones included.
    pub(crate) starts: u8,
}

/// One step of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Start(usize),
    Execute(usize, usize),
    Deliver(usize, usize),
    Stray(usize),
    Finish(TransactionalId),
    Tick(usize),
    Resume(usize),
    // Faults and other external choices.
    Crash(usize),
    Stop(usize),
    Overdue(usize),
    Stall(usize),
    Expire(Session),
    Lose(usize, usize),
    Late(usize, usize),
    TimeOut(TransactionalId),
    Append(usize),
    AppendHastily(usize),
    Begin(usize),
    Commit,
    RollBack,
    Empty,
    Keep,
    GoBack(Going),
    Copy(usize),
    Rebase,
    Refuse(usize, u8),
    Mend,
    Ask(usize),
    /// The transaction of this id has written to a partition that has too few replicas.
    Shortage(TransactionalId),
    /// All partitions have their replicas.
    Replicate,
}

/// The changes of a database's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Going {
    /// It loses the unflushed log.
    Crash,
    /// A standby is promoted: it has everything up to a kept state, or everything.
    Promotion,
    /// It is restored to a kept state, or to the state at its stop; no sign of this is left.
    Restore,
    /// The same, in a cluster that has issued fewer transaction ids.
    Move,
}

impl Going {
    pub(crate) const ALL: [Self; 4] = [Self::Crash, Self::Promotion, Self::Restore, Self::Move];
}

impl Turn {
    /// The relay that takes the step.
    pub(crate) fn relay(self) -> Option<usize> {
        match self {
            Self::Start(relay)
            | Self::Execute(relay, _)
            | Self::Deliver(relay, _)
            | Self::Tick(relay)
            | Self::Resume(relay)
            | Self::Crash(relay)
            | Self::Stop(relay)
            | Self::Overdue(relay)
            | Self::Stall(relay)
            | Self::Lose(relay, _)
            | Self::Copy(relay)
            | Self::Late(relay, _) => Some(relay),
            Self::Stray(_)
            | Self::Finish(_)
            | Self::Expire(_)
            | Self::TimeOut(_)
            | Self::Append(_)
            | Self::AppendHastily(_)
            | Self::Begin(_)
            | Self::Commit
            | Self::RollBack
            | Self::Empty
            | Self::Keep
            | Self::GoBack(_)
            | Self::Rebase
            | Self::Refuse(..)
            | Self::Mend
            | Self::Ask(_)
            | Self::Shortage(_)
            | Self::Replicate => None,
        }
    }
}

impl World {
    pub(crate) fn new(
        relays: usize,
        disturbances: Disturbances,
        faults: Faults,
        plant: Option<Plant>,
    ) -> Self {
        let Disturbances { history, quarantine, replicas, .. } = disturbances;
        let events = match (quarantine, history, replicas) {
            (Quarantine::Possible, ..) => [8, 1],
            // Each producer sends several times.
            (Quarantine::Impossible, History::Fixed, Replicas::CanBeTooFew) => [6, 1],
            (Quarantine::Impossible, History::Fixed, Replicas::Enough) => [2, 2],
            (Quarantine::Impossible, History::Moves, _) => [1, 1],
        };
        Self {
            database: Database::new(events, replicas.pairs()),
            broker: Broker::new(history),
            relays: vec![None; relays],
            strays: Vec::new(),
            session_next: 0,
            faults,
            disturbances,
            is_tended: false,
            kept: None,
            last: 1,
            is_lossy: false,
            is_halted: false,
            acknowledged: BTreeSet::new(),
            plant,
        }
    }

    fn can_go_back(&self) -> bool {
        self.disturbances.history == History::Moves
    }

    fn has_shortages(&self) -> bool {
        self.disturbances.replicas == Replicas::CanBeTooFew
    }

    fn can_refuse(&self) -> bool {
        self.disturbances.quarantine == Quarantine::Possible
    }
}
