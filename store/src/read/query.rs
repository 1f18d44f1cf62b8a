//! Read queries, built by the caller.

use jiff::Timestamp;
use sqlx::SqlStr;
use uuid::Uuid;

use crate::event::RecordedEvent;
use crate::statements::Statements;
use crate::store::Store;
use crate::stream::{Category, Position, StreamName, Version};
use crate::tag::Tag;

/// A query for events, for [`Store::read`](crate::Store::read).
///
/// `K` is the sort key of the events: [`Version`] for one stream, [`Position`] otherwise.
///
/// ```
/// # use annals_store::{Category, Read};
/// # fn example(order: &Category) -> Read<annals_store::Position> {
/// // The last ten cancellations.
/// Read::category(order).of_types(["OrderCancelled"]).backwards().events_max(10)
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Read<K> {
    source: ReadSource,
    pub(crate) is_backwards: bool,
    pub(crate) from: Option<K>,
    pub(crate) recorded_since: Option<Timestamp>,
    pub(crate) types: Option<Vec<String>>,
    pub(crate) events_max: u64,
    /// Whether events of archived streams are read, too.
    pub(crate) has_archived: bool,
}

#[derive(Debug, Clone)]
enum ReadSource {
    Stream(StreamName),
    Category(Category),
    Correlation(Uuid),
    Causation(Uuid),
    Tag(Tag),
    All,
}

impl Read<Version> {
    /// The events of a stream, in version order; none if there is no such stream.
    ///
    /// The read continues behind events that an administrator removed;
    /// [`RecordedEvent::removed_before`](crate::RecordedEvent::removed_before) of the next event is
    /// their number.
    #[must_use]
    pub fn stream(stream: &StreamName) -> Self {
        Self::new(ReadSource::Stream(stream.clone()))
    }
}

impl Read<Position> {
    /// The events of a category, in position order.
    #[must_use]
    pub fn category(category: &Category) -> Self {
        Self::new(ReadSource::Category(category.clone()))
    }

    /// All events, in position order.
    #[must_use]
    pub fn all() -> Self {
        Self::new(ReadSource::All)
    }

    /// The events with a correlation id, across streams, in position order.
    #[must_use]
    pub fn correlation(correlation_id: Uuid) -> Self {
        Self::new(ReadSource::Correlation(correlation_id))
    }

    /// The events with a tag, across streams, in position order, which is also the order in which
    /// they were committed: a forward read misses none below its last event.
    #[must_use]
    pub fn tag(tag: &Tag) -> Self {
        Self::new(ReadSource::Tag(tag.clone()))
    }

    /// The events with a causation id, across streams, in position order.
    #[must_use]
    pub fn causation(causation_id: Uuid) -> Self {
        Self::new(ReadSource::Causation(causation_id))
    }
}

impl<K> Read<K> {
    const fn new(source: ReadSource) -> Self {
        Self {
            source,
            is_backwards: false,
            from: None,
            recorded_since: None,
            types: None,
            events_max: u64::MAX,
            has_archived: false,
        }
    }

    /// Starts with the event of this version or position, or the next one in the read direction.
    #[must_use]
    pub fn from(mut self, from: K) -> Self {
        self.from = Some(from);
        self
    }

    /// Reads from the last event to the first.
    #[must_use]
    pub const fn backwards(mut self) -> Self {
        self.is_backwards = true;
        self
    }

    /// Excludes events that were recorded before a time, by the database's clock. The read starts
    /// at this time; in a single stream it scans the earlier events, a page at a time.
    #[must_use]
    pub const fn recorded_since(mut self, time: Timestamp) -> Self {
        self.recorded_since = Some(time);
        self
    }

    /// Excludes events of other types. The server scans them one by one: reading a rare type takes
    /// as long as reading all types.
    #[must_use]
    pub fn of_types(mut self, types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.types = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Maximum number of events.
    #[must_use]
    pub const fn events_max(mut self, events_max: u64) -> Self {
        self.events_max = events_max;
        self
    }

    /// Includes the events of archived streams, as the audit log does. Without this, they count as
    /// removed.
    #[must_use]
    pub const fn with_archived(mut self) -> Self {
        self.has_archived = true;
        self
    }

    pub(crate) fn statement(&self, store: &Store) -> SqlStr {
        let statement = self.statement_of_source(store.statements());
        if self.has_archived { store.schema().with_archived(&statement) } else { statement }
    }

    fn statement_of_source(&self, statements: &Statements) -> SqlStr {
        let [forwards, backwards] = match self.source {
            ReadSource::Stream(_) => [&statements.read_stream, &statements.read_stream_backwards],
            ReadSource::Category(_) => {
                [&statements.read_category, &statements.read_category_backwards]
            }
            ReadSource::Correlation(_) => {
                [&statements.read_correlation, &statements.read_correlation_backwards]
            }
            ReadSource::Causation(_) => {
                [&statements.read_causation, &statements.read_causation_backwards]
            }
            ReadSource::Tag(_) => [&statements.read_tag, &statements.read_tag_backwards],
            ReadSource::All => [&statements.read_all, &statements.read_all_backwards],
        };
        if self.is_backwards { backwards.clone() } else { forwards.clone() }
    }

    /// Whether the source selects an event, wherever the read starts. Of a tag, the caller knows
    /// the events.
    fn is_of_source(&self, event: &RecordedEvent) -> bool {
        match &self.source {
            ReadSource::Stream(stream) => event.stream == *stream,
            ReadSource::Category(category) => event.stream.category() == category.as_str(),
            ReadSource::Correlation(id) => event.metadata.correlation_id == Some(*id),
            ReadSource::Causation(id) => event.metadata.causation_id == Some(*id),
            ReadSource::Tag(_) | ReadSource::All => true,
        }
    }

    /// The tag of a read by tag.
    pub(crate) const fn of_tag(&self) -> Option<&Tag> {
        if let ReadSource::Tag(tag) = &self.source { Some(tag) } else { None }
    }

    /// The category of a read in position order of one category or of all; none of another read.
    pub(crate) const fn whole_category(&self) -> Option<Option<&Category>> {
        match &self.source {
            ReadSource::Category(category) => Some(Some(category)),
            ReadSource::All => Some(None),
            ReadSource::Stream(_)
            | ReadSource::Correlation(_)
            | ReadSource::Causation(_)
            | ReadSource::Tag(_) => None,
        }
    }

    pub(crate) fn source_text(&self) -> Option<String> {
        match &self.source {
            ReadSource::Stream(stream) => Some(stream.to_string()),
            ReadSource::Category(category) => Some(category.to_string()),
            ReadSource::Correlation(id) | ReadSource::Causation(id) => Some(id.to_string()),
            ReadSource::Tag(tag) => Some(tag.to_string()),
            ReadSource::All => None,
        }
    }
}

impl<K: Key> Read<K> {
    /// Whether an event is one of those that the read returns.
    pub(crate) fn selects(&self, event: &RecordedEvent) -> bool {
        self.is_reached(event)
            && self.is_of_source(event)
            && self.types.as_ref().is_none_or(|types| types.contains(&event.event_type))
            && self.recorded_since.is_none_or(|since| event.recorded_at >= since)
    }

    /// Whether the read counts an event that was removed: of any type, and by correlation,
    /// causation or tag none.
    pub(crate) fn counts_removed(&self, event: &RecordedEvent) -> bool {
        let is_counted = match &self.source {
            ReadSource::Stream(_) | ReadSource::Category(_) | ReadSource::All => true,
            ReadSource::Correlation(_) | ReadSource::Causation(_) | ReadSource::Tag(_) => false,
        };
        is_counted && self.is_reached(event) && self.is_of_source(event)
    }

    fn is_reached(&self, event: &RecordedEvent) -> bool {
        let key = <K as sealed::ToPageKey>::of(event);
        let from = self.from.map(sealed::ToPageKey::key);
        from.is_none_or(|from| if self.is_backwards { key <= from } else { key >= from })
    }
}

/// A sort key of events: [`Version`] or [`Position`].
pub trait Key: sealed::ToPageKey {}
impl Key for Version {}
impl Key for Position {}

pub(crate) mod sealed {
    use crate::bigint::bigint;
    use crate::event::RecordedEvent;
    use crate::stream::{Position, Version};

    pub trait ToPageKey: Copy + Send + Sync {
        const IS_POSITION: bool;
        const FIRST: PageKey;
        fn key(self) -> PageKey;
        fn of(event: &RecordedEvent) -> PageKey;
    }

    /// The version or the position between two pages: also before the first event, and behind the
    /// last one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub struct PageKey(i64);

    bigint!(PageKey);

    impl PageKey {
        /// Behind every event.
        pub(crate) const END: Self = Self(i64::MAX);

        pub(crate) const fn before(self) -> Self {
            Self(self.0 - 1)
        }

        pub(crate) const fn next(self) -> Self {
            Self(self.0.saturating_add(1))
        }

        /// The key that is so much higher, or lower.
        pub(crate) const fn shifted(self, by: i64) -> Self {
            Self(self.0.saturating_add(by))
        }

        /// The number of steps to another key, in either direction.
        pub(crate) const fn distance(self, other: Self) -> u64 {
            self.0.abs_diff(other.0)
        }
    }

    impl ToPageKey for Version {
        const IS_POSITION: bool = false;
        const FIRST: PageKey = PageKey(Self::FIRST.get());
        fn key(self) -> PageKey {
            PageKey(self.get())
        }
        fn of(event: &RecordedEvent) -> PageKey {
            event.version.key()
        }
    }

    impl ToPageKey for Position {
        const IS_POSITION: bool = true;
        const FIRST: PageKey = PageKey(Self::FIRST.get());
        fn key(self) -> PageKey {
            PageKey(self.get())
        }
        fn of(event: &RecordedEvent) -> PageKey {
            event.position.key()
        }
    }
}
