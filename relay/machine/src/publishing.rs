//! Publishing: producers, fencing, checkpoints, pages of the outbox, transactions.

use crate::leases::{Lease, Shard};
use crate::machine::{Backlog, Commands, Machine, SessionPhase};
use crate::owned_shard::{OwnedShard, Takeover};
use crate::vocabulary::{Action, Completion, Operation, Page};

impl<P: Clone, B> Machine<P, B> {
    pub(crate) fn completed(&mut self, completion: Completion<P, B>) {
        match completion {
            Completion::ProducersOpened => {
                self.in_flight.operations.remove(&Operation::OpenProducers);
                self.is_kafka_unreachable = false;
                self.phase = SessionPhase::Producing;
                self.is_renewal_due = true;
            }
            Completion::PredecessorsFenced(leases) => {
                self.in_flight.operations.remove(&Operation::FencePredecessors);
                self.is_kafka_unreachable = false;
                for lease in leases {
                    let is_confirmed = |step: &Takeover<P>| matches!(step, Takeover::Confirmed);
                    self.advance(lease, is_confirmed, Takeover::Fenced);
                }
            }
            Completion::CheckpointsRead(cursors) => {
                self.in_flight.operations.remove(&Operation::ReadCheckpoints);
                self.is_kafka_unreachable = false;
                for (lease, cursor) in cursors {
                    let is_fenced = |step: &Takeover<P>| matches!(step, Takeover::Fenced);
                    self.advance(lease, is_fenced, Takeover::Live(cursor));
                }
                self.has_new_shard = true;
            }
            Completion::OutboxRead(page) => self.page_read(page),
            Completion::Acknowledged(slot) => self.slots.acknowledged(slot),
            Completion::Committed(slot) => self.slots.committed(slot),
        }
    }

    /// Takes the takeover of a shard a step on, if it is at the step before, in the same epoch.
    fn advance(
        &mut self,
        lease: Lease,
        is_before: impl Fn(&Takeover<P>) -> bool,
        step: Takeover<P>,
    ) {
        if let Some(owned) = self.owned.get_mut(&lease.shard)
            && owned.epoch == lease.epoch
            && is_before(&owned.takeover)
        {
            owned.takeover = step;
        }
    }

    fn page_read(&mut self, page: Page<P, B>) {
        self.in_flight.operations.remove(&Operation::ReadOutbox);
        for (shard, cursor) in page.cursors {
            if let Some(owned) = self.owned.get_mut(&shard) {
                owned.takeover = Takeover::Live(cursor);
            }
        }
        self.backlog = match (&page.batch, page.has_more) {
            (_, true) => Backlog::Pages,
            (None, false) => Backlog::Empty,
            (Some(_), false) => Backlog::Unknown,
        };
        self.next_batch = page.batch;
    }

    pub(crate) fn open_producers(&mut self, commands: &mut Commands<P, B>) {
        if self.paused.is_none() {
            self.order_once(commands, Operation::OpenProducers, |_| Some(Action::OpenProducers));
        }
    }

    pub(crate) fn publish(&mut self, commands: &mut Commands<P, B>) {
        self.commit(commands);
        if let Some(slot) = self.slots.free()
            && let Some(batch) = self.next_batch.take()
        {
            self.slots.sending(slot);
            self.order(commands, Action::Send(slot, batch));
        }
        self.release_shards(commands);
        if self.paused.is_some() {
            return;
        }
        self.order_once(commands, Operation::FencePredecessors, |machine| {
            let confirmed = machine.leases(|of| matches!(of.takeover, Takeover::Confirmed));
            (!confirmed.is_empty()).then_some(Action::FencePredecessors(confirmed))
        });
        self.order_once(commands, Operation::ReadCheckpoints, |machine| {
            let fenced = machine.leases(|of| matches!(of.takeover, Takeover::Fenced));
            (!fenced.is_empty()).then_some(Action::ReadCheckpoints(fenced))
        });
        if self.can_read() {
            self.has_new_shard = false;
            self.order_once(commands, Operation::ReadOutbox, |machine| {
                Some(Action::ReadOutbox(machine.cursors()))
            });
        }
    }

    /// Commits the transaction whose turn it is, if its records are acknowledged.
    pub(crate) fn commit(&mut self, commands: &mut Commands<P, B>) {
        if let Some(slot) = self.slots.due() {
            self.slots.committing(slot);
            self.order(commands, Action::Commit(slot));
        }
    }

    /// While shards are being released nothing is read, so that the transactions under way come to
    /// an end.
    fn can_read(&self) -> bool {
        let may_read = !self.in_flight.is_waiting || self.has_new_shard;
        // The end of a live window is fixed as late as possible: it includes what commits until
        // then. With a backlog, one page is read ahead.
        let has_room = self.next_batch.is_none()
            && (self.backlog == Backlog::Pages || self.slots.free().is_some());
        may_read && has_room && !self.is_releasing() && self.live().next().is_some()
    }

    fn cursors(&self) -> Vec<(Shard, P)> {
        let cursor = |(shard, owned): (&Shard, &OwnedShard<P>)| match &owned.takeover {
            Takeover::Live(cursor) => Some((*shard, cursor.clone())),
            Takeover::Unconfirmed | Takeover::Confirmed | Takeover::Fenced => None,
        };
        self.owned.iter().filter_map(cursor).collect()
    }
}
