//! Units of time, which no number shows.

use crate::node::Logical;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl Unit {
    /// The unit in a description such as `a timestamp in milliseconds since the Unix epoch`.
    pub(super) fn mentioned(description: &str) -> Option<Self> {
        let description = description.to_ascii_lowercase();
        [
            ("nanosecond", Self::Nanoseconds),
            ("microsecond", Self::Microseconds),
            ("millisecond", Self::Milliseconds),
            ("second", Self::Seconds),
        ]
        .into_iter()
        .find_map(|(word, unit)| description.contains(word).then_some(unit))
    }

    pub(super) fn of(logical: Logical) -> Option<Self> {
        match logical {
            Logical::TimeMillis | Logical::TimestampMillis | Logical::LocalTimestampMillis => {
                Some(Self::Milliseconds)
            }
            Logical::TimeMicros | Logical::TimestampMicros | Logical::LocalTimestampMicros => {
                Some(Self::Microseconds)
            }
            Logical::TimestampNanos | Logical::LocalTimestampNanos => Some(Self::Nanoseconds),
            Logical::Date
            | Logical::Decimal { .. }
            | Logical::BigDecimal
            | Logical::Uuid
            | Logical::Duration => None,
        }
    }
}
