//! The work of relays, on the database and the broker.

use annals_relay_machine::{Completion, FailureClass, Input, Operation, Shard, Slot};

use super::places::Step;
use super::relay::{Answer, News, Note, Task, What};
use super::{In, World};
use crate::broker::{Refused, TransactionalId};
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
            What::Send(slot, ..) => self.broker.can_send(id(task.session, *slot)),
            What::ReadCheckpoints(taking) if taking.step == Step::Checkpoints => {
                self.plant == Some(Plant::CheckpointsAreReadWithoutWaiting)
                    || taking.shards().all(|shard| self.broker.can_read(shard))
            }
            _ => true,
        }
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
            What::OpenProducers(2, epochs) => {
                // Before the lease is renewed again: later losses of the database are known from
                // here on.
                if self.can_go_back() {
                    self.broker.announced.insert(task.session);
                }
                answer.news = News::Epochs(epochs);
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
        self.broker.init(id);
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
            What::Send(slot, epoch, batch) => {
                let sent = self.broker.send(id(session, slot), epoch, &batch);
                sent.map(|()| (Completion::Acknowledged(slot), News::Nothing))
            }
            What::Commit(slot, epoch, batches) => {
                let committed = self.broker.commit(id(session, slot), epoch);
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

fn id(session: Session, slot: Slot) -> TransactionalId {
    TransactionalId(session, u8::from(slot == Slot::B))
}
