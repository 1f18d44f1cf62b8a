//! The relay's log.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Log, LogFormat};

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is no filter.
    #[error("log.level is no filter")]
    Filter(#[from] ParseError),
    /// This process has a log already.
    #[error("a log is set up already")]
    Taken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sets up the log of the process, on standard error: the output of commands stays clean.
///
/// # Errors
/// [`LogError`] when it cannot be set up, or is already.
pub fn init(log: &Log) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&log.level)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    }
    .map_err(LogError::Taken)
}
