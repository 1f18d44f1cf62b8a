//! The inputs and the commands of the machine.

use crate::leases::{Lease, Leases, Shard};
use crate::slots::Slot;

/// One thing to do. `P` is a cursor in the outbox; `B` the records of one Kafka transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Command<P, B> {
    /// The answer repeats it: answers of an earlier generation of producers are ignored.
    pub generation: u64,
    /// The action.
    pub action: Action<P, B>,
}

/// A step of the driver. Each is answered by one [`Input`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action<P, B> {
    /// Begin a session: its transactional ids are written to PostgreSQL before anything is
    /// published under them.
    Join,
    /// Renew the session's lease, end expired sessions, and read all leases.
    RenewLease(Readiness),
    /// Acquire those of these shards that are still free.
    AcquireShards(Vec<Shard>),
    /// Release these shards; everything published of them is committed.
    ReleaseShards(Vec<Lease>),
    /// Release all shards and end the session.
    Leave(Departure),
    /// Destroy both producers, if there are any, and make them again under the session's
    /// transactional ids.
    OpenProducers,
    /// Fence the transactional ids that earlier owners of these shards used, then forget them.
    FencePredecessors(Vec<Lease>),
    /// Read the checkpoints of these shards, with everything that was committed before.
    ReadCheckpoints(Vec<Lease>),
    /// Read the events after these cursors, at most one transaction's worth.
    ReadOutbox(Vec<(Shard, P)>),
    /// Begin a transaction and send these records.
    Send(Slot, B),
    /// Commit the transaction.
    Commit(Slot),
    /// Answer [`Input::WaitOver`] after a pause: the poll interval, or a back-off that grows with
    /// each failure.
    Wait {
        /// The failure; `None` when there was nothing to publish.
        after: Option<(Operation, FailureClass)>,
    },
    /// End the process.
    EndProcess {
        /// Why, unless [`Input::Stop`] ended it.
        halted: Option<(Operation, FailureClass)>,
    },
}

/// Whether a session can acquire shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Readiness {
    /// It has producers and reaches Kafka.
    Ready,
    /// It has no producers, or does not reach Kafka.
    NotReady,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Departure {
    /// Everything that was sent is committed.
    Clean,
    /// A transaction may be open: the next owners of the shards must fence the session's
    /// transactional ids.
    Abandoned,
}

/// An input of the machine: a report of the driver, or a time that has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input<P, B> {
    /// It is time to renew the lease; several times in its length.
    RenewalDue,
    /// It is time to renew the lease, and an outage has lasted for as long as a lease does.
    OutageOutlastsLease,
    /// An operation is under way and is not answered any more.
    Stalled,
    /// The last [`Action::Wait`] is over.
    WaitOver,
    /// The process is to end.
    Stop,
    /// The session has begun.
    Joined,
    /// The lease is renewed, and these are all leases.
    LeaseRenewed(Leases),
    /// The session does not exist any more: its lease had expired.
    SessionExpired,
    /// These shards were acquired.
    ShardsAcquired(Vec<Lease>),
    /// The shards were released.
    ShardsReleased,
    /// The session has ended.
    SessionEnded,
    /// An operation of one generation of producers has succeeded.
    Completed {
        /// The generation of the command.
        generation: u64,
        /// The answer.
        completion: Completion<P, B>,
    },
    /// An operation has failed.
    Failed {
        /// The generation of the command.
        generation: u64,
        /// Which operation.
        operation: Operation,
        /// The consequence of the failure.
        class: FailureClass,
    },
}

/// Which operation of a generation of producers has succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Completion<P, B> {
    /// The producers are made, and no transaction of their predecessors is open.
    ProducersOpened,
    /// No transaction of the earlier owners is open, and they can publish no more.
    PredecessorsFenced(Vec<Lease>),
    /// The cursors from which the shards are published.
    CheckpointsRead(Vec<(Lease, P)>),
    /// The next page of the outbox.
    OutboxRead(Page<P, B>),
    /// Every record of the transaction is acknowledged.
    Acknowledged(Slot),
    /// The transaction is committed.
    Committed(Slot),
}

/// The result of one [`Action::ReadOutbox`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Page<P, B> {
    /// The records, with the checkpoints that go with them; `None` when there is nothing to
    /// publish.
    pub batch: Option<B>,
    /// The cursors of the shards after it.
    pub cursors: Vec<(Shard, P)>,
    /// Whether there is more to read at once.
    pub has_more: bool,
}

/// The actions that can succeed or fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Action::Join`].
    Join,
    /// [`Action::RenewLease`].
    RenewLease,
    /// [`Action::AcquireShards`].
    AcquireShards,
    /// [`Action::ReleaseShards`].
    ReleaseShards,
    /// [`Action::Leave`].
    Leave,
    /// [`Action::OpenProducers`].
    OpenProducers,
    /// [`Action::FencePredecessors`].
    FencePredecessors,
    /// [`Action::ReadCheckpoints`].
    ReadCheckpoints,
    /// [`Action::ReadOutbox`].
    ReadOutbox,
    /// [`Action::Send`].
    Send,
    /// [`Action::Commit`].
    Commit,
}

impl Operation {
    /// Whether it is about the session and its leases, and not about producers. One of these is
    /// under way at a time.
    #[must_use]
    pub const fn is_on_leases(self) -> bool {
        match self {
            Self::Join
            | Self::RenewLease
            | Self::AcquireShards
            | Self::ReleaseShards
            | Self::Leave => true,
            Self::OpenProducers
            | Self::FencePredecessors
            | Self::ReadCheckpoints
            | Self::ReadOutbox
            | Self::Send
            | Self::Commit => false,
        }
    }
}

impl<P, B> Action<P, B> {
    /// The operation that it begins; `None` for those that cannot fail.
    #[must_use]
    pub const fn operation(&self) -> Option<Operation> {
        Some(match self {
            Self::Join => Operation::Join,
            Self::RenewLease(_) => Operation::RenewLease,
            Self::AcquireShards(_) => Operation::AcquireShards,
            Self::ReleaseShards(_) => Operation::ReleaseShards,
            Self::Leave(_) => Operation::Leave,
            Self::OpenProducers => Operation::OpenProducers,
            Self::FencePredecessors(_) => Operation::FencePredecessors,
            Self::ReadCheckpoints(_) => Operation::ReadCheckpoints,
            Self::ReadOutbox(_) => Operation::ReadOutbox,
            Self::Send(..) => Operation::Send,
            Self::Commit(_) => Operation::Commit,
            Self::Wait { .. } | Self::EndProcess { .. } => return None,
        })
    }
}

impl<P, B> Completion<P, B> {
    /// The operation that it answers.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::ProducersOpened => Operation::OpenProducers,
            Self::PredecessorsFenced(_) => Operation::FencePredecessors,
            Self::CheckpointsRead(_) => Operation::ReadCheckpoints,
            Self::OutboxRead(_) => Operation::ReadOutbox,
            Self::Acknowledged(_) => Operation::Send,
            Self::Committed(_) => Operation::Commit,
        }
    }
}

/// The consequence of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureClass {
    /// A component is unavailable, or refuses: wait, then try again.
    Unavailable,
    /// An event, a topic or a schema is refused, or the database may have changed: begin again at
    /// once from the checkpoints. Refused events are quarantined when they are read, and the rest
    /// is published.
    Resync,
    /// Another session has fenced the producer.
    Fenced,
    /// The operation may have taken effect or not.
    UnknownOutcome,
    /// The history of the database has diverged from the one that was published.
    DivergedHistory,
    /// It cannot succeed.
    Fatal,
}

impl FailureClass {
    /// Whether going on would lose or repeat events, or cannot succeed.
    #[must_use]
    pub const fn halts(self) -> bool {
        match self {
            Self::DivergedHistory | Self::Fatal => true,
            Self::Unavailable | Self::Resync | Self::Fenced | Self::UnknownOutcome => false,
        }
    }
}
