//! One or several aggregates of a decision.

use annals_schemas::{EncodeError, EventSet};

use crate::aggregate::Aggregate;
use crate::aggregate::fold::Fold;
use crate::event::NewEvent;
use crate::stream::StreamName;

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// The state of a decision: an [`Aggregate`], a tuple of two to four, or a `Vec` of one type. It
/// cannot be implemented for other types.
///
/// | state | streams | events |
/// | --- | --- | --- |
/// | `A` | [`StreamName`] | `Vec<A::Event>` |
/// | `(A, B)` | `(StreamName, StreamName)` | `(Vec<A::Event>, Vec<B::Event>)` |
/// | `Vec<A>` | `Vec<StreamName>` | `Vec<Vec<A::Event>>`; a missing one counts as empty |
pub trait Aggregates: sealed::Sealed + Sized + Send {
    /// Their streams.
    type Streams: Clone + Send + Sync;
    /// The events of a decision, for each stream.
    type Events: Send;

    #[doc(hidden)]
    fn names(streams: &Self::Streams) -> Vec<StreamName>;
    #[doc(hidden)]
    fn initial(streams: &Self::Streams) -> Self;
    /// The same, for the streams of these events.
    #[doc(hidden)]
    fn initial_for(events: &Self::Events) -> Self;
    #[doc(hidden)]
    fn folds(&mut self) -> Vec<&mut dyn Fold>;
    #[doc(hidden)]
    fn encode(events: &Self::Events) -> Result<Vec<Vec<NewEvent>>, EncodeError>;
    #[doc(hidden)]
    fn apply_all(&mut self, events: Self::Events);
}

fn encode<E: EventSet>(events: &[E]) -> Result<Vec<NewEvent>, EncodeError> {
    events.iter().map(NewEvent::new).collect()
}

impl<A: Aggregate> sealed::Sealed for A {}

impl<A: Aggregate> Aggregates for A {
    type Streams = StreamName;
    type Events = Vec<A::Event>;

    fn names(stream: &StreamName) -> Vec<StreamName> {
        vec![stream.clone()]
    }

    fn initial(_stream: &StreamName) -> Self {
        Self::default()
    }

    fn initial_for(_events: &Vec<A::Event>) -> Self {
        Self::default()
    }

    fn folds(&mut self) -> Vec<&mut dyn Fold> {
        vec![self]
    }

    fn encode(events: &Vec<A::Event>) -> Result<Vec<Vec<NewEvent>>, EncodeError> {
        Ok(vec![encode(events)?])
    }

    fn apply_all(&mut self, events: Vec<A::Event>) {
        events.into_iter().for_each(|event| self.apply(event));
    }
}

impl<A: Aggregate> sealed::Sealed for Vec<A> {}

impl<A: Aggregate> Aggregates for Vec<A> {
    type Streams = Vec<StreamName>;
    type Events = Vec<Vec<A::Event>>;

    fn names(streams: &Vec<StreamName>) -> Vec<StreamName> {
        streams.clone()
    }

    fn initial(streams: &Vec<StreamName>) -> Self {
        streams.iter().map(|_| A::default()).collect()
    }

    fn initial_for(events: &Vec<Vec<A::Event>>) -> Self {
        events.iter().map(|_| A::default()).collect()
    }

    fn folds(&mut self) -> Vec<&mut dyn Fold> {
        self.iter_mut().map(|state| -> &mut dyn Fold { state }).collect()
    }

    fn encode(events: &Vec<Vec<A::Event>>) -> Result<Vec<Vec<NewEvent>>, EncodeError> {
        events.iter().map(|events| encode(events)).collect()
    }

    fn apply_all(&mut self, events: Vec<Vec<A::Event>>) {
        for (state, events) in self.iter_mut().zip(events) {
            state.apply_all(events);
        }
    }
}

macro_rules! tuple {
    ($($aggregate:ident $index:tt $stream:ty),+) => {
        impl<$($aggregate: Aggregate),+> sealed::Sealed for ($($aggregate,)+) {}

        impl<$($aggregate: Aggregate),+> Aggregates for ($($aggregate,)+) {
            type Streams = ($($stream,)+);
            type Events = ($(Vec<$aggregate::Event>,)+);

            fn names(streams: &Self::Streams) -> Vec<StreamName> {
                vec![$(streams.$index.clone()),+]
            }

            fn initial(_streams: &Self::Streams) -> Self {
                ($($aggregate::default(),)+)
            }

            fn initial_for(_events: &Self::Events) -> Self {
                ($($aggregate::default(),)+)
            }

            fn folds(&mut self) -> Vec<&mut dyn Fold> {
                vec![$(&mut self.$index),+]
            }

            fn encode(events: &Self::Events) -> Result<Vec<Vec<NewEvent>>, EncodeError> {
                Ok(vec![$(encode(&events.$index)?),+])
            }

            fn apply_all(&mut self, events: Self::Events) {
                $(self.$index.apply_all(events.$index);)+
            }
        }
    };
}
tuple!(A 0 StreamName, B 1 StreamName);
tuple!(A 0 StreamName, B 1 StreamName, C 2 StreamName);
tuple!(A 0 StreamName, B 1 StreamName, C 2 StreamName, D 3 StreamName);
