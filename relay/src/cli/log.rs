//! The relay's log.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Log, LogFormat};

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter in `log.level` is none.
    #[error("log.level is not a filter")]
    Filter(#[from] ParseError),
    /// Something in this process logs already.
    #[error("a log is set up already")]
    Taken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sets the log of the process up: to standard error, so that the output of commands stays clean.
///
/// # Errors
/// [`TelemetryError`] when it cannot be, or is already.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.level)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::Taken)
}
