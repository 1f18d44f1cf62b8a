//! The effect of each step.

use annals_relay_core::{Command, Done, Input, Order, Trouble, Work};

use super::relay::{Answer, News, Relay, What};
use super::work::Executed;
use super::{Action, In, World};
use crate::broker::Batch;
use crate::planted::Plant;
use crate::reading::Place;

impl World {
    pub(crate) fn take(&mut self, action: Action) {
        match action {
            Action::Start(relay) => {
                self.faults.starts -= 1;
                self.relays[relay] = Some(Relay::new(relay, self.has_histories));
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
            Action::Crash(_) | Action::Stop(_) | Action::Overdue(_) | Action::Stall(_) => {
                self.disturb(action);
            }
            Action::Expire(session) => {
                // A lost task of a dead relay is no fault.
                self.faults.expiries = self.faults.expiries.saturating_sub(1);
                self.database.expire(session, self.plant);
            }
            Action::Lose(relay, answer) => self.lose(relay, answer),
            Action::Late(relay, task) => self.late(relay, task),
            Action::TimeOut(id) => {
                self.faults.timeouts -= 1;
                self.broker.time_out(id);
            }
            Action::Append(shard) => {
                self.faults.appends -= 1;
                self.database.outbox.append(shard);
            }
            Action::AppendHastily(_)
            | Action::Begin(_)
            | Action::Commit
            | Action::RollBack
            | Action::Empty
            | Action::Keep
            | Action::GoBack(_)
            | Action::Copy(_)
            | Action::Rebase => self.take_of_histories(action),
            Action::Refuse(..) | Action::Mend | Action::Ask(_) => self.take_of_holds(action),
        }
    }

    /// A change of a relay's state.
    fn disturb(&mut self, action: Action) {
        match action {
            Action::Crash(relay) => {
                self.faults.crashes -= 1;
                let relay = self.relays[relay].take().unwrap();
                self.strays.extend(relay.tasks);
            }
            Action::Stop(relay) => {
                // Before an operator acts on a lost history, all relays are stopped.
                self.faults.stops = self.faults.stops.saturating_sub(1);
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
            other => panic!("{other:?} does not happen to a relay"),
        }
    }

    /// The causes of refusals, and the operator's reaction.
    fn take_of_holds(&mut self, action: Action) {
        match action {
            Action::Refuse(shard, event) => {
                self.faults.refusals -= 1;
                self.broker.refused.insert((shard, event));
            }
            Action::Mend => {
                self.faults.mendings = self.faults.mendings.saturating_sub(1);
                self.broker.refused.pop_first();
            }
            Action::Ask(shard) => {
                self.faults.askings = self.faults.askings.saturating_sub(1);
                self.database.holds[shard].iter_mut().for_each(|hold| hold.is_wanted = true);
            }
            other => panic!("{other:?} has nothing to do with holds"),
        }
    }

    fn lose(&mut self, relay: usize, answer: usize) {
        self.faults.lost -= 1;
        let Answer { generation, work, news, .. } = self.relay(relay).answers.remove(answer);
        if let News::Noted(_) = news {
            // The relay tries it again.
            return self.relay(relay).note_next();
        }
        self.tell(relay, Input::Failed { generation, work, trouble: Trouble::Unknown });
    }

    /// Abandons a task that is still executed later.
    fn late(&mut self, relay: usize, task: usize) {
        self.faults.late -= 1;
        let task = self.relay(relay).tasks.remove(task);
        let (generation, work) = (task.generation, task.what.work());
        if let What::Note(_) = task.what {
            self.strays.push(task);
            // The relay tries it again.
            return self.relay(relay).note_next();
        }
        let mut input = Input::Failed { generation, work, trouble: Trouble::Unknown };
        if let (Some(Plant::AnUnknownCommitCountsAsDone), What::Commit(slot, ..)) =
            (self.plant, &task.what)
        {
            input = Input::Done { generation, done: Done::Committed(*slot) };
        }
        self.strays.push(task);
        self.tell(relay, input);
    }

    /// Whether this task records progress of a quarantine entry.
    pub(crate) fn is_noting(&self, action: &Action) -> bool {
        let task = match *action {
            Action::Execute(relay, task) | Action::Late(relay, task) => {
                self.relays[relay].as_ref().map(|relay| &relay.tasks[task])
            }
            Action::Stray(number) => Some(&self.strays[number]),
            _ => None,
        };
        task.is_some_and(|task| matches!(task.what, What::Note(_)))
    }

    /// An operator's action before it is taken.
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

    pub(super) fn relay(&mut self, number: usize) -> &mut Relay {
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
            News::Committed(..) if generation < receiver.heard => {}
            News::Committed(batches, ends) => receiver.committed(batches, ends),
            News::Verified(leases, incarnation) if generation == receiver.generation => {
                for lease in leases {
                    receiver.verified[usize::from(lease.shard.0)] = incarnation;
                }
            }
            News::Verified(..) => {}
            News::Noted(noted) => return receiver.has_noted(noted),
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
            match command.order {
                Order::Rest { .. } => relay.is_resting = true,
                Order::End { halted } => {
                    self.is_halted |= halted.is_some();
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
        let Command { generation, order } = command;
        match (self.plant, order) {
            (Some(Plant::CheckpointsAreReadBeforeFencing), Order::Fence(_)) => {
                let checkpoints = self.checkpoints_now();
                self.relay(number).early.checkpoints = checkpoints;
            }
            (Some(Plant::HoldsAreReadBeforeTheCheckpoint), Order::ReadCheckpoints(_)) => {
                self.relay(number).early.holds = self.database.holds;
            }
            (Some(Plant::TheSecondDoesNotWait), Order::Send(slot, _)) => {
                let input = Input::Done { generation: *generation, done: Done::Acked(*slot) };
                let (work, generation) = (Work::Send, *generation);
                let answer = Answer { generation, work, input, news: News::Nothing };
                self.relay(number).answers.push(answer);
            }
            _ => {}
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
}

/// A machine that receives a false report behaves like one with a bug.
fn planted_input(input: In, plant: Option<Plant>, now: u64) -> In {
    match (plant, input) {
        (Some(Plant::RepliesFromBeforeAreHeard), Input::Done { done, .. }) => {
            Input::Done { generation: now, done }
        }
        (_, input) => input,
    }
}
