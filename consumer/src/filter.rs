//! The version filter: what makes any delivery exactly once per stream.

use std::collections::HashMap;

use crate::position::Version;

/// Decides for each event whether it is the next of its stream, came before, or came too early.
///
/// Feed it every event of a topic in the order of delivery. An event is applied if its version is the
/// last one of its stream plus one, dropped if it is not newer, and refused as a [`Gap`] if something
/// is missing before it. The filter keeps one entry a stream, for ever.
///
/// ```
/// use annals_consumer::{FirstVersion, Verdict, Version, VersionFilter};
///
/// let version = |number| Version::new(number).unwrap();
/// let mut filter = VersionFilter::new(FirstVersion::Zero);
/// assert_eq!(filter.check("order-42", version(0)), Ok(Verdict::Apply));
/// assert_eq!(filter.check("order-42", version(0)), Ok(Verdict::Duplicate));
/// assert_eq!(filter.check("order-42", version(2)).unwrap_err().expected, version(1));
/// ```
#[derive(Debug, Clone)]
pub struct VersionFilter {
    first: FirstVersion,
    last: HashMap<String, Version>,
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

impl VersionFilter {
    /// Starts without having seen any stream.
    #[must_use]
    pub fn new(first: FirstVersion) -> Self {
        Self { first, last: HashMap::new() }
    }

    /// Judges the next event of a stream, and remembers its version if it is to be applied.
    ///
    /// # Errors
    /// [`Gap`] if events are missing before it; the filter stays as it was.
    pub fn check(&mut self, stream: &str, version: Version) -> Result<Verdict, Gap> {
        let Some(last) = self.last.get_mut(stream) else {
            return self.first_sight(stream, version);
        };
        if version <= *last {
            return Ok(Verdict::Duplicate);
        }
        let expected = last.next();
        if version != expected {
            return Err(Gap { stream: stream.to_owned(), expected, found: version });
        }
        *last = version;
        Ok(Verdict::Apply)
    }

    fn first_sight(&mut self, stream: &str, version: Version) -> Result<Verdict, Gap> {
        if self.first == FirstVersion::Zero && version != Version::ZERO {
            let stream = stream.to_owned();
            return Err(Gap { stream, expected: Version::ZERO, found: version });
        }
        self.set_last(stream, version);
        Ok(Verdict::Apply)
    }

    /// The last version applied of a stream, if any was.
    #[must_use]
    pub fn last(&self, stream: &str) -> Option<Version> {
        self.last.get(stream).copied()
    }

    /// Tells the filter what was applied before it was made.
    pub fn set_last(&mut self, stream: &str, version: Version) {
        self.last.insert(stream.to_owned(), version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: i64) -> Version {
        Version::new(number).unwrap()
    }

    fn seen(versions: &[i64]) -> VersionFilter {
        let mut filter = VersionFilter::new(FirstVersion::Zero);
        for &number in versions {
            assert_eq!(filter.check("flight-1", version(number)), Ok(Verdict::Apply));
        }
        filter
    }

    #[test]
    fn events_in_order_are_applied_each_stream_for_itself() {
        let mut filter = seen(&[0, 1, 2]);
        assert_eq!(filter.check("flight-2", version(0)), Ok(Verdict::Apply));
        assert_eq!(filter.check("flight-1", version(3)), Ok(Verdict::Apply));
        assert_eq!(filter.last("flight-1"), Some(version(3)));
        assert_eq!(filter.last("flight-2"), Some(version(0)));
    }

    #[test]
    fn planted_duplicate_is_dropped_and_changes_nothing() {
        let mut filter = seen(&[0, 1, 2]);
        for number in [2, 0, 1, 2] {
            assert_eq!(filter.check("flight-1", version(number)), Ok(Verdict::Duplicate));
        }
        assert_eq!(filter.check("flight-1", version(3)), Ok(Verdict::Apply));
    }

    #[test]
    fn planted_gap_names_what_is_missing_and_changes_nothing() {
        let mut filter = seen(&[0, 1]);
        let gap = filter.check("flight-1", version(3)).unwrap_err();
        assert_eq!((gap.expected, gap.found), (version(2), version(3)));
        assert_eq!(gap.to_string(), "stream flight-1: version 3 came where version 2 was expected");
        assert_eq!(filter.check("flight-1", version(2)), Ok(Verdict::Apply));
    }

    #[test]
    fn planted_inversion_is_a_gap_first_and_a_duplicate_never() {
        let mut filter = seen(&[0]);
        assert!(filter.check("flight-1", version(2)).is_err());
        assert_eq!(filter.check("flight-1", version(1)), Ok(Verdict::Apply));
        assert_eq!(filter.check("flight-1", version(2)), Ok(Verdict::Apply));
    }

    #[test]
    fn first_sight_of_a_stream_must_be_version_zero_unless_told_otherwise() {
        let mut strict = VersionFilter::new(FirstVersion::Zero);
        assert_eq!(strict.check("flight-1", version(5)).unwrap_err().expected, Version::ZERO);
        assert_eq!(strict.last("flight-1"), None);

        let mut middle = VersionFilter::new(FirstVersion::Any);
        assert_eq!(middle.check("flight-1", version(5)), Ok(Verdict::Apply));
        assert_eq!(middle.check("flight-1", version(4)), Ok(Verdict::Duplicate));
        assert_eq!(middle.check("flight-1", version(7)).unwrap_err().expected, version(6));
    }
}
