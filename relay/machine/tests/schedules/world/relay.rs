//! A relay: the machine, its work in flight, and its memory.

use std::collections::{BTreeSet, VecDeque};

use annals_relay_machine::{
    Action, Command, Departure, Lease, Leases, Machine, Operation, Producers, Readiness, Shard,
    Slot,
};

use super::In;
use super::places::Taking;
use crate::broker::{Batch, Checkpoint, Ends, Producer, Records, TransactionalId};
use crate::database::{Copied, HoldRow, SHARDS, Session};
use crate::disturbances::{Disturbances, History, Quarantine};
use crate::outbox::Mark;
use crate::reading::{Noted, Place};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Relay {
    pub(super) number: usize,
    pub(crate) machine: Machine<Place, Batch>,
    pub(super) session: Option<Session>,
    pub(super) producers: [Producer; 2],
    pub(super) tasks: Vec<Task>,
    pub(super) answers: Vec<Answer>,
    pub(super) is_resting: bool,
    pub(super) is_stopped: bool,
    /// Shards with refused events, which are quarantined once their cursor is known.
    pub(super) refused: [bool; SHARDS as usize],
    disturbances: Disturbances,
    /// The records that each producer has sent.
    sent: [Batches; 2],
    /// The last committed checkpoints that are not copied yet.
    pub(super) committed: [Option<Committed>; SHARDS as usize],
    /// Progress to be recorded, one after the other; the first is in flight.
    notes: VecDeque<Note>,
    /// The last recorded progress of each shard.
    pub(super) noted: [Option<Noted>; SHARDS as usize],
    /// The incarnation of the database in which each shard's history was verified last; 0 if never.
    pub(super) verified: [u8; SHARDS as usize],
    /// The number of its quarantine changes.
    steps: u64,
    /// The generation of its last command, of its last order to open, and of the last one that it
    /// knows to be done.
    pub(super) generation: u64,
    pub(super) opened: u64,
    pub(super) heard: u64,
    /// For planted bugs: answers that it could have seen too early.
    pub(super) early: Early,
}

/// A sent checkpoint, its lease, and the incarnation of the database in which its records were
/// read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sent {
    lease: Lease,
    checkpoint: Checkpoint,
    incarnation: u8,
}

pub(super) type Batches = [Option<Sent>; SHARDS as usize];

/// A checkpoint that is to be copied, and the incarnation of the database in which its records were
/// read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Committed {
    pub(super) copied: Copied,
    pub(super) incarnation: u8,
}

/// An entry's progress, to be recorded in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Note {
    pub(super) session: Session,
    pub(super) number: u64,
    pub(super) sent: Sent,
}

impl Note {
    pub(super) const fn lease(&self) -> Lease {
        self.sent.lease
    }

    pub(super) const fn checkpoint(&self) -> Checkpoint {
        self.sent.checkpoint
    }

    pub(super) const fn incarnation(&self) -> u8 {
        self.sent.incarnation
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Early {
    pub(super) checkpoints: [Option<Checkpoint>; SHARDS as usize],
    pub(super) places: [Mark; SHARDS as usize],
    pub(super) holds: [Option<HoldRow>; SHARDS as usize],
    pub(super) told: Option<Leases>,
}

/// A command to be executed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Task {
    pub(super) relay: usize,
    pub(super) session: Session,
    pub(super) generation: u64,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum What {
    Join,
    RenewLease(bool),
    AcquireShards(Vec<Shard>),
    ReleaseShards(Vec<Lease>),
    Leave(bool),
    /// One producer after the other.
    OpenProducers(Opening),
    /// The ids to fence, once they are known, and the fenced ones.
    FencePredecessors(Vec<Lease>, Option<BTreeSet<TransactionalId>>, BTreeSet<TransactionalId>),
    ReadCheckpoints(Taking),
    ReadOutbox(Vec<(Shard, Place)>),
    Send(Slot, Producer, Batch),
    Commit(Slot, Producer, Batches),
    Note(Note),
}

/// Producers that are being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Opening {
    /// The pair of ids, and how many pairs were busy.
    pub(super) pair: u8,
    pub(super) busy: u8,
    /// The number of producers that are made, and these.
    pub(super) made: u8,
    pub(super) producers: [Producer; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    pub(super) generation: u64,
    pub(super) operation: Operation,
    pub(super) input: In,
    pub(super) news: News,
}

/// The relay's state after an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum News {
    Nothing,
    Session(Session),
    Producers([Producer; 2]),
    Refused([bool; SHARDS as usize]),
    Committed(Batches, Ends),
    /// The history of these shards is verified in this incarnation of the database.
    Verified(Vec<Lease>, u8),
    /// The database's state after the first of its recordings succeeds; the machine does not
    /// receive this.
    Noted(Option<Noted>),
}

impl Relay {
    pub(super) fn new(number: usize, disturbances: Disturbances) -> Self {
        Self {
            number,
            machine: Machine::new(SHARDS, Producers::Two),
            session: None,
            producers: [Producer::default(); 2],
            tasks: Vec::new(),
            answers: Vec::new(),
            is_resting: false,
            is_stopped: false,
            refused: [false; SHARDS as usize],
            disturbances,
            sent: [[None; SHARDS as usize]; 2],
            committed: [None; SHARDS as usize],
            notes: VecDeque::new(),
            noted: [None; SHARDS as usize],
            verified: [0; SHARDS as usize],
            steps: 0,
            generation: 0,
            opened: 0,
            heard: 0,
            early: Early::default(),
        }
    }

    pub(super) fn task(&mut self, relay: usize, command: Command<Place, Batch>) {
        let producers = self.producers;
        let what = match command.action {
            Action::Join => What::Join,
            Action::RenewLease(readiness) => What::RenewLease(readiness == Readiness::Ready),
            Action::AcquireShards(shards) => What::AcquireShards(shards),
            Action::ReleaseShards(leases) => What::ReleaseShards(leases),
            Action::Leave(departure) => What::Leave(departure == Departure::Clean),
            Action::OpenProducers => {
                self.opened = command.generation;
                let pair = producers[0].number / 2;
                let producers = [Producer::default(); 2];
                What::OpenProducers(Opening { pair, busy: 0, made: 0, producers })
            }
            Action::FencePredecessors(leases) => {
                What::FencePredecessors(leases, None, BTreeSet::new())
            }
            Action::ReadCheckpoints(leases) => {
                // A lost event will be refused again.
                let refused = std::mem::take(&mut self.refused);
                // Without a quarantine there is nothing to order, and the world stays small.
                self.steps += u64::from(self.disturbances.quarantine == Quarantine::Possible);
                let history = self.disturbances.history;
                What::ReadCheckpoints(Taking::new(leases, self.steps, refused, history))
            }
            Action::ReadOutbox(places) => What::ReadOutbox(places),
            Action::Send(slot, batch) => {
                self.sent[usize::from(slot == Slot::B)] = self.sent(&batch);
                What::Send(slot, producers[usize::from(slot == Slot::B)], batch)
            }
            Action::Commit(slot) => {
                let number = usize::from(slot == Slot::B);
                What::Commit(slot, producers[number], self.sent[number])
            }
            Action::Wait { .. } | Action::EndProcess { .. } => return,
        };
        let session = self.session.unwrap_or_default();
        self.tasks.push(Task { relay, session, generation: command.generation, what });
    }

    /// Whether committed checkpoints are copied.
    fn is_copying(&self) -> bool {
        self.disturbances.history == History::Moves
    }

    /// The sent records, as far as their commit has an effect.
    fn sent(&self, batch: &Batch) -> Batches {
        let is_of_use =
            |records: &Records| self.is_copying() || records.checkpoint.progress.is_some();
        batch.map(|records| {
            let Records { lease, checkpoint, incarnation, .. } = records.filter(is_of_use)?;
            Some(Sent { lease, checkpoint, incarnation })
        })
    }

    /// These checkpoints are committed: they are to be copied, and the progress of their quarantine
    /// entries is to be recorded.
    pub(super) fn committed(&mut self, batches: Batches, ends: Ends) {
        let is_idle = self.notes.is_empty();
        let session = self.session.unwrap_or_default();
        for (shard, sent) in batches.into_iter().enumerate() {
            let Some(sent) = sent else { continue };
            let Sent { checkpoint, incarnation, .. } = sent;
            if checkpoint.progress.is_some() {
                self.steps += 1;
                self.notes.push_back(Note { session, number: self.steps, sent });
            }
            if self.is_copying() {
                let copied = Copied { checkpoint, end: ends[shard] };
                self.committed[shard] = Some(Committed { copied, incarnation });
            }
        }
        if is_idle {
            self.note_next();
        }
    }

    pub(super) fn note_next(&mut self) {
        if let Some(note) = self.notes.front() {
            let (session, generation) = (note.session, self.generation);
            let what = What::Note(*note);
            self.tasks.push(Task { relay: self.number, session, generation, what });
        }
    }

    pub(super) fn has_noted(&mut self, noted: Option<Noted>) {
        // Otherwise the next owner reads it in Kafka.
        if let Some(note) = self.notes.pop_front()
            && noted.is_some()
        {
            self.noted[usize::from(note.lease().shard.0)] = noted;
        }
        self.note_next();
    }
}

impl What {
    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Join => Operation::Join,
            Self::RenewLease(_) => Operation::RenewLease,
            Self::AcquireShards(_) => Operation::AcquireShards,
            Self::ReleaseShards(_) => Operation::ReleaseShards,
            Self::Leave(_) => Operation::Leave,
            Self::OpenProducers(..) => Operation::OpenProducers,
            Self::FencePredecessors(..) => Operation::FencePredecessors,
            Self::ReadCheckpoints(_) => Operation::ReadCheckpoints,
            Self::ReadOutbox(_) => Operation::ReadOutbox,
            Self::Send(..) => Operation::Send,
            Self::Commit(..) => Operation::Commit,
            // This is not the machine's work, and is not reported to it.
            Self::Note(_) => Operation::Commit,
        }
    }
}
