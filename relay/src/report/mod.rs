//! The reports of the stages to the driver: completed operations, and failures.
//!
//! `failure` has every kind of failure, `policy` the response to each.

mod error_chain;
pub mod failure;
pub mod kafka_failure;
mod missing_store;
mod policy;
pub(crate) mod progress;
pub mod registry_failure;
mod reporter;
pub(crate) mod threads;

pub use error_chain::in_full;
pub(crate) use missing_store::lacks_store;
pub(crate) use policy::{Policy, Recovered, Refused, RefusedTopic};
pub(crate) use reporter::{Report, ReportReceiver, Reporter, report_channel};
