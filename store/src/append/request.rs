//! Appends as the application builds them, and their results.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::append::condition::AppendCondition;
use crate::event::NewEvent;
use crate::stream::{ExpectedVersion, Position, StreamName, Version};
use crate::tag::Tag;

/// An append: events for one or several streams, all or nothing.
///
/// After an unknown outcome, repeat it with the same event ids. Two appends are the same if they
/// have the same streams, event types, schemas and payloads. Metadata and headers may differ, as
/// they do when a request is sent again, and so may tags; the store keeps those of the first
/// attempt.
///
/// ```
/// # use annals_store::{Append, ExpectedVersion, StreamName};
/// # fn example(events: Vec<annals_store::NewEvent>) -> Result<(), annals_store::NameError> {
/// let order = StreamName::new("order-42")?;
/// let customer = StreamName::new("customer-7")?;
/// let append = Append::to(&order, ExpectedVersion::NoStream, events)
///     .and_check(&customer, ExpectedVersion::StreamExists);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Append {
    pub(crate) streams: Vec<(StreamName, ExpectedVersion)>,
    pub(crate) events: Vec<(usize, NewEvent)>,
    pub(crate) conditions: Vec<AppendCondition>,
    pub(crate) conflict_events_max: i32,
}

impl Append {
    /// Appends events to one stream, if its version is as expected.
    #[must_use]
    pub fn to(
        stream: &StreamName,
        expected: ExpectedVersion,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        Self::default().and_to(stream, expected, events)
    }

    /// Adds events for another stream.
    #[must_use]
    pub fn and_to(
        mut self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        let index = self.streams.len();
        self.streams.push((stream.clone(), expected));
        self.events.extend(events.into_iter().map(|event| (index, event)));
        self
    }

    /// Adds a stream whose version must be as expected, too, and that gets no events.
    #[must_use]
    pub fn and_check(self, stream: &StreamName, expected: ExpectedVersion) -> Self {
        self.and_to(stream, expected, [])
    }

    /// Adds a condition on the events with a tag, beside the expected versions.
    ///
    /// Appends that share a tag, of an event or of a condition, wait for each other; no others do.
    /// Such an append goes to the server alone ([`Coalescing`](crate::Coalescing)). In a
    /// transaction of the caller it needs `READ COMMITTED`
    /// ([`Refusal::Isolation`](crate::Refusal::Isolation)).
    ///
    /// ```
    /// # use annals_store::{Append, AppendCondition, EventStore, ExpectedVersion, MemoryStore};
    /// # use annals_store::{Read, StreamName, Tag};
    /// # use annals_testkit::{deposited, opened};
    /// # use futures_util::TryStreamExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (store, ann) = (MemoryStore::new(), StreamName::new("account-ann")?);
    /// # let (open, deposit) = (opened("Ann"), deposited(1));
    /// // At most two accounts of a household, whatever their streams.
    /// let household = Tag::new("household:12")?;
    /// let read = Read::tag(&household).of_types(["AccountOpened"]);
    /// let accounts: Vec<_> = store.read(read).try_collect().await?;
    /// assert!(accounts.len() < 2);
    /// let unchanged = AppendCondition::no_event_with(household.clone())
    ///     .of_types(["AccountOpened"])
    ///     .after(accounts.last().map(|event| event.position));
    /// let append = Append::to(&ann, ExpectedVersion::NoStream, [open.with_tag(&household)])
    ///     .under(unchanged);
    /// store.append(&append).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn under(mut self, condition: AppendCondition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Lets a conflict contain up to `events_max` of the events since the expected version, so that
    /// a decision can be made again without a read. 0 by default.
    #[must_use]
    pub fn with_conflict_events(mut self, events_max: u16) -> Self {
        self.conflict_events_max = i32::from(events_max);
        self
    }

    /// The events, in the order in which they were added.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &NewEvent> {
        self.events.iter().map(|(_, event)| event)
    }

    /// Whether it needs the locks of tags.
    pub(crate) fn has_tags(&self) -> bool {
        !self.conditions.is_empty() || self.events().any(|event| !event.tags.is_empty())
    }

    /// The different tags of its events and conditions.
    pub(crate) fn tags(&self) -> BTreeSet<&Tag> {
        let of_conditions = self.conditions.iter().map(|condition| &condition.tag);
        self.events().flat_map(|event| &event.tags).chain(of_conditions).collect()
    }

    /// The size of the events, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.events().map(NewEvent::bytes).sum()
    }

    /// Each event, with the category of its stream.
    pub(crate) fn by_category(&self) -> impl Iterator<Item = (&str, &NewEvent)> {
        self.events.iter().filter_map(|(index, event)| {
            self.streams.get(*index).map(|(stream, _)| (stream.category(), event))
        })
    }
}

/// The events that an append recorded, or that an earlier attempt of it recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// Version and position of each event, in the order of the append.
    pub events: Vec<(Version, Position)>,
    /// The time of recording, by the database's clock, in microseconds; none for an append without
    /// events.
    pub recorded_at: Option<Timestamp>,
    /// Whether an earlier attempt had recorded the events.
    pub repeated: bool,
}

impl Appended {
    /// The result of an append without events.
    pub(crate) const fn nothing() -> Self {
        Self { events: Vec::new(), recorded_at: None, repeated: false }
    }

    /// The positions of the events, for [`Store::wait_for`](crate::Store::wait_for).
    pub fn positions(&self) -> impl ExactSizeIterator<Item = Position> {
        self.events.iter().map(|(_, position)| *position)
    }

    /// The position of the last event.
    pub(crate) fn last_position(&self) -> Option<Position> {
        self.events.last().map(|(_, position)| *position)
    }
}
