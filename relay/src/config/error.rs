//! A configuration that cannot be used, and why.

use std::fmt;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin} is not TOML: {message}")]
    Malformed {
        /// The file, and the line.
        origin: String,
        /// The fault.
        message: String,
    },
    /// Some keys are unknown or wrong: these are all of them.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
}

/// One key that is unknown or wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file and the line, or the environment variable.
    pub origin: String,
    /// The key, `section.key`.
    pub key: String,
    /// The fault, and its correction.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.origin, self.key, self.what)
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
