//! How a type interrupts a walk.

use std::fmt;

/// Raised by the type under test, or by the walk to leave it.
#[derive(Debug)]
pub(super) enum FitError {
    /// What is wrong has been noted.
    Told,
    /// The type insists on a field that it was not given.
    MissingField(&'static str),
    /// The type does not like a value.
    Refusal(String),
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told => f.write_str("noted"),
            Self::MissingField(name) => write!(f, "missing field {name}"),
            Self::Refusal(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for FitError {}

impl serde::de::Error for FitError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Refusal(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::MissingField(field)
    }
}

impl serde::ser::Error for FitError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Refusal(message.to_string())
    }
}
