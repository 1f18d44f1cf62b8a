//! What this crate promises, on a real Kafka, schema registry and PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it stands")]

mod book;
mod events;
mod exactly_once;
mod forks;
mod logs;
mod outages;
mod reading;
mod refusals;
mod topics;
mod world;
