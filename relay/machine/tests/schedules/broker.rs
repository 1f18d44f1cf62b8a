//! A model of Kafka for the machine: transactional ids with epochs, transactions whose markers come
//! later than the answer, and a log.

use std::collections::{BTreeMap, BTreeSet};

use annals_relay_machine::Lease;

use crate::database::{SHARDS, Session};
use crate::disturbances::History;
use crate::outbox::{Event, Mark};

/// An id of a session: the first two are its first pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransactionalId(pub(crate) Session, pub(crate) u8);

impl TransactionalId {
    pub(crate) fn of(session: Session, pairs: u8) -> impl Iterator<Item = Self> {
        (0..2 * pairs).map(move |number| Self(session, number))
    }
}

/// A producer: the number of its id in its session, and its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Producer {
    pub(crate) number: u8,
    pub(crate) epoch: u8,
}

impl Producer {
    pub(crate) fn id(self, session: Session) -> TransactionalId {
        TransactionalId(session, self.number)
    }
}

/// A quarantine entry's progress: its cursor, or none if it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Progress {
    pub(crate) hold: u8,
    pub(crate) place: Option<Mark>,
}

/// The last published cursor of a shard, and the progress of quarantine entries that the database
/// does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Checkpoint {
    pub(crate) place: Mark,
    pub(crate) progress: Option<Progress>,
    /// The number of the shard's quarantine changes that the relay knew to be in the database.
    pub(crate) hold_changes: u8,
    /// The timeline on which it was made. For a planted bug.
    pub(crate) timeline: u8,
}

/// The part of a shard in a transaction: a quarantined event, an event of the shard, and the
/// checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Records {
    pub(crate) lease: Lease,
    pub(crate) events: [Option<Event>; 2],
    pub(crate) checkpoint: Checkpoint,
    /// The generation of the deployment: each has its own checkpoint topic.
    pub(crate) generation: u8,
    /// The incarnation of the database in which they were read.
    pub(crate) incarnation: u8,
}

/// The records of one transaction.
pub(crate) type Batch = [Option<Records>; SHARDS as usize];

/// The state of a record's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Open,
    /// Decided and answered; the markers are still to be written.
    Committing,
    Committed,
    Aborted,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    /// All shards publish into one topic.
    offset: u8,
    id: TransactionalId,
    events: [Option<Event>; 2],
    checkpoint: Checkpoint,
    generation: u8,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Broker {
    /// Where it is fixed, no relay requests offsets, and they do not count.
    history: History,
    /// The epoch of each id: requests of an earlier one are refused.
    epochs: BTreeMap<TransactionalId, u8>,
    /// Events that it refuses: their shards and positions.
    pub(crate) refused: BTreeSet<(usize, u8)>,
    log: [Vec<Entry>; SHARDS as usize],
    /// The topic's end.
    pub(crate) end: u8,
    /// Sessions that have producers, in a partition of the checkpoint topic.
    pub(crate) announced: BTreeSet<Session>,
    /// Ids whose last transaction has written to a partition with too few replicas: it is decided,
    /// with markers in the other partitions, and does not end.
    pub(crate) busy: BTreeSet<TransactionalId>,
}

/// The end of each shard's published records in the topic.
pub(crate) type Ends = [u8; SHARDS as usize];

/// The broker's answer to a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its epoch is outdated.
    Fenced,
    /// It refuses events of these shards.
    Events([bool; SHARDS as usize]),
}

impl Broker {
    pub(crate) fn new(history: History) -> Self {
        Self { history, ..Self::default() }
    }

    /// A new producer for the id. The broker aborts the previous producer's open transaction, and
    /// finishes its decided one. None if that does not end: an open transaction is aborted, and its
    /// producer is fenced, but one that had decided its transaction itself is not.
    pub(crate) fn init(&mut self, id: TransactionalId) -> Option<u8> {
        let is_busy = self.busy.contains(&id);
        let was_open = self.has(id, State::Open);
        self.settle(id, State::Committing, State::Committed);
        self.settle(id, State::Open, State::Aborted);
        let epoch = self.epochs.entry(id).or_default();
        *epoch += u8::from(!is_busy || was_open);
        (!is_busy).then_some(*epoch)
    }

    /// For a planted bug: a producer that does not increment the epoch.
    pub(crate) fn init_without_fencing(&mut self, id: TransactionalId) -> u8 {
        *self.epochs.entry(id).or_insert(1)
    }

    /// The previous transaction has to be finished first: the broker asks to try again.
    pub(crate) fn can_send(&self, id: TransactionalId) -> bool {
        !self.has(id, State::Committing) && (!self.busy.contains(&id) || self.has(id, State::Open))
    }

    /// Ids whose transaction is under way, and can turn out to have written to a partition with too
    /// few replicas.
    pub(crate) fn can_be_busy(&self) -> Vec<TransactionalId> {
        let undecided = [State::Open, State::Committing].map(|state| self.with(state)).concat();
        undecided.into_iter().filter(|id| !self.busy.contains(id)).collect()
    }

    pub(crate) fn send(
        &mut self,
        id: TransactionalId,
        epoch: u8,
        batch: &Batch,
    ) -> Result<(), Refused> {
        self.check(id, epoch)?;
        let refused = [0, 1].map(|shard| self.refuses(shard, &batch[shard]));
        // The accepted records of a refused batch are still in the log, until it is aborted.
        for (shard, records) in batch.iter().enumerate().filter(|(shard, _)| !refused[*shard]) {
            if let Some(Records { events, checkpoint, generation, .. }) = *records {
                let (offset, state) = (self.end, State::Open);
                self.log[shard].push(Entry { offset, id, events, checkpoint, generation, state });
                self.end += u8::from(self.history == History::Moves);
            }
        }
        if refused.contains(&true) { Err(Refused::Events(refused)) } else { Ok(()) }
    }

    fn refuses(&self, shard: usize, records: &Option<Records>) -> bool {
        let mut events = records.iter().flat_map(|records| records.events).flatten();
        !self.refused.is_empty()
            && events.any(|event| self.refused.contains(&(shard, event.number)))
    }

    /// Commits, and returns the end of each shard's records in the topic that are now known to be
    /// published.
    pub(crate) fn commit(&mut self, id: TransactionalId, epoch: u8) -> Result<Ends, Refused> {
        self.check(id, epoch)?;
        let is = |entry: &&Entry| entry.id == id && entry.state == State::Open;
        let end = |log: &Vec<Entry>| log.iter().find(is).map_or(0, |entry| entry.offset + 1);
        let ends = [end(&self.log[0]), end(&self.log[1])];
        self.settle(id, State::Open, State::Committing);
        Ok(ends)
    }

    /// Writes the markers of a decided transaction.
    pub(crate) fn finish(&mut self, id: TransactionalId) {
        self.settle(id, State::Committing, State::Committed);
    }

    /// An open transaction has reached its time-out: aborted, and its producer is fenced.
    pub(crate) fn time_out(&mut self, id: TransactionalId) {
        self.settle(id, State::Open, State::Aborted);
        *self.epochs.entry(id).or_default() += 1;
    }

    /// The ids with a transaction in this state.
    pub(crate) fn with(&self, state: State) -> Vec<TransactionalId> {
        let entries = self.log.iter().flatten().filter(|entry| entry.state == state);
        let mut ids: Vec<TransactionalId> = entries.map(|entry| entry.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn has(&self, id: TransactionalId, state: State) -> bool {
        self.log.iter().flatten().any(|entry| entry.id == id && entry.state == state)
    }

    /// Whether a reader of committed records reaches the shard's end.
    pub(crate) fn can_read(&self, shard: usize) -> bool {
        let is_decided = |entry: &Entry| matches!(entry.state, State::Committed | State::Aborted);
        self.log[shard].iter().all(is_decided)
    }

    /// The last committed checkpoint of a generation before the first undecided record.
    pub(crate) fn checkpoint(&self, shard: usize, generation: u8) -> Option<Checkpoint> {
        let is_decided = |entry: &&Entry| matches!(entry.state, State::Committed | State::Aborted);
        let decided = self.log[shard].iter().take_while(is_decided);
        let is = |entry: &&Entry| entry.state == State::Committed && entry.generation == generation;
        decided.filter(is).last().map(|entry| entry.checkpoint)
    }

    /// Whether it has checkpoints of a later generation.
    pub(crate) fn knows_later(&self, generation: u8) -> bool {
        self.log.iter().flatten().any(|entry| entry.generation > generation)
    }

    /// The next generation without any record in it.
    pub(crate) fn generation_after(&self, generation: u8) -> u8 {
        let known = self.log.iter().flatten().map(|entry| entry.generation).max();
        known.unwrap_or_default().max(generation) + 1
    }

    /// The published events of a shard, in the order in which readers of committed records receive
    /// them.
    pub(crate) fn published(&self, shard: usize) -> impl Iterator<Item = Event> {
        self.published_from(shard, 0)
    }

    /// Those from an offset of the topic on.
    pub(crate) fn published_from(&self, shard: usize, from: u8) -> impl Iterator<Item = Event> {
        let is = move |entry: &&Entry| {
            entry.offset >= from && matches!(entry.state, State::Committed | State::Committing)
        };
        self.log[shard].iter().filter(is).flat_map(|entry| entry.events).flatten()
    }

    fn check(&self, id: TransactionalId, epoch: u8) -> Result<(), Refused> {
        if self.epochs.get(&id) == Some(&epoch) { Ok(()) } else { Err(Refused::Fenced) }
    }

    fn settle(&mut self, id: TransactionalId, from: State, to: State) {
        for entry in self.log.iter_mut().flatten() {
            if entry.id == id && entry.state == from {
                entry.state = to;
            }
        }
    }
}
