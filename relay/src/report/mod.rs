//! The reports of the stages to the driver: completed operations, and failures.
//!
//! `failure` has every kind of failure, `policy` the response to each.

mod causes;
pub mod failure;
pub mod kafka_failure;
mod policy;
pub(crate) mod progress;
pub mod registry_failure;
mod reporter;
pub(crate) mod threads;

pub use causes::in_full;
pub(crate) use policy::{Policy, Recovered, RefusedTopic};
pub(crate) use reporter::{Report, ReportReceiver, Reporter, report_channel};
