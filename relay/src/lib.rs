//! Publishes the outbox of an Annals event store to Kafka.
//!
//! The relay is a service; its binary runs this library: [`run`] takes its
//! configuration and its shutdown from the caller.
//!
//! ```text
//! leases -> fence -> checkpoints -> [ reader -> encoder -> batch -> senders ] -> Kafka
//!   `------------- ordered by the machine of annals_relay_machine ----------'
//! ```
//!
//! The folders, each of which uses only those before it: `config` (the configuration), `model`
//! (data), `report` (reports and failures of the stages), `telemetry` (health and metrics over
//! HTTP), `kafka`, `state` (PostgreSQL), `publish` (the stages), `driver` (executes the machine's
//! actions), `replay` (published events, again), `audit` (topics compared with the store), `check`
//! (before the first start), `schemas` (schemas in files, in the store and in the registry), `cli`
//! (the subcommands).

mod audit;
mod check;
pub mod cli;
pub mod config;
mod driver;
pub mod kafka;
pub mod model;
mod publish;
mod replay;
pub mod report;
mod schemas;
mod state;
mod telemetry;

pub use driver::run;
pub use publish::registry;
pub use report::failure::{Component, Failure};
pub use telemetry::ServerError;
