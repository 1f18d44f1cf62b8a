//! The effect of each step.

use annals_relay_machine::{Action, Command, Completion, FailureClass, Input, Operation};

use super::relay::{Answer, News, Relay, What};
use super::work::Executed;
use super::{In, Turn, World};
use crate::broker::Batch;
use crate::planted::Plant;
use crate::reading::Place;

impl World {
    pub(crate) fn take(&mut self, action: Turn) {
        match action {
            Turn::Start(relay) => {
                self.faults.starts -= 1;
                self.relays[relay] = Some(Relay::new(relay, self.disturbances));
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
            Turn::Crash(_) | Turn::Stop(_) | Turn::Overdue(_) | Turn::Stall(_) => {
                self.disturb(action);
            }
            Turn::Expire(session) => {
                // A lost task of a dead relay is no fault.
                self.faults.expiries = self.faults.expiries.saturating_sub(1);
                self.database.expire(session, self.plant);
            }
            Turn::Lose(relay, answer) => self.lose(relay, answer),
            Turn::Late(relay, task) => self.late(relay, task),
            Turn::TimeOut(id) => {
                self.faults.timeouts = self.faults.timeouts.saturating_sub(1);
                self.broker.time_out(id);
            }
            Turn::Append(shard) => {
                self.faults.appends -= 1;
                self.database.outbox.append(shard);
            }
            Turn::AppendHastily(_)
            | Turn::Begin(_)
            | Turn::Commit
            | Turn::RollBack
            | Turn::Empty
            | Turn::Keep
            | Turn::GoBack(_)
            | Turn::Copy(_)
            | Turn::Rebase => self.take_of_histories(action),
            Turn::Refuse(..) | Turn::Mend | Turn::Ask(_) => self.take_of_holds(action),
            Turn::Shortage(id) => {
                self.faults.shortages -= 1;
                self.broker.busy.insert(id);
            }
            Turn::Replicate => self.broker.busy.clear(),
        }
    }

    /// A change of a relay's state.
    fn disturb(&mut self, action: Turn) {
        match action {
            Turn::Crash(relay) => {
                self.faults.crashes -= 1;
                let relay = self.relays[relay].take().unwrap();
                self.strays.extend(relay.tasks);
            }
            Turn::Stop(relay) => {
                // Before an operator acts on a lost history, all relays are stopped.
                self.faults.stops = self.faults.stops.saturating_sub(1);
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
            other => panic!("{other:?} does not happen to a relay"),
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
        self.faults.late = self.faults.late.saturating_sub(1);
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

    /// Whether this task records progress of a quarantine entry, or copies checkpoints.
    pub(crate) fn is_recording(&self, action: &Turn) -> bool {
        matches!(action, Turn::Copy(_)) || self.is_noting(action)
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

    pub(super) fn relay(&mut self, number: usize) -> &mut Relay {
        self.relays[number].as_mut().unwrap()
    }

    fn deliver(&mut self, relay: usize, answer: usize) {
        let receiver = self.relay(relay);
        let Answer { input, news, generation, .. } = receiver.answers.remove(answer);
        match news {
            News::Nothing => {}
            News::Session(session) => receiver.session = Some(session),
            News::Producers(producers) if generation == receiver.opened => {
                receiver.producers = producers;
                receiver.heard = generation;
            }
            News::Producers(_) => {}
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
            match command.action {
                Action::Wait { .. } => relay.is_resting = true,
                Action::EndProcess { halted } => {
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
        let Command { generation, action } = command;
        match (self.plant, action) {
            (Some(Plant::CheckpointsAreReadBeforeFencing), Action::FencePredecessors(_)) => {
                let checkpoints = self.checkpoints_now();
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
