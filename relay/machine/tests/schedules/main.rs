//! The machine in a small world: relays, PostgreSQL, Kafka and the network between them. The
//! schedule chooses every step of each of them. Time is a choice, too: the schedule decides when a
//! lease expires.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failing test prints its place, and the number of tried schedules"
)]

mod broker;
mod check;
mod database;
mod exhaustive;
mod planted;
mod random;
mod reading;
mod world;
