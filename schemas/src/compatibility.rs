//! Which versions of a schema may follow each other.

use std::fmt;

use crate::{Incompatible, Schema, can_read};

/// Which programs a new version of an event type's schema must not break. A version is compared
/// with every earlier version, not only with the last one.
///
/// ```
/// use annals_schemas::{Broken, Compatibility, Schema};
///
/// let earlier = Schema::parse(
///     r#"{"type": "record", "name": "OrderPaid", "fields": [{"name": "cents", "type": "int"}]}"#,
/// )?;
/// let new = Schema::parse(
///     r#"{"type": "record", "name": "OrderPaid", "fields": [{"name": "cents", "type": "long"}]}"#,
/// )?;
/// assert!(Compatibility::Backward.broken_by(&new, &earlier).is_empty());
/// let broken = Compatibility::Full.broken_by(&new, &earlier);
/// assert_eq!(broken[0].0, Broken::ConsumersNotUpgraded);
/// # Ok::<(), annals_schemas::SchemaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compatibility {
    /// The new version reads all recorded events. Consumers that are not upgraded may fail at its
    /// events: upgrade them first.
    Backward,
    /// In addition, every earlier version reads the events of the new one: producers and consumers
    /// are upgraded in any order. Recommended for published events.
    #[default]
    Full,
}

/// Who would break with a new version of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// Programs of the new version, at events that the earlier version wrote.
    ReadersOfOldEvents,
    /// Programs of the earlier version, at events of the new one.
    ConsumersNotUpgraded,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadersOfOldEvents => "readers of old events",
            Self::ConsumersNotUpgraded => "consumers that are not upgraded yet",
        })
    }
}

impl Compatibility {
    /// Who would break if `new` followed `earlier`, and why.
    #[must_use]
    pub fn broken_by(self, new: &Schema, earlier: &Schema) -> Vec<(Broken, Incompatible)> {
        let backward = can_read(new, earlier).err();
        let forward = match self {
            Self::Backward => None,
            Self::Full => can_read(earlier, new).err(),
        };
        let backward = backward.map(|reason| (Broken::ReadersOfOldEvents, reason));
        let forward = forward.map(|reason| (Broken::ConsumersNotUpgraded, reason));
        backward.into_iter().chain(forward).collect()
    }
}
