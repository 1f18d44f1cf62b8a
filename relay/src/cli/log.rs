//! The relay's log.

use std::io::IsTerminal;

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::{EnvFilter, reload};

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
    /// The filter cannot be changed.
    #[error("change the filter of the log")]
    Unchanged(#[from] reload::Error),
}

type SetFilter = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

/// The log of this process, whose level can be changed.
pub struct LogHandle {
    change: Box<SetFilter>,
}

impl LogHandle {
    /// Changes the filter of later entries.
    ///
    /// # Errors
    /// [`LogError`] when `level` is no filter.
    pub fn filter(&self, level: &str) -> Result<(), LogError> {
        Ok((self.change)(EnvFilter::try_new(level)?)?)
    }
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogHandle").finish_non_exhaustive()
    }
}

/// Sets up the log of the process, on standard error: the output of commands stays clean.
///
/// # Errors
/// [`LogError`] when it cannot be set up, or is already.
pub fn init(log: &Log) -> Result<LogHandle, LogError> {
    let filter = EnvFilter::try_new(&log.level)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => {
            let subscriber = subscriber.with_filter_reloading();
            let handle = subscriber.reload_handle();
            subscriber.try_init().map_err(LogError::Taken)?;
            Ok(LogHandle { change: Box::new(move |filter| handle.reload(filter)) })
        }
        LogFormat::Json => {
            let subscriber = subscriber.json().flatten_event(true).with_filter_reloading();
            let handle = subscriber.reload_handle();
            subscriber.try_init().map_err(LogError::Taken)?;
            Ok(LogHandle { change: Box::new(move |filter| handle.reload(filter)) })
        }
    }
}
