//! The machine's state, and how each input changes it.

use std::collections::{BTreeMap, BTreeSet};

use crate::leases::{Lease, Shard};
use crate::owned_shard::{OwnedShard, Takeover};
use crate::slots::{Producers, Slots};
use crate::vocabulary::{Action, Command, FailureClass, Input, Operation};

/// How far the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SessionPhase {
    /// There is no session.
    NoSession,
    /// There is a session, and it has no producers that could be used.
    NoProducers,
    /// It has producers.
    Producing,
    /// The process ends.
    Ended,
}

/// The intention of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Intent {
    /// To publish.
    Publish,
    /// To end this session, and begin another one.
    EndSession,
    /// To end the process; with the failure that halted it.
    Stop { halted: Option<(Operation, FailureClass)> },
}

/// Whether the last page left events to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Backlog {
    /// Nothing: no page was read, or it had events and was the last one.
    Unknown,
    /// There are more pages.
    Pages,
    /// It was empty: the machine waits before it reads again.
    Empty,
}

/// Work under way: at most one of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct InFlight {
    /// The operation on leases, and the generation in which it was ordered, if producers were
    /// there.
    pub(crate) lease: Option<(Operation, Option<u64>)>,
    /// Operations with producers, except transactions: the slots have these.
    pub(crate) operations: BTreeSet<Operation>,
    pub(crate) is_waiting: bool,
}

/// Decides for one relay process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine<P, B> {
    /// How many shards the installation has.
    pub(crate) shards: usize,
    pub(crate) generation: u64,
    pub(crate) phase: SessionPhase,
    pub(crate) intent: Intent,
    pub(crate) owned: BTreeMap<Shard, OwnedShard<P>>,
    pub(crate) in_flight: InFlight,
    pub(crate) is_renewal_due: bool,
    pub(crate) is_release_due: bool,
    /// The last operation on Kafka, other than publishing, did not reach it.
    pub(crate) is_kafka_unreachable: bool,
    /// Other sessions can acquire shards.
    pub(crate) has_peers: bool,
    /// The failure after which nothing new is begun until the wait is over.
    pub(crate) paused: Option<(Operation, FailureClass)>,
    /// A shard became live: it is read at once, also during a wait.
    pub(crate) has_new_shard: bool,
    pub(crate) backlog: Backlog,
    /// Free shards that this session should acquire.
    pub(crate) to_acquire: Vec<Shard>,
    /// The batch that is read and not sent yet.
    pub(crate) next_batch: Option<B>,
    pub(crate) producers: Producers,
    pub(crate) slots: Slots,
}

pub(crate) type Commands<P, B> = Vec<Command<P, B>>;

impl<P: Clone, B> Machine<P, B> {
    /// A process that has just started.
    #[must_use]
    pub const fn new(shards: u16, producers: Producers) -> Self {
        Self {
            shards: shards as usize,
            generation: 0,
            phase: SessionPhase::NoSession,
            intent: Intent::Publish,
            owned: BTreeMap::new(),
            in_flight: InFlight { lease: None, operations: BTreeSet::new(), is_waiting: false },
            is_renewal_due: true,
            is_release_due: false,
            is_kafka_unreachable: false,
            has_peers: false,
            paused: None,
            has_new_shard: false,
            backlog: Backlog::Unknown,
            to_acquire: Vec::new(),
            next_batch: None,
            producers,
            slots: Slots::new(producers),
        }
    }

    /// Takes an input, and returns the next command.
    pub fn step(&mut self, input: Input<P, B>) -> Commands<P, B> {
        let mut commands = Vec::new();
        if self.phase != SessionPhase::Ended {
            self.apply(input);
            self.decide(&mut commands);
        }
        commands
    }

    /// The shards that are published now.
    pub fn live(&self) -> impl Iterator<Item = Shard> {
        self.owned
            .iter()
            .filter(|(_, owned)| matches!(owned.takeover, Takeover::Live(_)))
            .map(|(shard, _)| *shard)
    }

    /// Whether everything that was read is committed.
    pub fn is_drained(&self) -> bool {
        self.next_batch.is_none() && self.slots.are_idle()
    }

    /// Whether it could publish, and other sessions own all shards.
    pub fn is_standby(&self) -> bool {
        self.phase == SessionPhase::Producing && self.owned.is_empty()
    }

    /// Whether it owns no shard.
    pub fn owns_nothing(&self) -> bool {
        self.owned.is_empty()
    }

    fn apply(&mut self, input: Input<P, B>) {
        match input {
            Input::RenewalDue => self.is_renewal_due = true,
            Input::OutageOutlastsLease => {
                self.is_renewal_due = true;
                if self.should_leave_to_peers() {
                    self.end_session();
                }
            }
            Input::Stalled => {
                if self.phase != SessionPhase::NoSession {
                    self.end_session();
                }
            }
            Input::WaitOver => {
                self.in_flight.is_waiting = false;
                self.paused = None;
            }
            Input::Stop => self.stop(None),
            Input::Joined => {
                self.in_flight.lease = None;
                self.phase = SessionPhase::NoProducers;
            }
            Input::LeaseRenewed(leases) => self.renewed(&leases),
            Input::SessionExpired | Input::SessionEnded => self.session_over(),
            Input::ShardsAcquired(leases) => self.acquired(&leases),
            Input::ShardsReleased => self.released(),
            Input::Completed { generation, completion } if generation == self.generation => {
                self.completed(completion);
            }
            Input::Completed { .. } => {}
            Input::Failed { generation, operation, class } => {
                self.failed(generation, operation, class);
            }
        }
    }

    /// Ends the session as soon as that can be, unless the process ends with it.
    const fn end_session(&mut self) {
        if matches!(self.intent, Intent::Publish) {
            self.intent = Intent::EndSession;
        }
    }

    /// Ends the process; a later reason to halt replaces an earlier one.
    const fn stop(&mut self, halted: Option<(Operation, FailureClass)>) {
        match (self.intent, halted) {
            (Intent::Stop { .. }, None) => {}
            (Intent::Publish | Intent::EndSession | Intent::Stop { .. }, _) => {
                self.intent = Intent::Stop { halted };
            }
        }
    }

    fn failed(&mut self, generation: u64, operation: Operation, class: FailureClass) {
        match operation {
            Operation::Join
            | Operation::RenewLease
            | Operation::AcquireShards
            | Operation::ReleaseShards => self.in_flight.lease = None,
            // The lease expires by itself.
            Operation::Leave => self.session_over(),
            _ if generation != self.generation => return,
            // A quarantine begins at the committed cursor of its shard: no transaction may be in
            // doubt.
            _ if class == FailureClass::Resync => self.reset(),
            Operation::OpenProducers
            | Operation::FencePredecessors
            | Operation::ReadCheckpoints
            | Operation::ReadOutbox => {
                self.in_flight.operations.remove(&operation);
                let is_unreachable =
                    matches!(class, FailureClass::Unavailable | FailureClass::UnknownOutcome);
                self.is_kafka_unreachable |= is_unreachable && operation != Operation::ReadOutbox;
                self.pause(operation, class);
            }
            Operation::Send | Operation::Commit => {
                self.reset();
                self.pause(operation, class);
            }
        }
        if class.halts() {
            self.stop(Some((operation, class)));
            self.reset();
        }
    }

    /// Begins nothing new until a wait is over, which replaces one that is under way.
    const fn pause(&mut self, operation: Operation, class: FailureClass) {
        self.paused = Some((operation, class));
        self.in_flight.is_waiting = false;
    }

    /// Begins again without producers: the outcome of work under way with them is unknown, and
    /// ignored.
    pub(crate) fn reset(&mut self) {
        self.generation += 1;
        self.slots = Slots::new(self.producers);
        self.next_batch = None;
        self.in_flight.operations.clear();
        self.in_flight.is_waiting = false;
        self.paused = None;
        self.has_new_shard = false;
        self.backlog = Backlog::Unknown;
        self.to_acquire.clear();
        if self.phase == SessionPhase::Producing {
            self.phase = SessionPhase::NoProducers;
        }
        for owned in self.owned.values_mut() {
            owned.takeover = Takeover::Unconfirmed;
        }
    }

    /// Orders everything that is to be done now and is not under way.
    fn decide(&mut self, commands: &mut Commands<P, B>) {
        match self.intent {
            Intent::Stop { halted } => return self.wind_down(halted, commands),
            Intent::EndSession => return self.abandon_session(commands),
            Intent::Publish => {}
        }
        self.keep_leases(commands);
        match self.phase {
            SessionPhase::NoSession | SessionPhase::Ended => {}
            SessionPhase::NoProducers => self.open_producers(commands),
            SessionPhase::Producing => self.publish(commands),
        }
        self.wait(commands);
    }

    /// Commits sent transactions, if possible; then the session ends, then the process.
    fn wind_down(
        &mut self,
        halted: Option<(Operation, FailureClass)>,
        commands: &mut Commands<P, B>,
    ) {
        self.next_batch = None;
        // Without producers there are no transactions.
        self.commit(commands);
        let has_transactions = self.phase == SessionPhase::Producing && !self.slots.are_idle();
        if self.in_flight.lease.is_some() || has_transactions {
            return;
        }
        match self.phase {
            SessionPhase::NoSession => {
                self.phase = SessionPhase::Ended;
                self.order(commands, Action::EndProcess { halted });
            }
            SessionPhase::NoProducers | SessionPhase::Producing => self.leave(commands),
            SessionPhase::Ended => {}
        }
    }

    fn wait(&mut self, commands: &mut Commands<P, B>) {
        let is_empty = self.backlog == Backlog::Empty;
        if !self.in_flight.is_waiting && (self.paused.is_some() || is_empty) {
            if is_empty {
                self.backlog = Backlog::Unknown;
            }
            self.in_flight.is_waiting = true;
            self.order(commands, Action::Wait { after: self.paused });
        }
    }

    pub(crate) fn order(&self, commands: &mut Commands<P, B>, action: Action<P, B>) {
        commands.push(Command { generation: self.generation, action });
    }

    /// Orders an operation, if there is something to do and none of its kind is under way.
    pub(crate) fn order_once(
        &mut self,
        commands: &mut Commands<P, B>,
        operation: Operation,
        action: impl FnOnce(&Self) -> Option<Action<P, B>>,
    ) {
        if !self.in_flight.operations.contains(&operation)
            && let Some(action) = action(self)
        {
            self.in_flight.operations.insert(operation);
            self.order(commands, action);
        }
    }

    /// The leases of the owned shards for which `is` holds.
    pub(crate) fn leases(&self, is: impl Fn(&OwnedShard<P>) -> bool) -> Vec<Lease> {
        let owned = self.owned.iter().filter(|(_, owned)| is(owned));
        owned.map(|(shard, owned)| Lease { shard: *shard, epoch: owned.epoch }).collect()
    }
}
