//! The subcommands of the binary.

mod arguments;
mod audit;
mod check;
mod connection;
mod execute;
mod forget;
pub mod log;
mod quarantine;
mod rebase;
mod release_topics;
mod replay;
mod status;

pub use arguments::{Arguments, CliCommand};
pub use execute::execute;
pub use quarantine::QuarantineCommand;
