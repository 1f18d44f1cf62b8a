//! The work of relays, on the database and the broker.

use annals_relay_machine::{Completion, FailureClass, Input, Operation, Shard};

use super::places::Step;
use super::relay::{Answer, News, Note, Opening, Task, What};
use super::{In, World};
use crate::broker::{Producer, Refused, TransactionalId};
use crate::database::{Session, Under};
use crate::planted::Plant;
use crate::reading::{Noted, Place, Reader};

pub(super) enum Executed {
    Further(Task),
    Answered(Answer),
}

impl World {
    pub(super) fn can_execute(&self, task: &Task) -> bool {
        match &task.what {
            What::Send(_, producer, _) => self.broker.can_send(producer.id(task.session)),
            What::ReadCheckpoints(taking) if taking.step == Step::Checkpoints => {
                self.plant == Some(Plant::CheckpointsAreReadWithoutWaiting)
                    || taking.shards().all(|shard| self.broker.can_read(shard))
            }
            _ => true,
        }
    }

    /// Whether a task is to begin a transaction under an id whose last one does not end.
    pub(super) fn waits_for_a_busy_id(&self, task: &Task) -> bool {
        let What::Send(_, producer, _) = &task.what else { return false };
        let id = producer.id(task.session);
        self.broker.busy.contains(&id) && !self.broker.can_send(id)
    }

    /// Executes a task, or its next part.
    pub(super) fn done(&mut self, task: Task) -> Executed {
        let (relay, generation, operation) = (task.relay, task.generation, task.what.operation());
        let mut answer =
            Answer { generation, operation, input: Input::RenewalDue, news: News::Nothing };
        answer.input = match task.what {
            What::Join => {
                answer.news = News::Session(self.join(relay));
                Input::Joined
            }
            What::OpenProducers(Opening { busy, .. }) if busy == self.database.pairs => {
                Input::Failed { generation, operation, class: FailureClass::Unavailable }
            }
            What::OpenProducers(Opening { made: 2, producers, .. }) => {
                // Before the lease is renewed again: later losses of the database are known from
                // here on.
                if self.can_go_back() {
                    self.broker.announced.insert(task.session);
                }
                answer.news = News::Producers(producers);
                Input::Completed { generation, completion: Completion::ProducersOpened }
            }
            What::OpenProducers(..) => return Executed::Further(self.open(task)),
            What::FencePredecessors(..) => return self.fence(task),
            What::ReadCheckpoints(_) => return self.take_up(task),
            What::RenewLease(_)
            | What::AcquireShards(_)
            | What::ReleaseShards(_)
            | What::Leave(_) => self.on_database(task),
            What::Note(note) => {
                answer.news = News::Noted(self.note(&note));
                Input::RenewalDue
            }
            What::ReadOutbox(places) => self.read(relay, generation, &places),
            What::Send(..) | What::Commit(..) => {
                let (input, news) = self.on_broker(task);
                answer.news = news;
                input
            }
        };
        Executed::Answered(answer)
    }

    fn join(&mut self, relay: usize) -> Session {
        let session = self.session_next;
        self.session_next += 1;
        self.database.join(relay, session, self.plant);
        session
    }

    /// Records an entry's progress, in the history that it was read from; returns the database's
    /// state.
    fn note(&mut self, note: &Note) -> Option<Noted> {
        let progress = note.checkpoint().progress?;
        if note.incarnation() != self.database.incarnation {
            return None;
        }
        let (lease, step) = (note.lease(), note.number);
        let under = Under { session: note.session, leases: &[lease], step };
        let is_noted = self.database.went_on(under, &[progress], self.plant);
        let hold_changes = self.database.hold_changes[usize::from(lease.shard.0)];
        is_noted.then_some(Noted { progress, hold_changes })
    }

    /// Creates the next producer. If its id is busy, both are made under the session's next pair of
    /// ids: the relay has destroyed its earlier producers, so none of them begins a transaction any
    /// more, and checkpoints are not read before their last ones are decided.
    fn open(&mut self, mut task: Task) -> Task {
        if let What::OpenProducers(opening) = &mut task.what {
            let number = 2 * opening.pair + opening.made;
            let id = TransactionalId(task.session, number);
            let epoch = match self.plant {
                Some(Plant::OpeningFencesNothing) => Some(self.broker.init_without_fencing(id)),
                _ => self.broker.init(id),
            };
            let Some(epoch) = epoch else {
                opening.pair = (opening.pair + 1) % self.database.pairs;
                opening.busy += 1;
                opening.made = 0;
                return task;
            };
            opening.producers[usize::from(opening.made)] = Producer { number, epoch };
            opening.made += 1;
        }
        task
    }

    /// Queries the ids to fence, fences the next one, or records that all are fenced.
    fn fence(&mut self, mut task: Task) -> Executed {
        let (generation, session, operation) =
            (task.generation, task.session, Operation::FencePredecessors);
        let answered = |input| {
            let news = News::Nothing;
            Executed::Answered(Answer { generation, operation, input, news })
        };
        let What::FencePredecessors(leases, ids, fenced) = &mut task.what else { unreachable!() };
        let Some(known) = ids else {
            let Some(mut found) = self.database.to_fence(session, leases, self.plant) else {
                let class = FailureClass::Fenced;
                return answered(Input::Failed { generation, operation, class });
            };
            match self.plant {
                Some(Plant::NobodyIsFenced) => found.clear(),
                Some(Plant::OnlyTheFirstIdIsFenced) => found.retain(|id| id.1 == 0),
                _ => {}
            }
            *ids = Some(found);
            return Executed::Further(task);
        };
        let Some(id) = known.pop_first() else {
            self.database.fenced(session, leases, fenced);
            let completion = Completion::PredecessorsFenced(std::mem::take(leases));
            return answered(Input::Completed { generation, completion });
        };
        let is_fenced =
            self.broker.init(id).is_some() || self.plant == Some(Plant::BusyIdsCountAsFenced);
        if !is_fenced {
            let class = FailureClass::Unavailable;
            return answered(Input::Failed { generation, operation, class });
        }
        fenced.insert(id);
        Executed::Further(task)
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

    fn on_broker(&mut self, task: Task) -> (In, News) {
        let (generation, session, operation) =
            (task.generation, task.session, task.what.operation());
        let done = match task.what {
            What::Send(slot, producer, batch) => {
                let sent = self.broker.send(producer.id(session), producer.epoch, &batch);
                sent.map(|()| (Completion::Acknowledged(slot), News::Nothing))
            }
            What::Commit(slot, producer, batches) => {
                let committed = self.broker.commit(producer.id(session), producer.epoch);
                committed.map(|ends| (Completion::Committed(slot), News::Committed(batches, ends)))
            }
            other => panic!("{other:?} is not the broker's"),
        };
        match done {
            Ok((completion, news)) => (Input::Completed { generation, completion }, news),
            Err(refused) => {
                let (class, news) = match refused {
                    Refused::Fenced => (FailureClass::Fenced, News::Nothing),
                    Refused::Events(of) => (FailureClass::Resync, News::Refused(of)),
                };
                (Input::Failed { generation, operation, class }, news)
            }
        }
    }

    /// Reads a page, in the history that the cursors belong to.
    fn read(&mut self, relay: usize, generation: u64, places: &[(Shard, Place)]) -> In {
        let failed = |class| Input::Failed { generation, operation: Operation::ReadOutbox, class };
        let incarnation = self.database.incarnation;
        if places.iter().any(|(_, place)| place.incarnation != incarnation)
            && self.plant != Some(Plant::TheReaderReadsAnyHistory)
        {
            // The producers are created again, and the history is verified before anything else is
            // published.
            return failed(FailureClass::Resync);
        }
        let noted = self.relays[relay].as_ref().map_or_else(Default::default, |r| r.noted);
        let (plant, pages) = (self.plant, self.disturbances.pages);
        let reader = Reader { database: &self.database, noted: &noted, plant, pages };
        let Some(page) = reader.page(places) else { return failed(FailureClass::Unavailable) };
        if let Some(relay) = &mut self.relays[relay]
            && self.plant == Some(Plant::HoldsBeginWhereTheReaderWas)
        {
            for (shard, place) in &page.cursors {
                relay.early.places[usize::from(shard.0)] = place.at;
            }
        }
        Input::Completed { generation, completion: Completion::OutboxRead(page) }
    }

    fn look(&mut self, relay: usize, session: Session, ready: bool) -> In {
        let mut found = self.database.look(session, ready, self.plant);
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
