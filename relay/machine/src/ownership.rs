//! Ownership of shards: the session, its lease, and the steps from acquiring a shard to publishing
//! it.

use std::collections::{BTreeMap, BTreeSet};

use crate::leases::{Lease, Leases, Shard};
use crate::machine::{Commands, Intent, Machine, SessionPhase};
use crate::owned_shard::{OwnedShard, Takeover};
use crate::vocabulary::{Action, Departure, Operation, Readiness};

/// Whether an operation on leases confirms the leases that it returns: it began after the producers
/// were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirmation {
    Confirmed,
    Unconfirmed,
}

impl Confirmation {
    /// The same, if the producers are still there.
    fn while_in(self, phase: SessionPhase) -> Self {
        if phase == SessionPhase::Producing { self } else { Self::Unconfirmed }
    }
}

impl<P: Clone, B> Machine<P, B> {
    /// Compares the owned shards with the leases as they are.
    pub(crate) fn renewed(&mut self, leases: &Leases) {
        let confirmation = self.lease_operation_over();
        let mine: BTreeMap<Shard, u64> =
            leases.mine.iter().map(|lease| (lease.shard, lease.epoch)).collect();
        // Released by a command whose answer was lost.
        self.owned.retain(|shard, owned| !owned.is_leaving || mine.contains_key(shard));
        let is_same =
            |(shard, owned): (&Shard, &OwnedShard<P>)| mine.get(shard) == Some(&owned.epoch);
        if !self.owned.iter().all(is_same) {
            // No rule leads here. Transactions in flight are fenced, and everything begins again.
            self.owned.retain(|shard, _| mine.contains_key(shard));
            self.reset();
        }
        self.own(&leases.mine, confirmation.while_in(self.phase));
        self.has_peers = leases.members > 1;
        if self.readiness() == Readiness::Ready {
            self.is_release_due = true;
            self.balance(leases);
        }
    }

    pub(crate) fn acquired(&mut self, leases: &[Lease]) {
        let confirmation = self.lease_operation_over().while_in(self.phase);
        self.own(leases, confirmation);
    }

    pub(crate) fn released(&mut self) {
        self.in_flight.lease = None;
        self.owned.retain(|_, owned| !owned.is_leaving);
        // Other sessions may have joined in the meantime, or acquired the shard.
        self.is_renewal_due = true;
    }

    pub(crate) fn session_over(&mut self) {
        self.in_flight.lease = None;
        if self.intent == Intent::EndSession {
            self.intent = Intent::Publish;
        }
        self.owned.clear();
        self.reset();
        self.phase = SessionPhase::NoSession;
        self.is_renewal_due = true;
    }

    /// Takes over leases that a renewal or an acquisition has returned. They are confirmed if the
    /// producers were there before it.
    fn own(&mut self, leases: &[Lease], confirmation: Confirmation) {
        for Lease { shard, epoch } in leases {
            let acquired =
                OwnedShard { epoch: *epoch, is_leaving: false, takeover: Takeover::Unconfirmed };
            let owned = self.owned.entry(*shard).or_insert(acquired);
            owned.epoch = *epoch;
            if confirmation == Confirmation::Confirmed
                && matches!(owned.takeover, Takeover::Unconfirmed)
            {
                owned.takeover = Takeover::Confirmed;
            }
        }
    }

    /// Ends the operation on leases; it confirms leases if it began in this generation, with
    /// producers.
    fn lease_operation_over(&mut self) -> Confirmation {
        match self.in_flight.lease.take() {
            Some((_, generation)) if generation == Some(self.generation) => Confirmation::Confirmed,
            Some(_) | None => Confirmation::Unconfirmed,
        }
    }

    /// Every session owns as many shards as the others.
    fn balance(&mut self, leases: &Leases) {
        self.to_acquire = leases.to_acquire(self.shards);
        // Sessions with too few shards acquire the free ones before any session releases more.
        if leases.free.is_empty() {
            let surplus: BTreeSet<Shard> = leases.to_release(self.shards).into_iter().collect();
            for (_, owned) in self.owned.iter_mut().filter(|(shard, _)| surplus.contains(shard)) {
                owned.is_leaving = true;
            }
        }
    }

    /// Whether the session can acquire shards.
    fn readiness(&self) -> Readiness {
        if self.phase == SessionPhase::Producing && !self.is_out_of_reach() {
            Readiness::Ready
        } else {
            Readiness::NotReady
        }
    }

    /// Whether Kafka is out of reach, as far as it is known: a failed operation is tried again
    /// until it succeeds.
    fn is_out_of_reach(&self) -> bool {
        let is_tried = |owned: &OwnedShard<P>| {
            matches!(owned.takeover, Takeover::Confirmed | Takeover::Fenced)
        };
        self.is_kafka_unreachable
            && (self.phase == SessionPhase::NoProducers || self.owned.values().any(is_tried))
    }

    /// Whether other sessions may do better with the shards. Where no session reaches Kafka none is
    /// ready, and every shard stays with its owner.
    pub(crate) fn should_leave_to_peers(&self) -> bool {
        self.is_out_of_reach() && self.has_peers && !self.owned.is_empty()
    }

    /// Joins, acquires shards, renews the lease. One at a time: an answer must not be overtaken by
    /// a later one.
    pub(crate) fn keep_leases(&mut self, commands: &mut Commands<P, B>) {
        if self.in_flight.lease.is_some() {
            return;
        }
        if !self.to_acquire.is_empty() {
            let shards = std::mem::take(&mut self.to_acquire);
            return self.order_on_leases(
                commands,
                Operation::AcquireShards,
                Action::AcquireShards(shards),
            );
        }
        if !self.is_renewal_due {
            return;
        }
        self.is_renewal_due = false;
        if self.phase == SessionPhase::NoSession {
            self.order_on_leases(commands, Operation::Join, Action::Join);
        } else {
            let readiness = self.readiness();
            self.order_on_leases(commands, Operation::RenewLease, Action::RenewLease(readiness));
        }
    }

    /// Releases the shards that other sessions should have, once nothing of them is under way.
    pub(crate) fn release_shards(&mut self, commands: &mut Commands<P, B>) {
        let is_quiet =
            self.is_drained() && !self.in_flight.operations.contains(&Operation::ReadOutbox);
        if is_quiet && self.is_release_due && self.in_flight.lease.is_none() && self.is_releasing()
        {
            self.is_release_due = false;
            let leaving = self.leases(|owned| owned.is_leaving);
            self.order_on_leases(
                commands,
                Operation::ReleaseShards,
                Action::ReleaseShards(leaving),
            );
        }
    }

    pub(crate) fn is_releasing(&self) -> bool {
        self.owned.values().any(|owned| owned.is_leaving)
    }

    /// Ends the session also while work is under way: the next owners of its shards fence it.
    pub(crate) fn abandon_session(&mut self, commands: &mut Commands<P, B>) {
        if self.in_flight.lease.is_none() {
            let leave = Action::Leave(Departure::Abandoned);
            self.order_on_leases(commands, Operation::Leave, leave);
        }
    }

    /// Ends the session when no transaction is under way.
    pub(crate) fn leave(&mut self, commands: &mut Commands<P, B>) {
        let departure = if self.phase == SessionPhase::Producing {
            Departure::Clean
        } else {
            Departure::Abandoned
        };
        self.order_on_leases(commands, Operation::Leave, Action::Leave(departure));
    }

    fn order_on_leases(
        &mut self,
        commands: &mut Commands<P, B>,
        operation: Operation,
        action: Action<P, B>,
    ) {
        let generation = (self.phase == SessionPhase::Producing).then_some(self.generation);
        self.in_flight.lease = Some((operation, generation));
        self.order(commands, action);
    }
}
