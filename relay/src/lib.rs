//! Publishes the outbox of an Annals event store to Kafka.
//!
//! The relay is a service, and this library is what its binary runs: [`run`] takes its configuration and
//! its shutdown from the caller.
//!
//! ```text
//! leases -> fence -> checkpoints -> [ reader -> encoder -> batch -> senders ] -> topics and checkpoints
//!   `------------- ordered by the machine of annals_relay_machine -------------'
//! ```

#[path = "driver/backoff.rs"]
mod backoff;
#[path = "model/batch.rs"]
mod batch;
#[path = "model/checkpoint.rs"]
pub mod checkpoint;
#[path = "kafka/checkpoint_topic.rs"]
mod checkpoint_topic;
#[path = "model/claim_book.rs"]
pub mod claims;
#[path = "kafka/claims_topic.rs"]
mod claims_topic;
#[path = "cli/execute.rs"]
pub mod commands;
#[path = "config/settings.rs"]
pub mod config;
#[path = "config/check.rs"]
mod config_check;
#[path = "driver/housekeeping.rs"]
mod copy;
#[path = "publish/encoder.rs"]
mod encode;
#[path = "driver/evidence.rs"]
mod evidence;
#[path = "report/failure.rs"]
pub mod failure;
#[path = "kafka/client_events.rs"]
mod heard;
#[path = "publish/quarantined.rs"]
mod held;
#[path = "model/quarantine.rs"]
pub mod holds;
#[path = "kafka/checkpoint_partition.rs"]
mod home;
#[path = "model/timings.rs"]
mod hops;
#[path = "driver/poll_interval.rs"]
mod idle;
#[path = "kafka/producer.rs"]
pub mod kafka;
#[path = "report/kafka_failure.rs"]
pub mod kafka_failure;
#[path = "kafka/properties.rs"]
mod kafka_properties;
#[path = "state/session.rs"]
mod leases;
#[path = "model/message.rs"]
pub mod message;
#[path = "driver/quarantine_progress.rs"]
mod notes;
#[path = "driver/topic_claims.rs"]
pub mod ownership;
#[path = "state/skipped.rs"]
mod passed;
#[path = "driver/resume.rs"]
mod places;
#[path = "state/process.rs"]
mod process;
#[path = "driver/comparison.rs"]
mod published;
#[path = "cli/quarantine.rs"]
pub mod quarantine;
#[path = "publish/page.rs"]
mod reader;
#[path = "cli/rebase.rs"]
pub mod rebase;
#[path = "publish/registry.rs"]
pub mod registry;
#[path = "driver/run.rs"]
mod relay;
#[path = "publish/senders.rs"]
mod sender;
#[path = "config/sources.rs"]
pub mod settings;
#[path = "driver/event_loop.rs"]
mod shell;
#[path = "kafka/tail_scan.rs"]
mod tails;
#[path = "cli/log.rs"]
pub mod telemetry;
#[path = "kafka/topic_plan.rs"]
pub mod topic_policy;
#[path = "publish/topics.rs"]
mod topics;
#[path = "driver/outage.rs"]
mod waiting;
#[path = "driver/listener.rs"]
mod wake;
#[path = "driver/watchdog.rs"]
mod watchdog;

pub use failure::{Component, Failure, Outcome};
pub use relay::run;
