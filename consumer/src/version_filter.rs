//! The version filter: makes any delivery exactly once per stream.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::envelope::Delivered;
use crate::filter_error::{FilterError, Forked, Gap};
use crate::position::{TopicPartition, Version};
use crate::progress::LastApplied;

/// Decides for each event whether to apply it, and detects duplicates, gaps and forks.
///
/// Check every event of a topic in the order of delivery. An event is dropped if its version was
/// applied, and applied if the event before it was: the version before, or the one that the record
/// names where events between are never published. Otherwise there is a [`Gap`]. Another event
/// under an applied version is a [`Forked`] stream: the filter detects this for the last 8 versions
/// of each stream, whose event ids it keeps. An event with a lower version is a duplicate, with any
/// id; if the stream continues to a version that is kept, the fork is detected there. The filter
/// keeps one entry for each stream, without limit.
///
/// ```
/// use annals_consumer::{FilterError, FirstVersion, FilterDecision, Version, VersionFilter};
/// use uuid::Uuid;
///
/// let version = |number| Version::new(number).unwrap();
/// let (first, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
/// let mut filter = VersionFilter::new(FirstVersion::Zero);
/// assert_eq!(filter.check("order-42", version(0), first), Ok(FilterDecision::Apply));
/// assert_eq!(filter.check("order-42", version(0), first), Ok(FilterDecision::Duplicate));
/// assert!(matches!(filter.check("order-42", version(0), other), Err(FilterError::Forked(_))));
/// assert!(matches!(filter.check("order-42", version(2), other), Err(FilterError::Gap(_))));
/// ```
#[derive(Debug, Clone)]
pub struct VersionFilter {
    first: FirstVersion,
    last: HashMap<String, LastApplied>,
    /// The partitions of streams, as far as records were checked.
    partitions: HashMap<TopicPartition, HashSet<String>>,
    /// Gaps behind which streams continue.
    accepted: Arc<HashSet<Gap>>,
}

/// Which version the first event of a stream may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FirstVersion {
    /// Version 0: the topic is complete, and read from its beginning.
    #[default]
    Zero,
    /// Any version: reading starts within the topic, or retention removed its beginning.
    Any,
}

/// The decision of a [`VersionFilter`] about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterDecision {
    /// Apply it: it is the next event of its stream.
    Apply,
    /// Drop it: it was applied before.
    Duplicate,
}

pub(crate) fn log_accepted(gap: &Gap, reason: &str) {
    let Gap { stream, expected, found } = gap;
    tracing::warn!(stream, %expected, %found, reason, "the loss of events of a stream is accepted");
}

impl VersionFilter {
    /// Makes a filter without any stream.
    #[must_use]
    pub fn new(first: FirstVersion) -> Self {
        Self { first, last: HashMap::new(), partitions: HashMap::new(), accepted: Arc::default() }
    }

    /// Lets the stream continue behind this gap: the events between are lost. A line of the log
    /// says so, with the reason.
    pub fn accept(&mut self, gap: Gap, reason: &str) {
        log_accepted(&gap, reason);
        Arc::make_mut(&mut self.accepted).insert(gap);
    }

    /// A filter for a batch of so many records.
    pub(crate) fn of_batch(
        first: FirstVersion,
        records: usize,
        accepted: &Arc<HashSet<Gap>>,
    ) -> Self {
        let last = HashMap::with_capacity(records);
        Self { last, accepted: Arc::clone(accepted), ..Self::new(first) }
    }

    /// Checks the next event of a topic, and records its version and id if it is to be applied.
    ///
    /// # Errors
    /// [`FilterError`] if events are missing before it, or another event was applied under its
    /// version; the filter is unchanged.
    pub fn check_delivered(&mut self, event: &Delivered) -> Result<FilterDecision, FilterError> {
        let is_new = !self.last.contains_key(&event.stream);
        let decision =
            self.check_behind(event.previous, &event.stream, event.version, event.event_id)?;
        if is_new || !self.is_in_partition(event) {
            let partition = (Arc::clone(&event.topic), event.partition);
            self.partitions.entry(partition).or_default().insert(event.stream.clone());
        }
        Ok(decision)
    }

    fn is_in_partition(&self, event: &Delivered) -> bool {
        let streams = self.partitions.get(&(Arc::clone(&event.topic), event.partition));
        streams.is_some_and(|streams| streams.contains(&event.stream))
    }

    /// Forgets the streams of a partition that another member of the consumer group processes now:
    /// it continues behind the last events that this filter knows. Call it for each partition of
    /// [`Consumer::take_revoked`](crate::Consumer::take_revoked).
    ///
    /// When the partition comes back, its streams are unknown: restore them with
    /// [`set_last`](Self::set_last) from where their versions are stored, or make the filter with
    /// [`FirstVersion::Any`].
    pub fn forget_partition(&mut self, topic: &str, partition: i32) {
        let streams = self.partitions.remove(&(Arc::from(topic), partition));
        for stream in streams.into_iter().flatten() {
            self.last.remove(&stream);
        }
    }

    /// Checks an event whose predecessor has the version before, and records its version and id if
    /// it is to be applied.
    ///
    /// # Errors
    /// As of [`check_delivered`](Self::check_delivered).
    pub fn check(
        &mut self,
        stream: &str,
        version: Version,
        event_id: Uuid,
    ) -> Result<FilterDecision, FilterError> {
        self.check_behind(version.previous(), stream, version, event_id)
    }

    fn check_behind(
        &mut self,
        previous: Option<Version>,
        stream: &str,
        version: Version,
        event_id: Uuid,
    ) -> Result<FilterDecision, FilterError> {
        let decision = self.decide_behind(previous, stream, version, event_id)?;
        if decision == FilterDecision::Apply {
            self.advance(stream, version, event_id);
        }
        Ok(decision)
    }

    /// Checks the next event of a topic, without recording it.
    pub(crate) fn decide(&self, event: &Delivered) -> Result<FilterDecision, FilterError> {
        self.decide_behind(event.previous, &event.stream, event.version, event.event_id)
    }

    fn decide_behind(
        &self,
        previous: Option<Version>,
        stream: &str,
        version: Version,
        event_id: Uuid,
    ) -> Result<FilterDecision, FilterError> {
        let last = self.last.get(stream);
        if let Some(last) = last.filter(|last| version <= last.version()) {
            return match last.event_id(version).filter(|applied| *applied != event_id) {
                None => Ok(FilterDecision::Duplicate),
                Some(applied) => {
                    let (stream, received) = (stream.to_owned(), event_id);
                    Err(Forked { stream, version, applied, received }.into())
                }
            };
        }
        let is_next = match last {
            // No version is lower than every version.
            Some(last) => previous <= Some(last.version()),
            None => previous.is_none() || self.first == FirstVersion::Any,
        };
        if !is_next {
            let expected = last.map_or(Version::ZERO, |last| last.version().next());
            let gap = Gap { stream: stream.to_owned(), expected, found: version };
            if !self.accepted.contains(&gap) {
                return Err(gap.into());
            }
        }
        Ok(FilterDecision::Apply)
    }

    /// Records an event that is applied.
    pub(crate) fn advance(&mut self, stream: &str, version: Version, event_id: Uuid) {
        match self.last.get_mut(stream) {
            Some(last) => last.advance(version, event_id),
            None => self.set_last(stream, version, event_id),
        }
    }

    /// The version and event id of the last applied event of a stream, if any.
    #[must_use]
    pub fn last(&self, stream: &str) -> Option<(Version, Uuid)> {
        let last = self.last.get(stream)?;
        Some((last.version(), last.event_id(last.version())?))
    }

    /// Sets the last applied event of a stream, from earlier runs.
    pub fn set_last(&mut self, stream: &str, version: Version, event_id: Uuid) {
        self.restore(stream, LastApplied::new(version, &[event_id]));
    }

    pub(crate) fn restore(&mut self, stream: &str, last: LastApplied) {
        self.last.insert(stream.to_owned(), last);
    }

    /// The last applied events of all streams that it knows.
    pub(crate) fn into_last(self) -> HashMap<String, LastApplied> {
        self.last
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

    fn gap(checked: Result<FilterDecision, FilterError>) -> Gap {
        match checked {
            Err(FilterError::Gap(gap)) => gap,
            other => panic!("{other:?}"),
        }
    }

    fn seen(versions: &[i64]) -> VersionFilter {
        let mut filter = VersionFilter::new(FirstVersion::Zero);
        for &number in versions {
            assert_eq!(
                filter.check("flight-1", version(number), id(number)),
                Ok(FilterDecision::Apply)
            );
        }
        filter
    }

    #[test]
    fn events_in_order_are_applied_each_stream_for_itself() {
        let mut filter = seen(&[0, 1, 2]);
        assert_eq!(filter.check("flight-2", version(0), id(0)), Ok(FilterDecision::Apply));
        assert_eq!(filter.check("flight-1", version(3), id(3)), Ok(FilterDecision::Apply));
        assert_eq!(filter.last("flight-1"), Some((version(3), id(3))));
        assert_eq!(filter.last("flight-2"), Some((version(0), id(0))));
    }

    #[test]
    fn planted_duplicate_is_dropped_and_changes_nothing() {
        let mut filter = seen(&[0, 1, 2]);
        for number in [2, 0, 1, 2] {
            assert_eq!(
                filter.check("flight-1", version(number), id(number)),
                Ok(FilterDecision::Duplicate)
            );
        }
        assert_eq!(filter.check("flight-1", version(3), id(3)), Ok(FilterDecision::Apply));
    }

    #[test]
    fn planted_gap_names_what_is_missing_and_changes_nothing() {
        let mut filter = seen(&[0, 1]);
        let gap = gap(filter.check("flight-1", version(3), id(3)));
        assert_eq!((gap.expected, gap.found), (version(2), version(3)));
        assert_eq!(gap.to_string(), "stream flight-1: version 3 came where version 2 was expected");
        assert_eq!(filter.check("flight-1", version(2), id(2)), Ok(FilterDecision::Apply));
    }

    #[test]
    fn planted_inversion_is_a_gap_first_and_a_duplicate_never() {
        let mut filter = seen(&[0]);
        assert!(filter.check("flight-1", version(2), id(2)).is_err());
        assert_eq!(filter.check("flight-1", version(1), id(1)), Ok(FilterDecision::Apply));
        assert_eq!(filter.check("flight-1", version(2), id(2)), Ok(FilterDecision::Apply));
    }

    #[test]
    fn first_version_of_a_stream_must_be_zero_by_default() {
        let mut strict = VersionFilter::new(FirstVersion::Zero);
        assert_eq!(gap(strict.check("flight-1", version(5), id(5))).expected, Version::ZERO);
        assert_eq!(strict.last("flight-1"), None);

        let mut middle = VersionFilter::new(FirstVersion::Any);
        assert_eq!(middle.check("flight-1", version(5), id(5)), Ok(FilterDecision::Apply));
        assert_eq!(middle.check("flight-1", version(4), id(4)), Ok(FilterDecision::Duplicate));
        assert_eq!(gap(middle.check("flight-1", version(7), id(7))).expected, version(6));
    }

    #[test]
    fn events_that_are_never_published_are_no_gap_and_lost_ones_are() {
        let check = |filter: &mut VersionFilter, previous: i64, number: i64| {
            filter.check_behind(Version::new(previous), "flight-1", version(number), id(number))
        };
        let mut filter = seen(&[0, 1]);
        // Versions 2 and 3 are never published; version 4 is lost.
        assert_eq!(gap(check(&mut filter, 4, 5)).expected, version(2));
        assert_eq!(check(&mut filter, 1, 4), Ok(FilterDecision::Apply));
        assert_eq!(check(&mut filter, 4, 5), Ok(FilterDecision::Apply));
        // One was published before it was removed.
        assert_eq!(check(&mut filter, 3, 6), Ok(FilterDecision::Apply));
        assert_eq!(filter.check("flight-1", version(1), id(99)), Ok(FilterDecision::Duplicate));
        assert!(matches!(
            filter.check("flight-1", version(4), id(99)),
            Err(FilterError::Forked(_))
        ));
        // The first versions of a stream are never published.
        let mut filter = VersionFilter::new(FirstVersion::Zero);
        assert_eq!(gap(check(&mut filter, 0, 2)).expected, Version::ZERO);
        assert_eq!(check(&mut filter, -1, 2), Ok(FilterDecision::Apply));
    }

    #[test]
    fn a_stream_continues_behind_the_very_gap_that_was_accepted() {
        let mut filter = seen(&[0, 1]);
        let lost = gap(filter.check("flight-1", version(4), id(4)));
        filter.accept(Gap { found: version(5), ..lost.clone() }, "another gap");
        filter.accept(Gap { stream: "flight-2".to_owned(), ..lost.clone() }, "another stream");
        assert_eq!(gap(filter.check("flight-1", version(4), id(4))), lost);
        filter.accept(lost, "the topic was truncated");
        assert_eq!(filter.check("flight-1", version(4), id(4)), Ok(FilterDecision::Apply));
        assert_eq!(filter.check("flight-1", version(5), id(5)), Ok(FilterDecision::Apply));
        assert_eq!(gap(filter.check("flight-1", version(7), id(7))).expected, version(6));
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
            assert_eq!(forked, FilterError::Forked(expected));
            let again = filter.check("flight-1", version(number), id(number));
            assert_eq!(again, Ok(FilterDecision::Duplicate));
        }
        // Only the last ids are kept.
        assert_eq!(filter.check("flight-1", version(11), id(99)), Ok(FilterDecision::Duplicate));
        assert_eq!(filter.check("flight-1", version(20), id(20)), Ok(FilterDecision::Apply));
    }

    #[test]
    fn fork_of_what_was_applied_before_the_filter_was_made_is_seen() {
        let mut filter = VersionFilter::new(FirstVersion::Any);
        filter.set_last("flight-1", version(7), id(7));
        assert_eq!(filter.check("flight-1", version(7), id(7)), Ok(FilterDecision::Duplicate));
        assert_eq!(filter.check("flight-1", version(6), id(99)), Ok(FilterDecision::Duplicate));
        assert!(matches!(
            filter.check("flight-1", version(7), id(99)),
            Err(FilterError::Forked(_))
        ));
    }
}
