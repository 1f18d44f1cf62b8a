//! The machine in a small world: relays, PostgreSQL, Kafka and the network between them, with every step that any
//! of them can take a choice of the schedule. Time is a choice, too: a lease is over whenever the schedule says so.

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
