//! Changes of a stream that are no events.

use jiff::Timestamp;

use crate::stream::Version;

/// The part of a stream's life that its events do not tell.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) closed_at: Option<Timestamp>,
    pub(super) truncated_before: Option<Version>,
    pub(super) archived_at: Option<Timestamp>,
}
