//! Decisions as the application requests them.

use std::num::NonZeroU32;

use crate::aggregate::command::CommandId;
use crate::stream::StreamName;
use crate::tag::Tag;

/// Tries of a decision, unless [`Decide::tries_max`] sets another number.
const TRIES_MAX: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// The streams or tags of a decision, and its options, for
/// [`EventStore::decide`](crate::EventStore::decide) and
/// [`EventStore::decide_on_tags`](crate::EventStore::decide_on_tags). A `&StreamName`, a tuple of
/// two to four, or a `&[StreamName]` converts into one; so does a `&Tag` or a tuple of them.
#[derive(Debug, Clone)]
pub struct Decide<T> {
    pub(crate) on: T,
    pub(crate) command: Option<CommandId>,
    pub(crate) tries_max: NonZeroU32,
}

impl<T> Decide<T> {
    /// A decision on the aggregates of these streams, or on the events with these tags.
    #[must_use]
    pub fn on(streams: impl Into<Self>) -> Self {
        streams.into()
    }

    /// Makes the decision a command that is recorded once: a later decision with the same id
    /// records nothing and gets the original answer, even if the state has changed since and the
    /// domain would refuse now.
    ///
    /// The events get the ids of [`CommandId::event_id`], numbered over all streams in their order
    /// (on tags, in the order of the append), and the command's id as causation id unless they have
    /// one. A command that the domain refuses, or that has no events, leaves no trace: it is
    /// decided again when it is repeated.
    #[must_use]
    pub fn command(mut self, id: impl Into<CommandId>) -> Self {
        self.command = Some(id.into());
        self
    }

    /// Maximum number of appends that are tried; 20 by default. The pause before another try is
    /// random, up to 1 ms at first; the bound doubles with each try, up to 100 ms.
    #[must_use]
    pub const fn tries_max(mut self, tries_max: NonZeroU32) -> Self {
        self.tries_max = tries_max;
        self
    }

    const fn of(on: T) -> Self {
        Self { on, command: None, tries_max: TRIES_MAX }
    }
}

impl From<&StreamName> for Decide<StreamName> {
    fn from(stream: &StreamName) -> Self {
        Self::of(stream.clone())
    }
}

impl From<&[StreamName]> for Decide<Vec<StreamName>> {
    fn from(streams: &[StreamName]) -> Self {
        Self::of(streams.to_vec())
    }
}

macro_rules! from_tuple {
    ($($name:ident $stream:ty),+) => {
        impl From<($(&$stream,)+)> for Decide<($($stream,)+)> {
            fn from(($($name,)+): ($(&$stream,)+)) -> Self {
                Self::of(($($name.clone(),)+))
            }
        }
    };
}

impl From<&Tag> for Decide<Tag> {
    fn from(tag: &Tag) -> Self {
        Self::of(tag.clone())
    }
}

from_tuple!(a StreamName, b StreamName);
from_tuple!(a StreamName, b StreamName, c StreamName);
from_tuple!(a StreamName, b StreamName, c StreamName, d StreamName);
from_tuple!(a Tag, b Tag);
from_tuple!(a Tag, b Tag, c Tag);
from_tuple!(a Tag, b Tag, c Tag, d Tag);
