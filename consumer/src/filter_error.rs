//! Why the version filter stops.

use uuid::Uuid;

use crate::position::Version;

/// Why an event can be neither applied nor dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// An event before it is missing.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// Another event was applied under its version.
    #[error(transparent)]
    Forked(#[from] Forked),
}

/// An event arrived whose predecessor is missing.
///
/// Applying it would lose the events between. They may follow later, or lie in another partition,
/// or be lost with a topic that was deleted or truncated by retention.
/// [`VersionFilter::accept`](crate::VersionFilter::accept) lets the stream continue without them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("stream {stream}: version {found} came where version {expected} was expected")]
pub struct Gap {
    /// The stream.
    pub stream: String,
    /// The expected version.
    pub expected: Version,
    /// The version that arrived.
    pub found: Version,
}

/// Another event arrived under an applied version: the store has lost published events, and has
/// others in their place. The events applied since then are no longer part of the history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {stream}: version {version} was event {applied} and is event {received} now")]
pub struct Forked {
    /// The stream.
    pub stream: String,
    /// The version that both events have.
    pub version: Version,
    /// The id of the applied event.
    pub applied: Uuid,
    /// The id of the event that arrived.
    pub received: Uuid,
}
