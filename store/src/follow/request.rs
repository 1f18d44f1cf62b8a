//! The events to follow, and the items that a follower returns.

use std::collections::BTreeSet;
use std::time::Duration;

use annals_schemas::EventSet;

use crate::event::RecordedEvent;
use crate::follow::checkpoint::{Checkpoint, Filter};
use crate::read::Read;
use crate::stream::{Category, Position};

/// Default maximum time between two polls.
pub(super) const POLL_IDLE_MAX: Duration = Duration::from_millis(100);

/// The events to follow, and the checkpoint to start from, for
/// [`Store::follow`](crate::Store::follow).
#[derive(Debug, Clone)]
pub struct Follow {
    pub(super) category: Option<Category>,
    pub(super) types: Option<Vec<String>>,
    pub(super) after: Option<Checkpoint>,
    pub(super) skipped: BTreeSet<Position>,
    pub(super) poll_idle_max: Duration,
}

impl Follow {
    /// All events, from the first recorded event.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            category: None,
            types: None,
            after: None,
            skipped: BTreeSet::new(),
            poll_idle_max: POLL_IDLE_MAX,
        }
    }

    /// All events of a category, from the first recorded event.
    #[must_use]
    pub fn category(category: &Category) -> Self {
        Self { category: Some(category.clone()), ..Self::all() }
    }

    /// The events of a declared set: those of its category and types, upcast ones included, from
    /// the first recorded event.
    #[must_use]
    pub fn events_of<E: EventSet>() -> Self {
        Self::category(&Category::of::<E>()).of_types(E::readable_types())
    }

    pub(crate) fn into_filter(self) -> Filter {
        let category = self.category.map(|category| category.as_str().to_owned());
        Filter { category, types: self.types }
    }

    /// The events as a read, with the checkpoint to start from and the positions to skip.
    pub(crate) fn into_read(self) -> (Read<Position>, Option<Checkpoint>, BTreeSet<Position>) {
        let read = self.category.as_ref().map_or_else(Read::all, Read::category);
        let read = match self.types {
            Some(types) => read.of_types(types),
            None => read,
        };
        (read, self.after, self.skipped)
    }

    /// Continues after a checkpoint.
    #[must_use]
    pub fn after(mut self, checkpoint: Checkpoint) -> Self {
        self.after = Some(checkpoint);
        self
    }

    /// Excludes events of other types.
    #[must_use]
    pub fn of_types(mut self, types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.types = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Skips the events at these positions: events that are reported by
    /// [`Error::UnreadableEvent`](crate::Error::UnreadableEvent) and that the application can do
    /// without.
    #[must_use]
    pub fn skipping(mut self, positions: impl IntoIterator<Item = Position>) -> Self {
        self.skipped.extend(positions);
        self
    }

    /// Maximum time between two polls of an idle follower; 100 ms by default. A poll is one small
    /// query. The notification of an append ends the pause, if it arrives.
    #[must_use]
    pub const fn poll_idle_max(mut self, pause: Duration) -> Self {
        self.poll_idle_max = pause;
        self
    }
}

/// An event, and the follower's checkpoint after it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Followed {
    /// The event.
    pub event: RecordedEvent,
    /// The checkpoint after this event.
    pub checkpoint: Checkpoint,
}
