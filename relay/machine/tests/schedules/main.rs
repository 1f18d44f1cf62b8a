//! The machine in a small world: relays, PostgreSQL, Kafka and the network between them. The
//! schedule chooses every step of each of them. Time is a choice, too: the schedule decides when a
//! lease expires.
//!
//! A world can have disturbances: refused events, pages that end halfway, and a database whose
//! history moves. It crashes and issues transaction ids again, a standby without the last events is
//! promoted, it is restored to an earlier state or moved to another cluster. Without disturbances
//! every schedule is tried; with them, random ones.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failing test prints its place, and the number of tried schedules"
)]

mod broker;
mod check;
mod database;
mod disturbances;
mod exhaustive;
mod outbox;
mod planted;
mod random;
mod reading;
mod world;
