//! The machine with a database whose history changes. The database crashes and issues transaction
//! ids again, a standby without the last events is promoted, the database is restored to an earlier
//! state or moved to another cluster, and pages end halfway. The world is that of `schedules` with
//! positions, transaction ids and snapshots. It is too large to try every schedule: these are
//! random.
//!
//! The model is ahead of the relay in three rules: it detects lost quarantine entries, later
//! sessions fence sessions whose rows were lost, and a generation takes a number that Kafka has
//! never seen.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failing test prints its place, and the number of tried schedules"
)]

mod broker;
mod check;
mod database;
mod outbox;
mod planted;
mod random;
mod reading;
mod world;
