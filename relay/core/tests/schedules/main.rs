//! The machine in a small world: relays, PostgreSQL, Kafka and the network between them. The
//! schedule chooses every step of each of them. Time is a choice, too: the schedule decides when a
//! lease expires.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says where, and how much was tried"
)]

mod broker;
mod check;
mod database;
mod exhaustive;
mod planted;
mod random;
mod reading;
mod world;
