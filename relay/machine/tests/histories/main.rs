//! The machine where the history of the database moves: it crashes and gives transaction ids out again, a standby is promoted that has
//! not everything, it is restored to an earlier state or moved to another cluster, and pages are given up half-way. The world is that
//! of `schedules` with positions, transaction ids and snapshots in it, which is too large to try every schedule: these are random.
//!
//! Three of its rules are ahead of the relay: what was held in a part of the log that is lost is missed, sessions that are lost with
//! it are fenced by those that come after, and a generation takes a number that Kafka has never seen.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says where, and how much was tried"
)]

mod broker;
mod check;
mod database;
mod outbox;
mod planted;
mod random;
mod reading;
mod world;
