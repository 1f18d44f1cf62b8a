//! The subcommands of the binary.

mod arguments;
mod connection;
mod execute;
pub mod log;
mod quarantine;
mod rebase;
mod release_topics;
mod status;

pub use arguments::{Arguments, CliCommand};
pub use execute::execute;
pub use quarantine::QuarantineCommand;
