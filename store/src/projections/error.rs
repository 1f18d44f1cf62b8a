//! Errors of projections.

use super::apply::is_transient_cause;
use crate::error::{AppendError, Error};
use crate::event::EventId;
use crate::stream::Position;

/// Why an operation on a projection failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The store reported an error, or was not reached.
    #[error(transparent)]
    Store(#[from] Error),
    /// The append of [`append_inline`](crate::Store::append_inline) was not acknowledged.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The projection refused events of an append, or events before it became inline.
    #[error("projection {projection} refused events")]
    Refused {
        /// The projection.
        projection: String,
        /// Its error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The name or the version is not legal.
    #[error(
        "version {version} of projection {name:?}: a name has small letters, digits and _, begins \
         with a letter, is no schema of PostgreSQL or of this store, and leaves room for the version \
         in 63 bytes; versions begin with 1"
    )]
    Illegal {
        /// The name.
        name: String,
        /// The version.
        version: u32,
    },
    /// This version was registered with other events: give it another version.
    #[error(
        "version {version} of projection {projection} follows other events in the database: give it \
         another version"
    )]
    OtherEvents {
        /// The projection.
        projection: String,
        /// The version.
        version: u32,
    },
    /// There is no such version, or readers see none.
    #[error("there is no such version of projection {projection}")]
    Unknown {
        /// The projection.
        projection: String,
    },
    /// A runner acquired the lease while the mode of the projection was changed, which took longer
    /// than the deadline. Nothing changed.
    #[error("a runner has the lease of projection {projection} again: its mode is not changed")]
    LeaseLost {
        /// The projection.
        projection: String,
    },
    /// The projection did not apply the awaited events before the deadline.
    #[error(
        "projection {projection} has only come to position {reached} before the deadline{}",
        stopped_at(failed_event.as_ref())
    )]
    Behind {
        /// The projection.
        projection: String,
        /// How far it has come in the log.
        reached: Position,
        /// The event at which it is stopped, if it is.
        failed_event: Option<EventId>,
    },
}

impl ProjectionError {
    pub(super) fn database(action: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Store(Error::Database { action, source })
    }

    /// Whether the same operation can succeed when repeated.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Append(error) => error.is_retryable(),
            Self::Refused { source, .. } => is_transient_cause(&**source),
            Self::Behind { .. } | Self::LeaseLost { .. } => true,
            Self::Illegal { .. } | Self::OtherEvents { .. } | Self::Unknown { .. } => false,
        }
    }
}

fn stopped_at(event: Option<&EventId>) -> String {
    event.map(|event| format!("; it is stopped at event {event}")).unwrap_or_default()
}
