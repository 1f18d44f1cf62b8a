//! Where a partition is read again: what the broker has at a stored offset.

use uuid::Uuid;

use crate::fetched_record::{FetchedRecord, identity, location};
use crate::position::Offset;

/// Why the broker may refuse an offset.
pub(crate) enum RefusedOffset {
    /// It does not: another partition's was refused.
    Exists,
    /// The last applied record was removed; the next one was not.
    VerificationRemoved,
    /// Records were removed before they were read.
    Removed,
    /// The topic is shorter than it was.
    TopicCreatedAgain,
}

pub(crate) fn refused(
    position: Offset,
    next: Offset,
    (low, high): (Offset, Offset),
) -> RefusedOffset {
    if position > high {
        RefusedOffset::TopicCreatedAgain
    } else if position >= low {
        RefusedOffset::Exists
    } else if next >= low {
        RefusedOffset::VerificationRemoved
    } else {
        RefusedOffset::Removed
    }
}

/// Compares the first record after a start with the record that was read last.
pub(crate) enum ResumeCheck {
    /// It is that record.
    SameRecord,
    /// It is a later one: that record was removed, or the topic is shorter and read from its
    /// beginning.
    LaterRecord,
    /// It is another record at the same offset: the topic was created again.
    OtherTopic,
}

pub(crate) fn check_resume((offset, last): (Offset, Uuid), record: &FetchedRecord) -> ResumeCheck {
    if location(record).offset != offset {
        ResumeCheck::LaterRecord
    } else if identity(record) == last {
        ResumeCheck::SameRecord
    } else {
        ResumeCheck::OtherTopic
    }
}
