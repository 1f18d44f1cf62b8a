//! Relays around a database and a broker. Each command is executed some time after it is given, and answered some
//! time after that; what a dead or reset relay had under way may still be executed.

use std::collections::BTreeSet;

use annals_relay_core::{
    Command, Done, Input, Lease, Leases, Machine, Order, Page, Producers, Shard, Slot, Trouble,
    Work,
};

use crate::broker::{Batch, Broker, Refused, State, TransactionalId};
use crate::database::{Database, SHARDS, Session};
use crate::planted::Plant;

/// The place of a shard: how many events of its stream are published.
type Place = u8;
pub(crate) type In = Input<Place, Batch>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) broker: Broker,
    pub(crate) relays: Vec<Option<Relay>>,
    /// What no living relay waits for, and is on its way all the same.
    strays: Vec<Task>,
    /// How many faults are still to come.
    pub(crate) faults: Faults,
    pub(crate) plant: Option<Plant>,
}

/// How many faults of each kind a schedule may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Faults {
    pub(crate) crashes: u8,
    pub(crate) expiries: u8,
    /// Answers that do not arrive, of work that was done.
    pub(crate) lost: u8,
    /// Work that is given up, and done later all the same.
    pub(crate) late: u8,
    pub(crate) timeouts: u8,
    pub(crate) stops: u8,
    /// Times that nothing could be done for long, and that work is taken for lost.
    pub(crate) overdue: u8,
    pub(crate) stalls: u8,
    pub(crate) appends: u8,
    /// Starts of relays, the first ones included.
    pub(crate) starts: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Relay {
    pub(crate) machine: Machine<Place, Batch>,
    session: Option<Session>,
    /// The epochs of the producers that it has.
    epochs: [u8; 2],
    tasks: Vec<Task>,
    answers: Vec<Answer>,
    is_resting: bool,
    is_stopped: bool,
    /// The generation of its last command, and of its last order to open.
    generation: u64,
    opened: u64,
    /// For planted bugs: what it could have seen too early.
    early: Early,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Early {
    checkpoints: [Place; SHARDS as usize],
    told: Option<Leases>,
}

/// Something to be executed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Task {
    relay: usize,
    session: Session,
    generation: u64,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum What {
    Join,
    Look(bool),
    Take(Vec<Shard>),
    Release(Vec<Lease>),
    Leave(bool),
    /// One producer after the other: which is next, and the epochs so far.
    Open(usize, [u8; 2]),
    /// The ids that are to be fenced, once they are known, and those that are.
    Fence(Vec<Lease>, Option<BTreeSet<TransactionalId>>, BTreeSet<TransactionalId>),
    ReadCheckpoints(Vec<Lease>),
    Read(Vec<(Shard, Place)>),
    Send(Slot, u8, Batch),
    Commit(Slot, u8),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Answer {
    generation: u64,
    work: Work,
    input: In,
    /// What the relay has once it hears the answer.
    session: Option<Session>,
    epochs: Option<[u8; 2]>,
}

/// One step of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Start(usize),
    Execute(usize, usize),
    Deliver(usize, usize),
    Stray(usize),
    Finish(TransactionalId),
    Tick(usize),
    Resume(usize),
    // Faults and other choices from outside.
    Crash(usize),
    Stop(usize),
    Overdue(usize),
    Stall(usize),
    Expire(Session),
    Lose(usize, usize),
    Late(usize, usize),
    TimeOut(TransactionalId),
    Append(usize),
}

impl Action {
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
            | Self::Late(relay, _) => Some(relay),
            Self::Stray(_)
            | Self::Finish(_)
            | Self::Expire(_)
            | Self::TimeOut(_)
            | Self::Append(_) => None,
        }
    }
}

impl World {
    pub(crate) fn new(relays: usize, faults: Faults, plant: Option<Plant>) -> Self {
        let mut database = Database::default();
        database.events = [2; SHARDS as usize];
        let relays = vec![None; relays];
        Self { database, broker: Broker::default(), relays, strays: Vec::new(), faults, plant }
    }

    /// Every step that can be taken now without a fault.
    pub(crate) fn fair_actions(&self, actions: &mut Vec<Action>) {
        for (number, relay) in self.relays.iter().enumerate() {
            let Some(relay) = relay else {
                actions.extend((self.faults.starts > 0).then_some(Action::Start(number)));
                continue;
            };
            let executable = |(_, task): &(usize, &Task)| self.can_execute(task);
            let executed = relay.tasks.iter().enumerate().filter(executable);
            actions.extend(executed.map(|(task, _)| Action::Execute(number, task)));
            actions.extend((0..relay.answers.len()).map(|answer| Action::Deliver(number, answer)));
            if relay.is_resting {
                actions.push(Action::Resume(number));
            }
            actions.push(Action::Tick(number));
        }
        actions.extend(self.broker.with(State::Committing).into_iter().map(Action::Finish));
        let dead = |session: &&Session| self.relays[self.database.sessions[*session].0].is_none();
        actions.extend(self.database.sessions.keys().filter(dead).copied().map(Action::Expire));
    }

    /// Every fault that can happen now.
    pub(crate) fn faults(&self, actions: &mut Vec<Action>) {
        let Faults { crashes, expiries, lost, late, timeouts, stops, appends, .. } = self.faults;
        for (number, relay) in self.relays.iter().enumerate() {
            let Some(relay) = relay else { continue };
            if crashes > 0 {
                actions.push(Action::Crash(number));
            }
            if stops > 0 && !relay.is_stopped {
                actions.push(Action::Stop(number));
            }
            actions.extend((self.faults.overdue > 0).then_some(Action::Overdue(number)));
            actions.extend((self.faults.stalls > 0).then_some(Action::Stall(number)));
            if lost > 0 {
                actions.extend((0..relay.answers.len()).map(|answer| Action::Lose(number, answer)));
            }
            if late > 0 {
                actions.extend((0..relay.tasks.len()).map(|task| Action::Late(number, task)));
            }
        }
        if expiries > 0 {
            actions.extend(self.database.sessions.keys().copied().map(Action::Expire));
        }
        if timeouts > 0 {
            actions.extend(self.broker.with(State::Open).into_iter().map(Action::TimeOut));
        }
        if appends > 0 {
            actions.extend((0..usize::from(SHARDS)).map(Action::Append));
        }
        let stray = |(_, task): &(usize, &Task)| self.can_execute(task);
        let strays = self.strays.iter().enumerate().filter(stray);
        actions.extend(strays.map(|(number, _)| Action::Stray(number)));
    }

    pub(crate) fn take(&mut self, action: Action) {
        match action {
            Action::Start(relay) => {
                self.faults.starts -= 1;
                self.relays[relay] = Some(Relay::new());
                self.tell(relay, Input::Tick);
            }
            Action::Execute(relay, task) => self.execute(relay, task),
            Action::Deliver(relay, answer) => self.deliver(relay, answer),
            Action::Stray(number) => {
                let task = self.strays.remove(number);
                let _unheard = self.done(task);
            }
            Action::Finish(id) => self.broker.finish(id),
            Action::Tick(relay) => self.tell(relay, Input::Tick),
            Action::Resume(relay) => {
                if self.plant != Some(Plant::ARestNeverEnds) {
                    self.relay(relay).is_resting = false;
                    self.tell(relay, Input::Resume);
                }
            }
            Action::Crash(relay) => {
                self.faults.crashes -= 1;
                let relay = self.relays[relay].take().unwrap();
                self.strays.extend(relay.tasks);
            }
            Action::Stop(relay) => {
                self.faults.stops -= 1;
                self.relay(relay).is_stopped = true;
                self.tell(relay, Input::Stop);
            }
            Action::Overdue(relay) => {
                self.faults.overdue -= 1;
                self.tell(relay, Input::Overdue);
            }
            Action::Stall(relay) => {
                self.faults.stalls -= 1;
                self.tell(relay, Input::Stalled);
            }
            Action::Expire(session) => {
                // That of a dead relay is no fault.
                self.faults.expiries = self.faults.expiries.saturating_sub(1);
                self.database.expire(session, self.plant);
            }
            Action::Lose(relay, answer) => {
                self.faults.lost -= 1;
                let Answer { generation, work, .. } = self.relay(relay).answers.remove(answer);
                self.tell(relay, Input::Failed { generation, work, trouble: Trouble::Unknown });
            }
            Action::Late(relay, task) => self.late(relay, task),
            Action::TimeOut(id) => {
                self.faults.timeouts -= 1;
                self.broker.time_out(id);
            }
            Action::Append(shard) => {
                self.faults.appends -= 1;
                self.database.events[shard] += 1;
            }
        }
    }

    /// Gives a task up that is done later all the same.
    fn late(&mut self, relay: usize, task: usize) {
        self.faults.late -= 1;
        let task = self.relay(relay).tasks.remove(task);
        let (generation, work) = (task.generation, task.what.work());
        let mut input = Input::Failed { generation, work, trouble: Trouble::Unknown };
        if let (Some(Plant::AnUnknownCommitCountsAsDone), What::Commit(slot, _)) =
            (self.plant, &task.what)
        {
            input = Input::Done { generation, done: Done::Committed(*slot) };
        }
        self.strays.push(task);
        self.tell(relay, input);
    }

    /// An action for people, before it is taken.
    pub(crate) fn describe(&self, action: &Action) -> String {
        let of = |relay: usize| self.relays[relay].as_ref().unwrap();
        match action {
            Action::Execute(relay, task) | Action::Late(relay, task) => {
                format!("{action:?}: {:?}", of(*relay).tasks[*task])
            }
            Action::Deliver(relay, answer) | Action::Lose(relay, answer) => {
                format!("{action:?}: {:?}", of(*relay).answers[*answer].input)
            }
            Action::Stray(number) => format!("{action:?}: {:?}", self.strays[*number]),
            _ => format!("{action:?}"),
        }
    }

    fn relay(&mut self, number: usize) -> &mut Relay {
        self.relays[number].as_mut().unwrap()
    }

    fn deliver(&mut self, relay: usize, answer: usize) {
        let receiver = self.relay(relay);
        let Answer { input, session, epochs, generation, .. } = receiver.answers.remove(answer);
        receiver.session = session.or(receiver.session);
        if generation == receiver.opened {
            receiver.epochs = epochs.unwrap_or(receiver.epochs);
        }
        self.tell(relay, input);
    }

    /// Tells the machine, and takes its commands.
    fn tell(&mut self, number: usize, input: In) {
        let plant = self.plant;
        let input = planted_input(input, plant, self.relay(number).generation);
        for command in self.relay(number).machine.step(input) {
            self.plant_early(number, &command);
            let relay = self.relay(number);
            relay.generation = command.generation;
            match command.order {
                Order::Rest { .. } => relay.is_resting = true,
                Order::End { .. } => {
                    let relay = self.relays[number].take().unwrap();
                    self.strays.extend(relay.tasks);
                    return;
                }
                _ => relay.task(number, command),
            }
        }
    }

    /// What some bugs would have seen by now.
    fn plant_early(&mut self, number: usize, command: &Command<Place, Batch>) {
        let Command { generation, order } = command;
        match (self.plant, order) {
            (Some(Plant::CheckpointsAreReadBeforeFencing), Order::Fence(_)) => {
                let checkpoints = [0, 1].map(|shard| self.broker.checkpoint(shard));
                self.relay(number).early.checkpoints = checkpoints;
            }
            (Some(Plant::TheSecondDoesNotWait), Order::Send(slot, _)) => {
                let input = Input::Done { generation: *generation, done: Done::Acked(*slot) };
                let (work, generation) = (Work::Send, *generation);
                let answer = Answer { generation, work, input, session: None, epochs: None };
                self.relay(number).answers.push(answer);
            }
            _ => {}
        }
    }

    fn can_execute(&self, task: &Task) -> bool {
        match &task.what {
            What::Send(slot, ..) => self.broker.can_send(id(task.session, *slot)),
            What::ReadCheckpoints(leases) => {
                self.plant == Some(Plant::CheckpointsAreReadWithoutWaiting)
                    || leases.iter().all(|lease| self.broker.can_read(lease.shard.0))
            }
            _ => true,
        }
    }

    fn execute(&mut self, relay: usize, task: usize) {
        let task = self.relay(relay).tasks.remove(task);
        let told_already =
            self.plant == Some(Plant::TheSecondDoesNotWait) && task.what.work() == Work::Send;
        match self.done(task) {
            Executed::Further(task) => self.relay(relay).tasks.push(task),
            Executed::Answered(_) if told_already => {}
            Executed::Answered(answer) => self.relay(relay).answers.push(answer),
        }
    }

    /// Executes a task, or its next part.
    fn done(&mut self, task: Task) -> Executed {
        let (relay, generation, work) = (task.relay, task.generation, task.what.work());
        let (session, epochs) = (None, None);
        let mut answer = Answer { generation, work, input: Input::Tick, session, epochs };
        answer.input = match task.what {
            What::Join => {
                answer.session = Some(self.database.join(relay));
                Input::Joined
            }
            What::Open(2, epochs) => {
                answer.epochs = Some(epochs);
                Input::Done { generation, done: Done::Opened }
            }
            What::Open(..) => return Executed::Further(self.open(task)),
            What::Fence(..) => match self.fence(task) {
                Ok(further) => return further,
                Err(input) => input,
            },
            What::Look(_) | What::Take(_) | What::Release(_) | What::Leave(_) => {
                self.on_database(task)
            }
            What::ReadCheckpoints(_) | What::Read(_) | What::Send(..) | What::Commit(..) => {
                self.on_broker(task).map_or_else(
                    |Refused| Input::Failed { generation, work, trouble: Trouble::Fenced },
                    |done| Input::Done { generation, done },
                )
            }
        };
        Executed::Answered(answer)
    }

    /// Makes the next producer.
    fn open(&mut self, mut task: Task) -> Task {
        if let What::Open(slot, epochs) = &mut task.what {
            let id = TransactionalId(task.session, u8::try_from(*slot).unwrap());
            epochs[*slot] = match self.plant {
                Some(Plant::OpeningFencesNothing) => self.broker.init_without_fencing(id),
                _ => self.broker.init(id),
            };
            *slot += 1;
        }
        task
    }

    /// Looks what is to be fenced, fences the next, or notes that all are.
    fn fence(&mut self, mut task: Task) -> Result<Executed, In> {
        let (generation, session, work) = (task.generation, task.session, Work::Fence);
        let What::Fence(leases, ids, fenced) = &mut task.what else { return Err(Input::Tick) };
        match ids {
            None => {
                let Some(mut found) = self.database.to_fence(session, leases, self.plant) else {
                    return Err(Input::Failed { generation, work, trouble: Trouble::Fenced });
                };
                match self.plant {
                    Some(Plant::NobodyIsFenced) => found.clear(),
                    Some(Plant::OnlyTheFirstIdIsFenced) => found.retain(|id| id.1 == 0),
                    _ => {}
                }
                *ids = Some(found);
            }
            Some(ids) => match ids.pop_first() {
                Some(id) => {
                    self.broker.init(id);
                    fenced.insert(id);
                }
                None => {
                    self.database.fenced(session, leases, fenced);
                    let done = Done::Fenced(std::mem::take(leases));
                    return Err(Input::Done { generation, done });
                }
            },
        }
        Ok(Executed::Further(task))
    }

    fn on_database(&mut self, task: Task) -> In {
        let Task { relay, session, what, .. } = task;
        match what {
            What::Look(ready) => self.look(relay, session, ready),
            What::Take(shards) => {
                self.database.take(session, &shards, self.plant).map_or(Input::Gone, Input::Taken)
            }
            What::Release(leases) => {
                self.database.release(session, &leases);
                Input::Released
            }
            What::Leave(clean) => {
                let clean = clean || self.plant == Some(Plant::EveryLeavingIsClean);
                self.database.leave(session, clean);
                Input::Left
            }
            _ => Input::Tick,
        }
    }

    fn on_broker(&mut self, task: Task) -> Result<Done<Place, Batch>, Refused> {
        let Task { relay, session, what, .. } = task;
        Ok(match what {
            What::ReadCheckpoints(leases) => {
                let early = self.relays[relay].as_ref().map(|relay| relay.early.checkpoints);
                let place = |lease: Lease| match (self.plant, early) {
                    (Some(Plant::CheckpointsAreReadBeforeFencing), Some(early)) => {
                        (lease, early[usize::from(lease.shard.0)])
                    }
                    _ => (lease, self.broker.checkpoint(lease.shard.0)),
                };
                Done::Checkpoints(leases.into_iter().map(place).collect())
            }
            What::Send(slot, epoch, batch) => {
                self.broker.send(id(session, slot), epoch, &batch)?;
                Done::Acked(slot)
            }
            What::Commit(slot, epoch) => {
                self.broker.commit(id(session, slot), epoch)?;
                Done::Committed(slot)
            }
            What::Read(places) => Done::Page(self.page(&places)),
            _ => Done::Opened,
        })
    }

    fn look(&mut self, relay: usize, session: Session, ready: bool) -> In {
        let mut found = self.database.look(session, ready);
        let plant = self.plant;
        let Some(relay) = &mut self.relays[relay] else { return Input::Gone };
        match plant {
            Some(Plant::LossOfTheLeaseIsNotHeard) if found.is_none() => {
                found.clone_from(&relay.early.told);
            }
            Some(Plant::FreeShardsAreNotSeen) => {
                found.iter_mut().for_each(|leases| leases.free.clear());
            }
            _ => {}
        }
        relay.early.told.clone_from(&found);
        found.map_or(Input::Gone, Input::Looked)
    }

    /// At most one event of each shard.
    fn page(&self, places: &[(Shard, Place)]) -> Page<Place, Batch> {
        let mut batch = Batch::default();
        let mut after = Vec::new();
        for (shard, place) in places {
            let number = usize::from(shard.0);
            let next = self.database.events[number].min(place + 1);
            if next > *place {
                batch[number] = Some((*place, next));
            }
            after.push((*shard, next));
        }
        let more =
            after.iter().any(|(shard, place)| *place < self.database.events[usize::from(shard.0)]);
        let batch = batch.iter().any(Option::is_some).then_some(batch);
        Page { batch, places: after, more }
    }
}

enum Executed {
    Further(Task),
    Answered(Answer),
}

impl Relay {
    fn new() -> Self {
        Self {
            machine: Machine::new(SHARDS, Producers::Two),
            session: None,
            epochs: [0; 2],
            tasks: Vec::new(),
            answers: Vec::new(),
            is_resting: false,
            is_stopped: false,
            generation: 0,
            opened: 0,
            early: Early::default(),
        }
    }

    fn task(&mut self, relay: usize, command: Command<Place, Batch>) {
        let epoch = |slot| self.epochs[usize::from(slot == Slot::B)];
        let what = match command.order {
            Order::Join => What::Join,
            Order::Look { ready } => What::Look(ready),
            Order::Take(shards) => What::Take(shards),
            Order::Release(leases) => What::Release(leases),
            Order::Leave { clean } => What::Leave(clean),
            Order::Open => {
                self.opened = command.generation;
                What::Open(0, [0; 2])
            }
            Order::Fence(leases) => What::Fence(leases, None, BTreeSet::new()),
            Order::ReadCheckpoints(leases) => What::ReadCheckpoints(leases),
            Order::Read(places) => What::Read(places),
            Order::Send(slot, batch) => What::Send(slot, epoch(slot), batch),
            Order::Commit(slot) => What::Commit(slot, epoch(slot)),
            Order::Rest { .. } | Order::End { .. } => return,
        };
        let session = self.session.unwrap_or_default();
        self.tasks.push(Task { relay, session, generation: command.generation, what });
    }
}

impl What {
    fn work(&self) -> Work {
        match self {
            Self::Join => Work::Join,
            Self::Look(_) => Work::Look,
            Self::Take(_) => Work::Take,
            Self::Release(_) => Work::Release,
            Self::Leave(_) => Work::Leave,
            Self::Open(..) => Work::Open,
            Self::Fence(..) => Work::Fence,
            Self::ReadCheckpoints(_) => Work::ReadCheckpoints,
            Self::Read(_) => Work::Read,
            Self::Send(..) => Work::Send,
            Self::Commit(..) => Work::Commit,
        }
    }
}

fn id(session: Session, slot: Slot) -> TransactionalId {
    TransactionalId(session, u8::from(slot == Slot::B))
}

/// A machine that hears something else than what happened behaves as one with a bug.
fn planted_input(input: In, plant: Option<Plant>, now: u64) -> In {
    match (plant, input) {
        (Some(Plant::RepliesFromBeforeAreHeard), Input::Done { done, .. }) => {
            Input::Done { generation: now, done }
        }
        (_, input) => input,
    }
}
