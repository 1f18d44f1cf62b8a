//! Publishes the outbox of an Annals event store to Kafka.
//!
//! The relay is a service, and this library is what its binary runs: [`run`] takes its configuration and
//! its shutdown from the caller.
//!
//! ```text
//! leases -> fence -> checkpoints -> [ reader -> encoder -> batch -> senders ] -> topics and checkpoints
//!   `------------- ordered by the machine of annals_relay_machine -------------'
//! ```

mod backoff;
mod batch;
pub mod checkpoint;
mod checkpoint_topic;
pub mod claims;
mod claims_topic;
pub mod commands;
pub mod config;
mod config_check;
mod copy;
mod encode;
mod evidence;
pub mod failure;
mod heard;
mod held;
pub mod holds;
mod home;
mod hops;
mod idle;
pub mod kafka;
pub mod kafka_failure;
mod kafka_properties;
mod leases;
pub mod message;
mod notes;
pub mod ownership;
mod passed;
mod places;
mod process;
mod published;
pub mod quarantine;
mod reader;
pub mod rebase;
pub mod registry;
mod relay;
mod sender;
pub mod settings;
mod shell;
mod tails;
pub mod telemetry;
pub mod topic_policy;
mod topics;
mod waiting;
mod wake;
mod watchdog;

pub use failure::{Component, Failure, Outcome};
pub use relay::run;
