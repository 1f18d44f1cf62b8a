//! The decisions of a relay: the shards to own, the next events to publish, the consequence of each
//! outcome.
//!
//! A [`Machine`] takes inputs ([`Input`]) and returns commands ([`Command`]). It does no
//! I/O, has no clock and no randomness: the crate has no dependency that could. So every order of
//! inputs can be tried, and the tests try them (`tests/`): crashes, lost replies, zombies, late
//! messages.
//!
//! Exactly-once rests on these rules, in the order in which they apply:
//!
//! 1. Leases in PostgreSQL say which session owns which shard. Acquiring a shard makes a new epoch.
//!    A session whose lease expires loses all its shards at once, and each shard keeps the
//!    transactional ids of that session until they are fenced.
//! 2. After the producers were made, the session renews its lease and reads all leases *again*;
//!    then it fences the earlier owners of its shards, reads the checkpoints, and only then
//!    publishes. The renewal sees each takeover before it; a takeover after it fences the producers
//!    just made.
//! 3. Two producers take turns. The second sends once all records of the first are acknowledged,
//!    and commits once the first has committed.
//! 4. After any answer but success, both producers are destroyed and made again under their
//!    transactional ids, which aborts their open transactions; the checkpoints in Kafka say what
//!    was committed. Answers of an earlier generation of producers are ignored. An id can be busy:
//!    its last transaction has written to a partition that has too few replicas now, and does not
//!    end. Then the producers are made under another pair of the session's ids: the earlier ones
//!    are destroyed, so they begin no further transaction, and checkpoints are not read before
//!    every transaction in their topic is decided. Only the session itself can know that: others
//!    wait until they have fenced all of its ids.
//! 5. A session that cannot reach Kafka while others can ends, and so does one with an operation
//!    that is never answered: other sessions acquire its shards, and the process begins a new
//!    session.
//!
//! `vocabulary` defines inputs and commands, `machine` the state and its transitions, `ownership`
//! the sessions, leases and shards, `publishing` the producers and transactions.

mod leases;
mod machine;
mod owned_shard;
mod ownership;
mod publishing;
mod slots;
mod vocabulary;

pub use leases::{Lease, Leases, Shard};
pub use machine::Machine;
pub use slots::{Producers, Slot};
pub use vocabulary::{
    Action, Command, Completion, Departure, FailureClass, Input, Operation, Page, Readiness,
};
