//! The version filter: what makes any delivery exactly once per stream.

use std::collections::HashMap;

use uuid::Uuid;

use crate::position::Version;

/// Events of each stream whose ids are remembered: its last ones.
pub(crate) const IDS_MAX: usize = 8;

/// Decides for each event whether it is the next of its stream, came before, came too early, or belongs to another
/// history.
///
/// Feed it every event of a topic in the order of delivery. An event is applied if its version is the
/// last one of its stream plus one, dropped if it came before, and refused as a [`Gap`] if something
/// is missing before it. Another event than the one applied under a version is refused as [`Forked`]: seen for the last
/// 8 versions of each stream, whose event ids are remembered. Below them an event counts as a duplicate, whatever its id;
/// where the stream goes on to a version that is remembered, the fork is seen there. The filter keeps one entry a
/// stream, for ever.
///
/// ```
/// use annals_consumer::{Fault, FirstVersion, Verdict, Version, VersionFilter};
/// use uuid::Uuid;
///
/// let version = |number| Version::new(number).unwrap();
/// let (first, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
/// let mut filter = VersionFilter::new(FirstVersion::Zero);
/// assert_eq!(filter.check("order-42", version(0), first), Ok(Verdict::Apply));
/// assert_eq!(filter.check("order-42", version(0), first), Ok(Verdict::Duplicate));
/// assert!(matches!(filter.check("order-42", version(0), other), Err(Fault::Forked(_))));
/// assert!(matches!(filter.check("order-42", version(2), other), Err(Fault::Gap(_))));
/// ```
#[derive(Debug, Clone)]
pub struct VersionFilter {
    first: FirstVersion,
    last: HashMap<String, LastApplied>,
}

/// The last events applied of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastApplied {
    pub(crate) version: Version,
    /// The ids of this version and of those before it, as far as they are known; at most [`IDS_MAX`].
    pub(crate) event_ids: Vec<Uuid>,
}

/// Which version the first event seen of a stream may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstVersion {
    /// Version 0: the topic is read from its beginning and still has it.
    #[default]
    Zero,
    /// Any: reading starts in the middle of the topic, or retention removed its beginning.
    Any,
}

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next of its stream.
    Apply,
    /// It was applied before: drop it.
    Duplicate,
}

/// Why an event is neither to be applied nor to be dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It came before one that it follows.
    #[error(transparent)]
    Gap(#[from] Gap),
    /// It is another event than the one that was applied under its version.
    #[error(transparent)]
    Forked(#[from] Forked),
}

/// An event came before one that it follows.
///
/// Applying it would lose the events between. They may be in the topic still, later or in another
/// partition, or lost with a topic that was deleted or cut by retention.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {stream}: version {found} came where version {expected} was expected")]
pub struct Gap {
    /// The stream.
    pub stream: String,
    /// The version that should have come.
    pub expected: Version,
    /// The version that came.
    pub found: Version,
}

/// A version of a stream came with another event than the one applied: the store has lost events that were
/// published, and has others in their place. What was applied since then did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {stream}: version {version} was event {applied} and is event {received} now")]
pub struct Forked {
    /// The stream.
    pub stream: String,
    /// The version that both events have.
    pub version: Version,
    /// The id of the event that was applied.
    pub applied: Uuid,
    /// The id of the event that came.
    pub received: Uuid,
}

impl VersionFilter {
    /// Starts without having seen any stream.
    #[must_use]
    pub fn new(first: FirstVersion) -> Self {
        Self { first, last: HashMap::new() }
    }

    /// Judges the next event of a stream, and remembers its version and id if it is to be applied.
    ///
    /// # Errors
    /// [`Fault`] if events are missing before it or another one was applied in its place; the filter stays as it was.
    pub fn check(
        &mut self,
        stream: &str,
        version: Version,
        event_id: Uuid,
    ) -> Result<Verdict, Fault> {
        let Some(last) = self.last.get_mut(stream) else {
            return self.first_sight(stream, version, event_id);
        };
        if version <= last.version {
            return match last.event_id(version).filter(|applied| *applied != event_id) {
                None => Ok(Verdict::Duplicate),
                Some(applied) => {
                    let (stream, received) = (stream.to_owned(), event_id);
                    Err(Forked { stream, version, applied, received }.into())
                }
            };
        }
        let expected = last.version.next();
        if version != expected {
            return Err(Gap { stream: stream.to_owned(), expected, found: version }.into());
        }
        last.advance(event_id);
        Ok(Verdict::Apply)
    }

    fn first_sight(
        &mut self,
        stream: &str,
        version: Version,
        event_id: Uuid,
    ) -> Result<Verdict, Fault> {
        if self.first == FirstVersion::Zero && version != Version::ZERO {
            let stream = stream.to_owned();
            return Err(Gap { stream, expected: Version::ZERO, found: version }.into());
        }
        self.set_last(stream, version, event_id);
        Ok(Verdict::Apply)
    }

    /// The version and event id of the last event applied of a stream, if any was.
    #[must_use]
    pub fn last(&self, stream: &str) -> Option<(Version, Uuid)> {
        let last = self.last.get(stream)?;
        Some((last.version, last.event_id(last.version)?))
    }

    /// Tells the filter what was applied before it was made.
    pub fn set_last(&mut self, stream: &str, version: Version, event_id: Uuid) {
        self.restore(stream, LastApplied { version, event_ids: vec![event_id] });
    }

    pub(crate) fn restore(&mut self, stream: &str, last: LastApplied) {
        self.last.insert(stream.to_owned(), last);
    }

    pub(crate) fn last_applied(&self, stream: &str) -> Option<&LastApplied> {
        self.last.get(stream)
    }
}

impl LastApplied {
    fn event_id(&self, version: Version) -> Option<Uuid> {
        let back = self.version.get().checked_sub(version.get())?;
        self.event_ids.get(usize::try_from(back).ok()?).copied()
    }

    fn advance(&mut self, event_id: Uuid) {
        self.version = self.version.next();
        self.event_ids.truncate(IDS_MAX - 1);
        self.event_ids.insert(0, event_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: i64) -> Version {
        Version::new(number).unwrap()
    }

    /// The id of a version in the one history of these tests.
    fn id(number: i64) -> Uuid {
        Uuid::from_u128(u128::try_from(number).unwrap())
    }

    fn gap(judged: Result<Verdict, Fault>) -> Gap {
        match judged {
            Err(Fault::Gap(gap)) => gap,
            other => panic!("{other:?}"),
        }
    }

    fn seen(versions: &[i64]) -> VersionFilter {
        let mut filter = VersionFilter::new(FirstVersion::Zero);
        for &number in versions {
            assert_eq!(filter.check("flight-1", version(number), id(number)), Ok(Verdict::Apply));
        }
        filter
    }

    #[test]
    fn events_in_order_are_applied_each_stream_for_itself() {
        let mut filter = seen(&[0, 1, 2]);
        assert_eq!(filter.check("flight-2", version(0), id(0)), Ok(Verdict::Apply));
        assert_eq!(filter.check("flight-1", version(3), id(3)), Ok(Verdict::Apply));
        assert_eq!(filter.last("flight-1"), Some((version(3), id(3))));
        assert_eq!(filter.last("flight-2"), Some((version(0), id(0))));
    }

    #[test]
    fn planted_duplicate_is_dropped_and_changes_nothing() {
        let mut filter = seen(&[0, 1, 2]);
        for number in [2, 0, 1, 2] {
            assert_eq!(
                filter.check("flight-1", version(number), id(number)),
                Ok(Verdict::Duplicate)
            );
        }
        assert_eq!(filter.check("flight-1", version(3), id(3)), Ok(Verdict::Apply));
    }

    #[test]
    fn planted_gap_names_what_is_missing_and_changes_nothing() {
        let mut filter = seen(&[0, 1]);
        let gap = gap(filter.check("flight-1", version(3), id(3)));
        assert_eq!((gap.expected, gap.found), (version(2), version(3)));
        assert_eq!(gap.to_string(), "stream flight-1: version 3 came where version 2 was expected");
        assert_eq!(filter.check("flight-1", version(2), id(2)), Ok(Verdict::Apply));
    }

    #[test]
    fn planted_inversion_is_a_gap_first_and_a_duplicate_never() {
        let mut filter = seen(&[0]);
        assert!(filter.check("flight-1", version(2), id(2)).is_err());
        assert_eq!(filter.check("flight-1", version(1), id(1)), Ok(Verdict::Apply));
        assert_eq!(filter.check("flight-1", version(2), id(2)), Ok(Verdict::Apply));
    }

    #[test]
    fn first_sight_of_a_stream_must_be_version_zero_unless_told_otherwise() {
        let mut strict = VersionFilter::new(FirstVersion::Zero);
        assert_eq!(gap(strict.check("flight-1", version(5), id(5))).expected, Version::ZERO);
        assert_eq!(strict.last("flight-1"), None);

        let mut middle = VersionFilter::new(FirstVersion::Any);
        assert_eq!(middle.check("flight-1", version(5), id(5)), Ok(Verdict::Apply));
        assert_eq!(middle.check("flight-1", version(4), id(4)), Ok(Verdict::Duplicate));
        assert_eq!(gap(middle.check("flight-1", version(7), id(7))).expected, version(6));
    }

    #[test]
    fn another_event_under_a_version_that_is_remembered_is_a_fork_and_changes_nothing() {
        let mut filter = seen(&(0..20).collect::<Vec<_>>());
        for number in 12..20 {
            let forked = filter.check("flight-1", version(number), id(99)).unwrap_err();
            let expected = Forked {
                stream: "flight-1".to_owned(),
                version: version(number),
                applied: id(number),
                received: id(99),
            };
            assert_eq!(forked, Fault::Forked(expected));
            let again = filter.check("flight-1", version(number), id(number));
            assert_eq!(again, Ok(Verdict::Duplicate));
        }
        // Only the last ids are remembered.
        assert_eq!(filter.check("flight-1", version(11), id(99)), Ok(Verdict::Duplicate));
        assert_eq!(filter.check("flight-1", version(20), id(20)), Ok(Verdict::Apply));
    }

    #[test]
    fn fork_of_what_was_applied_before_the_filter_was_made_is_seen() {
        let mut filter = VersionFilter::new(FirstVersion::Any);
        filter.set_last("flight-1", version(7), id(7));
        assert_eq!(filter.check("flight-1", version(7), id(7)), Ok(Verdict::Duplicate));
        assert_eq!(filter.check("flight-1", version(6), id(99)), Ok(Verdict::Duplicate));
        assert!(matches!(filter.check("flight-1", version(7), id(99)), Err(Fault::Forked(_))));
    }
}
