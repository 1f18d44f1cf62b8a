//! Conditions of an append on the events with a tag.

use crate::event::RecordedEvent;
use crate::stream::Position;
use crate::tag::Tag;

/// A condition of an append, beside the versions of its streams: no event with a tag was recorded
/// after those that the caller has read.
///
/// The events with the tag are those of any stream and category. The position is that of the last
/// one read by [`Read::tag`](crate::Read::tag): along one tag, positions follow the order of the
/// commits, so that no event with the tag appears below it later. A decision on several tags has a
/// condition for each, with the position of that tag's last event.
#[derive(Debug, Clone)]
pub struct AppendCondition {
    pub(crate) tag: Tag,
    pub(crate) after: Position,
    pub(crate) types: Option<Vec<String>>,
}

impl AppendCondition {
    /// There is no event with the tag.
    #[must_use]
    pub const fn no_event_with(tag: Tag) -> Self {
        Self { tag, after: Position::ORIGIN, types: None }
    }

    /// Only events behind the position of the last event read break the condition; `None` if there
    /// was none.
    #[must_use]
    pub fn after(mut self, last: Option<Position>) -> Self {
        self.after = last.unwrap_or(Position::ORIGIN);
        self
    }

    /// Only events of these types break the condition: those that the decision depends on.
    #[must_use]
    pub fn of_types(mut self, types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.types = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Whether an event with the tag breaks the condition.
    pub(crate) fn is_broken_by(&self, event: &RecordedEvent) -> bool {
        event.position > self.after
            && self.types.as_ref().is_none_or(|types| types.contains(&event.event_type))
    }
}
