//! Aggregates: state that is rebuilt from the events of a stream, and decisions on that state.

mod as_of;
mod command;
pub(crate) mod decide;
mod error;
mod fold;
pub(crate) mod load;
pub(crate) mod on_tags;
mod original;
mod request;
mod settle;
mod several;
pub(crate) mod snapshots;
mod tagged_states;
pub(crate) mod turns;

pub use self::as_of::AsOf;
pub use self::command::CommandId;
pub use self::decide::Decided;
pub use self::error::DecideError;
pub use self::request::Decide;
pub use self::several::Aggregates;
pub use self::snapshots::Snapshots;
pub use self::tagged_states::TaggedStates;

use annals_schemas::{EventSet, UnknownEvents};

use self::fold::Fold;
use crate::error::{Conflict, Error};
use crate::stream::{ExpectedVersion, Version};

/// State that results from the events of one stream, applied in order to the default state.
///
/// [`EventStore::load`](crate::EventStore::load) rebuilds it,
/// [`EventStore::decide`](crate::EventStore::decide) decides on it.
pub trait Aggregate: Default + Send {
    /// The events of its category.
    type Event: EventSet;

    /// Applies an event to the state. It cannot fail: the event is already recorded.
    fn apply(&mut self, event: Self::Event);

    /// How a load treats event types that [`Event`](Self::Event) does not declare, such as those of
    /// a newer program that runs beside this one. It refuses them by default; skip them only if no
    /// decision depends on them.
    #[must_use]
    fn unknown_events() -> UnknownEvents {
        UnknownEvents::Refuse
    }

    /// How its state is saved, so that a load reads only the events behind the last snapshot.
    /// `None` by default: each load reads the whole stream, which takes some milliseconds for some
    /// hundred events.
    #[must_use]
    fn snapshots() -> Option<Snapshots<Self>> {
        None
    }
}

/// An aggregate at the time when its stream was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded<A> {
    /// The state after the last event.
    pub state: A,
    /// The version of the last event that was read, removed or not; `None` if there is none.
    pub version: Option<Version>,
    /// The number of the read events that an administrator removed. Above 0, the state results from
    /// the remaining events, and the application decides whether it can use this state.
    pub removed: u64,
}

impl<A> Loaded<A> {
    /// The expected version of an append that is decided on this state.
    #[must_use]
    pub fn expected(&self) -> ExpectedVersion {
        self.version.into()
    }
}

impl<A: Aggregate> Loaded<A> {
    /// Applies the events of a [`Conflict`], so that a decision can be made again without a read.
    /// False if the conflict does not have all new events, because the append asked for fewer
    /// ([`Append::with_conflict_events`]): load the aggregate again.
    ///
    /// [`EventStore::decide`](crate::EventStore::decide) does this.
    ///
    /// # Errors
    /// [`Error::Decode`] if an event is not one of the aggregate's event types.
    ///
    /// [`Append::with_conflict_events`]: crate::Append::with_conflict_events
    pub fn catch_up(&mut self, conflict: &Conflict) -> Result<bool, Error> {
        for event in &conflict.events {
            // Events behind a removed event are not applied: a new load counts the removed ones.
            if event.version == Version::after(self.version) {
                self.state.apply_recorded(event)?;
                self.version = Some(event.version);
            }
        }
        Ok(self.version == conflict.actual)
    }
}
