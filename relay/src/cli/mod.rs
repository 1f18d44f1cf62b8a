//! The subcommands of the binary.

mod arguments;
mod audit;
mod check;
mod config;
mod connection;
mod documents;
mod examples;
mod execute;
mod forget;
pub mod log;
mod output;
mod quarantine;
mod rebase;
mod release_topics;
mod reload;
mod replay;
mod schemas;
mod status;
mod topics;

pub use arguments::{Arguments, CliCommand};
pub use execute::{Invocation, execute};
pub use output::Output;
pub use quarantine::QuarantineCommand;
pub use topics::TopicsCommand;
