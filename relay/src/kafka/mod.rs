//! Kafka: producers, topics, checkpoints and claims. Only this folder names rdkafka.
//!
//! Everything here blocks, each call up to a deadline: it is for threads of its own.

pub(crate) mod checkpoint_partition;
mod checkpoint_topic;
pub(crate) mod claims_topic;
mod client;
mod client_events;
mod error;
pub(crate) mod event_scan;
pub(crate) mod inspection;
pub(crate) mod producer;
mod properties;
pub(crate) mod rights;
pub(crate) mod scan;
pub(crate) mod tail_scan;
pub(crate) mod topic_admin;
pub(crate) mod topic_changes;
pub mod topic_plan;
pub mod topic_risks;
pub(crate) mod topic_setup;
mod unacknowledged;

pub(crate) use checkpoint_topic::latest_generation;
pub use checkpoint_topic::{ensure_checkpoint_topic, read_checkpoints};
pub use producer::Producer;
pub use topic_setup::ensure_topic;
