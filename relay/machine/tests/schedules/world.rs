//! Relays around a database and a broker. Each command is executed some time after it is given, and
//! answered some time after that; work in flight of a dead or reset relay may still be executed.

use std::collections::{BTreeSet, VecDeque};

use annals_relay_machine::{
    Action, Command, Completion, Departure, FailureClass, Input, Lease, Leases, Machine, Operation,
    Producers, Readiness, Shard, Slot,
};

use crate::broker::{Batch, Broker, Checkpoint, Progress, Refused, State, TransactionalId};
use crate::database::{Database, HoldRow, SHARDS, Session, Under};
use crate::planted::Plant;
use crate::reading::{Hold, Place, Standing, page, stream};

pub(crate) type In = Input<Place, Batch>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) broker: Broker,
    pub(crate) relays: Vec<Option<Relay>>,
    /// Operation in flight that no live relay waits for.
    strays: Vec<Task>,
    /// The number of faults still to come.
    pub(crate) faults: Faults,
    /// Whether events can be refused. If not, there is no quarantine, and checkpoints are read in
    /// one step.
    refuses: bool,
    /// Whether an operator repairs the cause of refusals, and requests retries.
    pub(crate) is_tended: bool,
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
    /// Events that the broker refuses until an operator repairs the cause.
    pub(crate) refusals: u8,
    pub(crate) mendings: u8,
    /// Retries of quarantined events, in vain or not.
    pub(crate) askings: u8,
    /// Starts of relays, the first ones included.
    pub(crate) starts: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Relay {
    number: usize,
    pub(crate) machine: Machine<Place, Batch>,
    session: Option<Session>,
    /// The epochs of its producers.
    epochs: [u8; 2],
    tasks: Vec<Task>,
    answers: Vec<Answer>,
    is_resting: bool,
    is_stopped: bool,
    /// Shards with refused events, which are quarantined once their position is known.
    refused: [bool; SHARDS as usize],
    /// The progress of quarantine entries that each producer has sent.
    sent: [Progresses; 2],
    /// Progress to be recorded, one after the other; the first is in flight.
    notes: VecDeque<Note>,
    /// The last recorded progress of each shard.
    noted: [Option<Progress>; SHARDS as usize],
    /// The number of its quarantine changes.
    steps: u64,
    /// The generation of its last command, of its last order to open, and of the last one that it
    /// knows to be done.
    generation: u64,
    opened: u64,
    heard: u64,
    /// For planted bugs: answers that it could have seen too early.
    early: Early,
}

/// The progress of quarantine entries that is to be recorded, with the leases under which it was
/// sent.
type Progresses = [Option<(Lease, Progress)>; SHARDS as usize];

/// An entry's progress, to be recorded in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Note {
    session: Session,
    lease: Lease,
    number: u64,
    progress: Progress,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Early {
    checkpoints: [Checkpoint; SHARDS as usize],
    places: [u8; SHARDS as usize],
    holds: [Option<HoldRow>; SHARDS as usize],
    told: Option<Leases>,
}

/// A command to be executed.
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
    RenewLease(bool),
    AcquireShards(Vec<Shard>),
    ReleaseShards(Vec<Lease>),
    Leave(bool),
    /// One producer after the other: the next one, and the epochs so far.
    OpenProducers(usize, [u8; 2]),
    /// The ids to fence, once they are known, and the fenced ones.
    FencePredecessors(Vec<Lease>, Option<BTreeSet<TransactionalId>>, BTreeSet<TransactionalId>),
    ReadCheckpoints(Taking),
    ReadOutbox(Vec<(Shard, Place)>),
    Send(Slot, u8, Batch),
    Commit(Slot, u8, Progresses),
    Note(Note),
}

/// The reading of checkpoints, and the steps that belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Taking {
    leases: Vec<Lease>,
    number: u64,
    refused: [bool; SHARDS as usize],
    step: Step,
    checkpoints: [Checkpoint; SHARDS as usize],
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Checkpoints,
    Note,
    Hold,
    Load,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Answer {
    generation: u64,
    operation: Operation,
    input: In,
    news: News,
}

/// The relay's state after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum News {
    Nothing,
    Session(Session),
    Epochs([u8; 2]),
    Refused([bool; SHARDS as usize]),
    Committed(Progresses),
    /// Whether the first of its recordings has succeeded; the machine does not receive this.
    Noted(bool),
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
    Refuse(usize, u8),
    Mend,
    Ask(usize),
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
            | Self::Late(relay, _) => Some(relay),
            Self::Stray(_)
            | Self::Finish(_)
            | Self::Expire(_)
            | Self::TimeOut(_)
            | Self::Append(_)
            | Self::Refuse(..)
            | Self::Mend
            | Self::Ask(_) => None,
        }
    }
}

impl World {
    pub(crate) fn new(relays: usize, faults: Faults, plant: Option<Plant>) -> Self {
        let mut database = Database::default();
        let refuses = faults.refusals > 0;
        database.events = if refuses { [8, 1] } else { [2, 2] };
        Self {
            database,
            broker: Broker::default(),
            relays: vec![None; relays],
            strays: Vec::new(),
            faults,
            refuses,
            is_tended: false,
            plant,
        }
    }

    /// Every possible step now without a fault.
    pub(crate) fn fair_actions(&self, actions: &mut Vec<Turn>) {
        for (number, relay) in self.relays.iter().enumerate() {
            let Some(relay) = relay else {
                actions.extend((self.faults.starts > 0).then_some(Turn::Start(number)));
                continue;
            };
            let executable = |(_, task): &(usize, &Task)| self.can_execute(task);
            let executed = relay.tasks.iter().enumerate().filter(executable);
            actions.extend(executed.map(|(task, _)| Turn::Execute(number, task)));
            actions.extend((0..relay.answers.len()).map(|answer| Turn::Deliver(number, answer)));
            if relay.is_resting {
                actions.push(Turn::Resume(number));
            }
            actions.push(Turn::Tick(number));
        }
        actions.extend(self.broker.with(State::Committing).into_iter().map(Turn::Finish));
        let dead = |session: &&Session| self.relays[self.database.sessions[*session].0].is_none();
        actions.extend(self.database.sessions.keys().filter(dead).copied().map(Turn::Expire));
        if self.is_tended {
            self.tendings(actions);
        }
    }

    /// Possible operator actions for refused or quarantined events.
    fn tendings(&self, actions: &mut Vec<Turn>) {
        if !self.broker.refused.is_empty() {
            actions.push(Turn::Mend);
        }
        actions.extend(self.held().map(Turn::Ask));
    }

    /// The shards that have a quarantine entry without a requested retry.
    fn held(&self) -> impl Iterator<Item = usize> {
        let is_held = |hold: &Option<HoldRow>| hold.is_some_and(|hold| !hold.is_wanted);
        let holds = self.database.holds.iter().enumerate();
        holds.filter(move |(_, hold)| is_held(hold)).map(|(shard, _)| shard)
    }

    /// Every possible fault now.
    pub(crate) fn faults(&self, actions: &mut Vec<Turn>) {
        let Faults { crashes, expiries, lost, late, timeouts, stops, appends, .. } = self.faults;
        for (number, relay) in self.relays.iter().enumerate() {
            let Some(relay) = relay else { continue };
            if crashes > 0 {
                actions.push(Turn::Crash(number));
            }
            if stops > 0 && !relay.is_stopped {
                actions.push(Turn::Stop(number));
            }
            actions.extend((self.faults.overdue > 0).then_some(Turn::Overdue(number)));
            actions.extend((self.faults.stalls > 0).then_some(Turn::Stall(number)));
            if lost > 0 {
                actions.extend((0..relay.answers.len()).map(|answer| Turn::Lose(number, answer)));
            }
            if late > 0 {
                actions.extend((0..relay.tasks.len()).map(|task| Turn::Late(number, task)));
            }
        }
        if expiries > 0 {
            actions.extend(self.database.sessions.keys().copied().map(Turn::Expire));
        }
        if timeouts > 0 {
            actions.extend(self.broker.with(State::Open).into_iter().map(Turn::TimeOut));
        }
        if appends > 0 {
            actions.extend((0..usize::from(SHARDS)).map(Turn::Append));
        }
        if self.refuses {
            self.refusals(actions);
        }
        let stray = |(_, task): &(usize, &Task)| self.can_execute(task);
        let strays = self.strays.iter().enumerate().filter(stray);
        actions.extend(strays.map(|(number, _)| Turn::Stray(number)));
    }

    fn refusals(&self, actions: &mut Vec<Turn>) {
        let Faults { refusals, mendings, askings, .. } = self.faults;
        if refusals > 0 {
            for (shard, events) in self.database.events.iter().enumerate() {
                let published = self.broker.published(shard).filter(|event| stream(*event) > 0);
                let published = published.last().map_or(0, |last| last + 1);
                let waiting = (published..*events).filter(|event| stream(*event) > 0);
                actions.extend(waiting.map(|event| Turn::Refuse(shard, event)));
            }
        }
        if mendings > 0 && !self.broker.refused.is_empty() {
            actions.push(Turn::Mend);
        }
        if askings > 0 {
            actions.extend(self.held().map(Turn::Ask));
        }
    }

    pub(crate) fn take(&mut self, action: Turn) {
        match action {
            Turn::Start(relay) => {
                self.faults.starts -= 1;
                self.relays[relay] = Some(Relay::new(relay));
                self.tell(relay, Input::RenewalDue);
            }
            Turn::Execute(relay, task) => self.execute(relay, task),
            Turn::Deliver(relay, answer) => self.deliver(relay, answer),
            Turn::Stray(number) => {
                let task = self.strays.remove(number);
                let _unheard = self.done(task);
            }
            Turn::Finish(id) => self.broker.finish(id),
            Turn::Tick(relay) => self.tell(relay, Input::RenewalDue),
            Turn::Resume(relay) => {
                if self.plant != Some(Plant::ARestNeverEnds) {
                    self.relay(relay).is_resting = false;
                    self.tell(relay, Input::WaitOver);
                }
            }
            Turn::Crash(relay) => {
                self.faults.crashes -= 1;
                let relay = self.relays[relay].take().unwrap();
                self.strays.extend(relay.tasks);
            }
            Turn::Stop(relay) => {
                self.faults.stops -= 1;
                self.relay(relay).is_stopped = true;
                self.tell(relay, Input::Stop);
            }
            Turn::Overdue(relay) => {
                self.faults.overdue -= 1;
                self.tell(relay, Input::OutageOutlastsLease);
            }
            Turn::Stall(relay) => {
                self.faults.stalls -= 1;
                self.tell(relay, Input::Stalled);
            }
            Turn::Expire(session) => {
                // A lost task of a dead relay is no fault.
                self.faults.expiries = self.faults.expiries.saturating_sub(1);
                self.database.expire(session, self.plant);
            }
            Turn::Lose(relay, answer) => self.lose(relay, answer),
            Turn::Late(relay, task) => self.late(relay, task),
            Turn::TimeOut(id) => {
                self.faults.timeouts -= 1;
                self.broker.time_out(id);
            }
            Turn::Append(shard) => {
                self.faults.appends -= 1;
                self.database.events[shard] += 1;
            }
            Turn::Refuse(..) | Turn::Mend | Turn::Ask(_) => self.take_of_holds(action),
        }
    }

    /// The causes of refusals, and the operator's reaction.
    fn take_of_holds(&mut self, action: Turn) {
        match action {
            Turn::Refuse(shard, event) => {
                self.faults.refusals -= 1;
                self.broker.refused.insert((shard, event));
            }
            Turn::Mend => {
                self.faults.mendings = self.faults.mendings.saturating_sub(1);
                self.broker.refused.pop_first();
            }
            Turn::Ask(shard) => {
                self.faults.askings = self.faults.askings.saturating_sub(1);
                self.database.holds[shard].iter_mut().for_each(|hold| hold.is_wanted = true);
            }
            other => panic!("{other:?} is no quarantine action"),
        }
    }

    fn lose(&mut self, relay: usize, answer: usize) {
        self.faults.lost -= 1;
        let Answer { generation, operation, news, .. } = self.relay(relay).answers.remove(answer);
        if let News::Noted(_) = news {
            // The relay tries it again.
            return self.relay(relay).note_next();
        }
        self.tell(
            relay,
            Input::Failed { generation, operation, class: FailureClass::UnknownOutcome },
        );
    }

    /// Abandons a task that is still executed later.
    fn late(&mut self, relay: usize, task: usize) {
        self.faults.late -= 1;
        let task = self.relay(relay).tasks.remove(task);
        let (generation, operation) = (task.generation, task.what.operation());
        if let What::Note(_) = task.what {
            self.strays.push(task);
            // The relay tries it again.
            return self.relay(relay).note_next();
        }
        let mut input =
            Input::Failed { generation, operation, class: FailureClass::UnknownOutcome };
        if let (Some(Plant::AnUnknownCommitCountsAsDone), What::Commit(slot, ..)) =
            (self.plant, &task.what)
        {
            input = Input::Completed { generation, completion: Completion::Committed(*slot) };
        }
        self.strays.push(task);
        self.tell(relay, input);
    }

    /// Whether this task records progress of a quarantine entry.
    pub(crate) fn is_noting(&self, action: &Turn) -> bool {
        let task = match *action {
            Turn::Execute(relay, task) | Turn::Late(relay, task) => {
                self.relays[relay].as_ref().map(|relay| &relay.tasks[task])
            }
            Turn::Stray(number) => Some(&self.strays[number]),
            _ => None,
        };
        task.is_some_and(|task| matches!(task.what, What::Note(_)))
    }

    /// An operator's action before it is taken.
    pub(crate) fn describe(&self, action: &Turn) -> String {
        let of = |relay: usize| self.relays[relay].as_ref().unwrap();
        match action {
            Turn::Execute(relay, task) | Turn::Late(relay, task) => {
                format!("{action:?}: {:?}", of(*relay).tasks[*task])
            }
            Turn::Deliver(relay, answer) | Turn::Lose(relay, answer) => {
                format!("{action:?}: {:?}", of(*relay).answers[*answer].input)
            }
            Turn::Stray(number) => format!("{action:?}: {:?}", self.strays[*number]),
            _ => format!("{action:?}"),
        }
    }

    fn relay(&mut self, number: usize) -> &mut Relay {
        self.relays[number].as_mut().unwrap()
    }

    fn deliver(&mut self, relay: usize, answer: usize) {
        let receiver = self.relay(relay);
        let Answer { input, news, generation, .. } = receiver.answers.remove(answer);
        match news {
            News::Nothing => {}
            News::Session(session) => receiver.session = Some(session),
            News::Epochs(epochs) if generation == receiver.opened => {
                receiver.epochs = epochs;
                receiver.heard = generation;
            }
            News::Epochs(_) => {}
            News::Refused(refused) if generation == receiver.generation => {
                for (shard, is_refused) in refused.into_iter().enumerate() {
                    receiver.refused[shard] |= is_refused;
                }
            }
            News::Refused(_) => {}
            // A relay that learns of new producers has all answers of the earlier ones.
            News::Committed(_) if generation < receiver.heard => {}
            News::Committed(progress) => receiver.committed(progress),
            News::Noted(is_noted) => return receiver.has_noted(is_noted),
        }
        self.tell(relay, input);
    }

    /// Reports to the machine, and receives its commands.
    fn tell(&mut self, number: usize, input: In) {
        let plant = self.plant;
        let input = planted_input(input, plant, self.relay(number).generation);
        for command in self.relay(number).machine.step(input) {
            self.plant_early(number, &command);
            let relay = self.relay(number);
            relay.generation = command.generation;
            match command.action {
                Action::Wait { .. } => relay.is_resting = true,
                Action::EndProcess { .. } => {
                    let relay = self.relays[number].take().unwrap();
                    self.strays.extend(relay.tasks);
                    return;
                }
                _ => relay.task(number, command),
            }
        }
    }

    /// Answers that some planted bugs would have seen by now.
    fn plant_early(&mut self, number: usize, command: &Command<Place, Batch>) {
        let Command { generation, action } = command;
        match (self.plant, action) {
            (Some(Plant::CheckpointsAreReadBeforeFencing), Action::FencePredecessors(_)) => {
                let checkpoints = [0, 1].map(|shard| self.broker.checkpoint(shard));
                self.relay(number).early.checkpoints = checkpoints;
            }
            (Some(Plant::HoldsAreReadBeforeTheCheckpoint), Action::ReadCheckpoints(_)) => {
                self.relay(number).early.holds = self.database.holds;
            }
            (Some(Plant::TheSecondDoesNotWait), Action::Send(slot, _)) => {
                let input = Input::Completed {
                    generation: *generation,
                    completion: Completion::Acknowledged(*slot),
                };
                let (operation, generation) = (Operation::Send, *generation);
                let answer = Answer { generation, operation, input, news: News::Nothing };
                self.relay(number).answers.push(answer);
            }
            _ => {}
        }
    }

    fn can_execute(&self, task: &Task) -> bool {
        match &task.what {
            What::Send(slot, ..) => self.broker.can_send(id(task.session, *slot)),
            What::ReadCheckpoints(Taking { leases, step: Step::Checkpoints, .. }) => {
                self.plant == Some(Plant::CheckpointsAreReadWithoutWaiting)
                    || leases.iter().all(|lease| self.broker.can_read(lease.shard.0))
            }
            _ => true,
        }
    }

    fn execute(&mut self, relay: usize, task: usize) {
        let task = self.relay(relay).tasks.remove(task);
        let told_already = self.plant == Some(Plant::TheSecondDoesNotWait)
            && task.what.operation() == Operation::Send;
        match self.done(task) {
            Executed::Further(task) => self.relay(relay).tasks.push(task),
            Executed::Answered(_) if told_already => {}
            Executed::Answered(answer) => self.relay(relay).answers.push(answer),
        }
    }

    /// Executes a task, or its next part.
    fn done(&mut self, task: Task) -> Executed {
        let (relay, generation, operation) = (task.relay, task.generation, task.what.operation());
        let mut answer =
            Answer { generation, operation, input: Input::RenewalDue, news: News::Nothing };
        answer.input = match task.what {
            What::Join => {
                answer.news = News::Session(self.database.join(relay));
                Input::Joined
            }
            What::OpenProducers(2, epochs) => {
                answer.news = News::Epochs(epochs);
                Input::Completed { generation, completion: Completion::ProducersOpened }
            }
            What::OpenProducers(..) => return Executed::Further(self.open(task)),
            What::FencePredecessors(..) => match self.fence(task) {
                Ok(further) => return further,
                Err(input) => input,
            },
            What::ReadCheckpoints(_) => match self.take_up(task) {
                Ok(further) => return further,
                Err(input) => input,
            },
            What::RenewLease(_)
            | What::AcquireShards(_)
            | What::ReleaseShards(_)
            | What::Leave(_) => self.on_database(task),
            What::Note(Note { session, lease, number, progress }) => {
                let under = Under { session, leases: &[lease], step: number };
                let is_noted = self.database.went_on(under, &[progress], self.plant);
                answer.news = News::Noted(is_noted);
                Input::RenewalDue
            }
            What::ReadOutbox(places) => {
                Input::Completed { generation, completion: self.page(relay, &places) }
            }
            What::Send(..) | What::Commit(..) => {
                if let What::Commit(_, _, progress) = task.what {
                    answer.news = News::Committed(progress);
                }
                match self.on_broker(task) {
                    Ok(completion) => Input::Completed { generation, completion },
                    Err(refused) => {
                        let (class, news) = match refused {
                            Refused::Fenced => (FailureClass::Fenced, News::Nothing),
                            Refused::Events(of) => (FailureClass::Resync, News::Refused(of)),
                        };
                        answer.news = news;
                        Input::Failed { generation, operation, class }
                    }
                }
            }
        };
        Executed::Answered(answer)
    }

    /// Creates the next producer.
    fn open(&mut self, mut task: Task) -> Task {
        if let What::OpenProducers(slot, epochs) = &mut task.what {
            let id = TransactionalId(task.session, u8::try_from(*slot).unwrap());
            epochs[*slot] = match self.plant {
                Some(Plant::OpeningFencesNothing) => self.broker.init_without_fencing(id),
                _ => self.broker.init(id),
            };
            *slot += 1;
        }
        task
    }

    /// Queries the ids to fence, fences the next one, or records that all are fenced.
    fn fence(&mut self, mut task: Task) -> Result<Executed, In> {
        let (generation, session, operation) =
            (task.generation, task.session, Operation::FencePredecessors);
        let What::FencePredecessors(leases, ids, fenced) = &mut task.what else {
            return Err(Input::RenewalDue);
        };
        match ids {
            None => {
                let Some(mut found) = self.database.to_fence(session, leases, self.plant) else {
                    return Err(Input::Failed {
                        generation,
                        operation,
                        class: FailureClass::Fenced,
                    });
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
                    let completion = Completion::PredecessorsFenced(std::mem::take(leases));
                    return Err(Input::Completed { generation, completion });
                }
            },
        }
        Ok(Executed::Further(task))
    }

    fn on_database(&mut self, task: Task) -> In {
        let Task { relay, session, what, .. } = task;
        match what {
            What::RenewLease(ready) => self.look(relay, session, ready),
            What::AcquireShards(shards) => self
                .database
                .take(session, &shards, self.plant)
                .map_or(Input::SessionExpired, Input::ShardsAcquired),
            What::ReleaseShards(leases) => {
                self.database.release(session, &leases);
                Input::ShardsReleased
            }
            What::Leave(clean) => {
                let clean = clean || self.plant == Some(Plant::EveryLeavingIsClean);
                self.database.leave(session, clean);
                Input::SessionEnded
            }
            _ => Input::RenewalDue,
        }
    }

    fn on_broker(&mut self, task: Task) -> Result<Completion<Place, Batch>, Refused> {
        let Task { session, what, .. } = task;
        Ok(match what {
            What::Send(slot, epoch, batch) => {
                self.broker.send(id(session, slot), epoch, &batch)?;
                Completion::Acknowledged(slot)
            }
            What::Commit(slot, epoch, _) => {
                self.broker.commit(id(session, slot), epoch)?;
                Completion::Committed(slot)
            }
            _ => Completion::ProducersOpened,
        })
    }

    /// Reads checkpoints, records the progress of quarantine entries from them, quarantines refused
    /// events, and reads the entries: the start positions of the shards. One step at a time if
    /// there can be a quarantine.
    fn take_up(&mut self, mut task: Task) -> Result<Executed, In> {
        let (relay, generation, session) = (task.relay, task.generation, task.session);
        let What::ReadCheckpoints(taking) = &mut task.what else { return Err(Input::RenewalDue) };
        let reader = self.reader_was(relay);
        let under = Under { session, leases: &taking.leases, step: taking.number };
        let is_owned = match taking.step {
            Step::Checkpoints => {
                taking.checkpoints = self.checkpoints(relay);
                let is_noted = self.plant == Some(Plant::TakingUpIsNotAlwaysNoted)
                    && taking.progress().is_empty();
                taking.step = if is_noted { taking.after_noting() } else { Step::Note };
                true
            }
            Step::Note => {
                taking.step = taking.after_noting();
                self.database.went_on(under, &taking.progress(), self.plant)
            }
            Step::Hold => {
                taking.step = Step::Load;
                let places =
                    reader.unwrap_or(taking.checkpoints.map(|checkpoint| checkpoint.place));
                self.database.hold(under, places, taking.refused, self.plant)
            }
            Step::Load => {
                return Err(Input::Completed { generation, completion: self.load(relay, taking) });
            }
        };
        if !is_owned {
            let operation = Operation::ReadCheckpoints;
            return Err(Input::Failed { generation, operation, class: FailureClass::Fenced });
        }
        if !self.refuses {
            return Err(Input::Completed { generation, completion: self.load(relay, taking) });
        }
        Ok(Executed::Further(task))
    }

    fn checkpoints(&self, relay: usize) -> [Checkpoint; SHARDS as usize] {
        let early = self.relays[relay].as_ref().map(|relay| relay.early.checkpoints);
        match (self.plant, early) {
            (Some(Plant::CheckpointsAreReadBeforeFencing), Some(early)) => early,
            _ => [0, 1].map(|shard| self.broker.checkpoint(shard)),
        }
    }

    /// For a planted bug: the reader's position.
    fn reader_was(&self, relay: usize) -> Option<[u8; SHARDS as usize]> {
        let relay = self.relays[relay].as_ref()?;
        (self.plant == Some(Plant::HoldsBeginWhereTheReaderWas)).then_some(relay.early.places)
    }

    fn load(&self, relay: usize, taking: &Taking) -> Completion<Place, Batch> {
        let mut early = [None; SHARDS as usize];
        if let (Some(Plant::HoldsAreReadBeforeTheCheckpoint), Some(relay)) =
            (self.plant, &self.relays[relay])
        {
            early = relay.early.holds;
        }
        let place = |lease: &Lease| {
            let shard = usize::from(lease.shard.0);
            let row = early[shard].or(self.database.holds[shard]);
            let standing = Standing::Noted;
            let hold = row.map(|HoldRow { id, place, .. }| Hold { id, place, standing });
            (*lease, Place { lease: *lease, at: taking.checkpoints[shard].place, hold })
        };
        Completion::CheckpointsRead(taking.leases.iter().map(place).collect())
    }

    fn page(&mut self, relay: usize, places: &[(Shard, Place)]) -> Completion<Place, Batch> {
        let mut noted = [None; SHARDS as usize];
        if let Some(relay) = &self.relays[relay] {
            noted = relay.noted;
        }
        let page = page(&self.database, &noted, places, self.plant);
        if let Some(relay) = &mut self.relays[relay]
            && self.plant == Some(Plant::HoldsBeginWhereTheReaderWas)
        {
            for (shard, place) in &page.cursors {
                relay.early.places[usize::from(shard.0)] = place.at;
            }
        }
        Completion::OutboxRead(page)
    }

    fn look(&mut self, relay: usize, session: Session, ready: bool) -> In {
        let mut found = self.database.look(session, ready);
        let plant = self.plant;
        let Some(relay) = &mut self.relays[relay] else { return Input::SessionExpired };
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
        found.map_or(Input::SessionExpired, Input::LeaseRenewed)
    }
}

enum Executed {
    Further(Task),
    Answered(Answer),
}

impl Relay {
    fn new(number: usize) -> Self {
        Self {
            number,
            machine: Machine::new(SHARDS, Producers::Two),
            session: None,
            epochs: [0; 2],
            tasks: Vec::new(),
            answers: Vec::new(),
            is_resting: false,
            is_stopped: false,
            refused: [false; SHARDS as usize],
            sent: [[None; SHARDS as usize]; 2],
            notes: VecDeque::new(),
            noted: [None; SHARDS as usize],
            steps: 0,
            generation: 0,
            opened: 0,
            heard: 0,
            early: Early::default(),
        }
    }

    fn task(&mut self, relay: usize, command: Command<Place, Batch>) {
        let epochs = self.epochs;
        let what = match command.action {
            Action::Join => What::Join,
            Action::RenewLease(readiness) => What::RenewLease(readiness == Readiness::Ready),
            Action::AcquireShards(shards) => What::AcquireShards(shards),
            Action::ReleaseShards(leases) => What::ReleaseShards(leases),
            Action::Leave(departure) => What::Leave(departure == Departure::Clean),
            Action::OpenProducers => {
                self.opened = command.generation;
                What::OpenProducers(0, [0; 2])
            }
            Action::FencePredecessors(leases) => {
                What::FencePredecessors(leases, None, BTreeSet::new())
            }
            Action::ReadCheckpoints(leases) => {
                // A lost event will be refused again.
                let refused = std::mem::take(&mut self.refused);
                self.steps += 1;
                What::ReadCheckpoints(Taking::new(leases, self.steps, refused))
            }
            Action::ReadOutbox(places) => What::ReadOutbox(places),
            Action::Send(slot, batch) => {
                self.sent[usize::from(slot == Slot::B)] = progress(&batch);
                What::Send(slot, epochs[usize::from(slot == Slot::B)], batch)
            }
            Action::Commit(slot) => {
                let number = usize::from(slot == Slot::B);
                What::Commit(slot, epochs[number], self.sent[number])
            }
            Action::Wait { .. } | Action::EndProcess { .. } => return,
        };
        let session = self.session.unwrap_or_default();
        self.tasks.push(Task { relay, session, generation: command.generation, what });
    }

    /// The progress of quarantine entries in these checkpoints is committed, and is to be recorded.
    fn committed(&mut self, progress: Progresses) {
        let is_idle = self.notes.is_empty();
        let session = self.session.unwrap_or_default();
        for (lease, progress) in progress.into_iter().flatten() {
            self.steps += 1;
            self.notes.push_back(Note { session, lease, number: self.steps, progress });
        }
        if is_idle {
            self.note_next();
        }
    }

    fn note_next(&mut self) {
        if let Some(note) = self.notes.front() {
            let (session, generation) = (note.session, self.generation);
            let what = What::Note(*note);
            self.tasks.push(Task { relay: self.number, session, generation, what });
        }
    }

    fn has_noted(&mut self, is_noted: bool) {
        // Otherwise the next owner reads it in Kafka.
        if let Some(Note { lease, progress, .. }) = self.notes.pop_front()
            && is_noted
        {
            self.noted[usize::from(lease.shard.0)] = Some(progress);
        }
        self.note_next();
    }
}

fn progress(batch: &Batch) -> Progresses {
    batch.map(|records| {
        let records = records?;
        records.checkpoint.progress.map(|progress| (records.lease, progress))
    })
}

impl Taking {
    fn new(leases: Vec<Lease>, number: u64, refused: [bool; SHARDS as usize]) -> Self {
        let (step, checkpoints) = (Step::Checkpoints, Default::default());
        Self { leases, number, refused, step, checkpoints }
    }

    fn after_noting(&self) -> Step {
        if self.refused == [false; SHARDS as usize] { Step::Load } else { Step::Hold }
    }

    /// The progress of quarantine entries in the checkpoints.
    fn progress(&self) -> Vec<Progress> {
        let shards = self.leases.iter().map(|lease| usize::from(lease.shard.0));
        shards.filter_map(|shard| self.checkpoints[shard].progress).collect()
    }
}

impl What {
    fn operation(&self) -> Operation {
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

fn id(session: Session, slot: Slot) -> TransactionalId {
    TransactionalId(session, u8::from(slot == Slot::B))
}

/// A machine that receives a false report behaves like one with a bug.
fn planted_input(input: In, plant: Option<Plant>, now: u64) -> In {
    match (plant, input) {
        (Some(Plant::RepliesFromBeforeAreHeard), Input::Completed { completion, .. }) => {
            Input::Completed { generation: now, completion }
        }
        (_, input) => input,
    }
}
