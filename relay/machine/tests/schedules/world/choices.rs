//! The possible next steps.

use super::relay::Task;
use super::{Faults, Going, Turn, World};
use crate::broker::{Producer, State, TransactionalId};
use crate::database::{HoldRow, SHARDS, Session};

impl World {
    /// Every possible step now without a fault.
    pub(crate) fn fair_actions(&self, actions: &mut Vec<Turn>) {
        for (number, relay) in self.relays.iter().enumerate() {
            let Some(relay) = relay else {
                let can_start = self.faults.starts > 0 && !self.is_halted;
                actions.extend(can_start.then_some(Turn::Start(number)));
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
            if relay.committed.iter().any(Option::is_some) {
                actions.push(Turn::Copy(number));
            }
            if self.is_halted && !relay.is_stopped {
                actions.push(Turn::Stop(number));
            }
        }
        actions.extend(self.broker.with(State::Committing).into_iter().map(Turn::Finish));
        let dead =
            |session: &&Session| self.relays[self.database.sessions[*session].relay].is_none();
        actions.extend(self.database.sessions.keys().filter(dead).copied().map(Turn::Expire));
        if self.database.outbox.is_open() {
            actions.push(Turn::Commit);
        }
        let is_quiet = self.database.sessions.is_empty() && self.relays.iter().all(Option::is_none);
        if self.is_halted && is_quiet {
            actions.push(Turn::Rebase);
        }
        if self.is_tended {
            self.tendings(actions);
        }
        if self.has_shortages() {
            self.ends_of_shortages(actions);
        }
    }

    /// What time brings where partitions have too few replicas.
    fn ends_of_shortages(&self, actions: &mut Vec<Turn>) {
        // A transaction that cannot begin is given up; it can begin later, after all.
        for (number, relay) in self.relays.iter().enumerate() {
            let tasks = relay.iter().flat_map(|relay| relay.tasks.iter().enumerate());
            let given_up = tasks.filter(|(_, task)| self.waits_for_a_busy_id(task));
            actions.extend(given_up.map(|(task, _)| Turn::Late(number, task)));
        }
        if !self.broker.busy.is_empty() && self.needs_replicas() {
            actions.push(Turn::Replicate);
        }
        // A request of a destroyed producer can arrive late.
        let is_used = |id: &TransactionalId| {
            let is_of = |producer: &Producer| producer.number == id.1;
            let of = self.relays.iter().flatten().find(|relay| relay.session == Some(id.0));
            of.is_some_and(|relay| relay.producers.iter().any(is_of))
        };
        let open = self.broker.with(State::Open).into_iter().filter(|id| !is_used(id));
        actions.extend(open.map(Turn::TimeOut));
    }

    /// Whether shards have to wait until partitions have their replicas: only a session itself can
    /// do without a busy id, since it knows that its producers of that id are destroyed, and only
    /// while it has another pair.
    fn needs_replicas(&self) -> bool {
        let is_of_the_living = |session: Session| {
            let relay = self.relays.iter().flatten().any(|of| of.session == Some(session));
            relay && self.database.sessions.contains_key(&session)
        };
        let pairs: Vec<(Session, u8)> =
            self.broker.busy.iter().map(|id| (id.0, id.1 / 2)).collect();
        let is_alone = |(session, pair): &(Session, u8)| !pairs.contains(&(*session, 1 - pair));
        !pairs.iter().all(|pair| is_of_the_living(pair.0) && is_alone(pair))
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
        if self.can_refuse() {
            self.refusals(actions);
        }
        if self.has_shortages() && self.faults.shortages > 0 {
            actions.extend(self.broker.can_be_busy().into_iter().map(Turn::Shortage));
        }
        if self.can_go_back() {
            self.histories(actions);
        }
        let stray = |(_, task): &(usize, &Task)| self.can_execute(task);
        let strays = self.strays.iter().enumerate().filter(stray);
        actions.extend(strays.map(|(number, _)| Turn::Stray(number)));
    }

    fn refusals(&self, actions: &mut Vec<Turn>) {
        let Faults { refusals, mendings, askings, .. } = self.faults;
        if refusals > 0 {
            for shard in 0..usize::from(SHARDS) {
                let published =
                    self.broker.published(shard).filter(|event| event.can_be_held()).last();
                let is_waiting = |number: &u8| published.is_none_or(|last| last.number < *number);
                let events = self.database.outbox.events(shard);
                let waiting = events.filter(|event| event.can_be_held());
                let waiting = waiting.map(|event| event.number).filter(is_waiting);
                actions.extend(waiting.map(|number| Turn::Refuse(shard, number)));
            }
        }
        if mendings > 0 && !self.broker.refused.is_empty() {
            actions.push(Turn::Mend);
        }
        if askings > 0 {
            actions.extend(self.held().map(Turn::Ask));
        }
    }

    /// Possible changes of the database and its transactions.
    fn histories(&self, actions: &mut Vec<Turn>) {
        let Faults { hasty, slow, empty, keeps, histories, .. } = self.faults;
        let shards = || 0..usize::from(SHARDS);
        if hasty > 0 {
            actions.extend(shards().map(Turn::AppendHastily));
        }
        if self.database.outbox.is_open() {
            actions.push(Turn::RollBack);
        } else if slow > 0 {
            actions.extend(shards().map(Turn::Begin));
        }
        actions.extend((empty > 0).then_some(Turn::Empty));
        actions.extend((keeps > 0).then_some(Turn::Keep));
        let going = Going::ALL.into_iter().zip(histories).filter(|(_, left)| *left > 0);
        actions.extend(going.map(|(going, _)| Turn::GoBack(going)));
    }
}
