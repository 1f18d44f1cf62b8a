//! What a relay decides: which shards to hold, what to publish next, what each outcome means.
//!
//! A [`Machine`] is told what happened ([`Input`]) and says what to do ([`Command`]). It does no I/O, has no
//! clock and no randomness: the crate has no dependency that could. So every order of events can be tried, and
//! is (`tests/`): crashes, lost replies, zombies, late messages.
//!
//! What exactly-once rests on, in the order in which it happens:
//!
//! 1. Shards are owned by leases in PostgreSQL. Taking one makes a new epoch; a session whose lease is over loses
//!    all its shards at once, and each keeps the transactional ids of that session until they are fenced.
//! 2. After producers were made, the leases are looked at *again*; then what a shard's earlier owners left is
//!    fenced; then its checkpoint is read; only then is it published. Whoever takes the shard over before that look is
//!    seen by it; whoever does so later fences the producers just made.
//! 3. Two producers take turns. The second sends when all records of the first are acknowledged, and commits when the
//!    first has committed.
//! 4. After any other answer than success, both producers are destroyed and made again under their ids, which aborts
//!    what they left open; what was committed is read from Kafka. Replies from before are not listened to.
//! 5. A session that cannot reach Kafka while others can gives its shards up, and one whose work is not answered any more does:
//!    it ends as one that has lost its lease, and another session begins.

mod lease;
mod machine;
mod slots;

pub use lease::{Lease, Leases, Shard};
pub use machine::{Command, Done, Input, Machine, Order, Page, Trouble, Work};
pub use slots::{Producers, Slot};
