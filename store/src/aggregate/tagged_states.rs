//! The states of a decision on tags.

use crate::aggregate::{Aggregate, Aggregates};
use crate::tag::Tag;

/// The states of a decision on tags: an [`Aggregate`], of the events of its category with one tag,
/// or a tuple of two to four, each with a tag of its own. It cannot be implemented for other types.
pub trait TaggedStates: Aggregates + Default {
    /// Their tags: a [`Tag`], or a tuple of them.
    type Tags: Clone + Send + Sync;

    #[doc(hidden)]
    fn tags(tags: &Self::Tags) -> Vec<Tag>;
}

impl<A: Aggregate> TaggedStates for A {
    type Tags = Tag;

    fn tags(tag: &Tag) -> Vec<Tag> {
        vec![tag.clone()]
    }
}

macro_rules! tuple {
    ($($aggregate:ident $index:tt $tag:ty),+) => {
        impl<$($aggregate: Aggregate),+> TaggedStates for ($($aggregate,)+) {
            type Tags = ($($tag,)+);

            fn tags(tags: &Self::Tags) -> Vec<Tag> {
                vec![$(tags.$index.clone()),+]
            }
        }
    };
}
tuple!(A 0 Tag, B 1 Tag);
tuple!(A 0 Tag, B 1 Tag, C 2 Tag);
tuple!(A 0 Tag, B 1 Tag, C 2 Tag, D 3 Tag);
