//! Spans of calendar time: Avro's logical type `duration`.

use std::fmt;
use std::str::FromStr;

use jiff::Span;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use thiserror::Error;

const MILLIS_PER_SECOND: u32 = 1_000;

/// Months, days and milliseconds, which are independent of each other: Avro's
/// `{"type": "fixed", "size": 12, "logicalType": "duration"}`. In JSON it is ISO 8601 text.
///
/// ```
/// use annals_schemas::AvroDuration;
///
/// let notice: AvroDuration = "P1M14DT2.5S".parse()?;
/// assert_eq!(notice, AvroDuration { months: 1, days: 14, millis: 2_500 });
/// assert_eq!(notice.to_string(), "P1M14DT2.5S");
/// assert!("-P1D".parse::<AvroDuration>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AvroDuration {
    /// Months of the calendar.
    pub months: u32,
    /// Days of the calendar.
    pub days: u32,
    /// Milliseconds.
    pub millis: u32,
}

/// A text that is not an [`AvroDuration`]: not ISO 8601, negative, or finer than a millisecond.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is no Avro duration, such as P1M14DT2.5S")]
pub struct AvroDurationError {
    /// The text.
    pub text: String,
}

impl AvroDuration {
    fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let parts = [self.months, self.days, self.millis];
        for (place, part) in bytes.chunks_exact_mut(4).zip(parts) {
            place.copy_from_slice(&part.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let part = |from: usize| {
            let part = bytes.get(from..from + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(part))
        };
        let (months, days, millis) = (part(0)?, part(4)?, part(8)?);
        (bytes.len() == 12).then_some(Self { months, days, millis })
    }

    fn of_span(span: &Span) -> Option<Self> {
        if span.is_negative() || span.get_microseconds() != 0 || span.get_nanoseconds() != 0 {
            return None;
        }
        let months = i64::from(span.get_years()) * 12 + i64::from(span.get_months());
        let days = i64::from(span.get_weeks()) * 7 + i64::from(span.get_days());
        let minutes = i64::from(span.get_hours()) * 60 + span.get_minutes();
        let seconds = minutes * 60 + span.get_seconds();
        let millis = seconds.checked_mul(MILLIS_PER_SECOND.into())?;
        Some(Self {
            months: months.try_into().ok()?,
            days: days.try_into().ok()?,
            millis: millis.checked_add(span.get_milliseconds())?.try_into().ok()?,
        })
    }
}

impl fmt::Display for AvroDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P")?;
        if self.months > 0 {
            write!(f, "{}M", self.months)?;
        }
        if self.days > 0 {
            write!(f, "{}D", self.days)?;
        }
        let (seconds, millis) = (self.millis / MILLIS_PER_SECOND, self.millis % MILLIS_PER_SECOND);
        if millis > 0 {
            let fraction = format!("{millis:03}");
            write!(f, "T{seconds}.{}S", fraction.trim_end_matches('0'))
        } else if seconds > 0 || *self == Self::default() {
            write!(f, "T{seconds}S")
        } else {
            Ok(())
        }
    }
}

impl FromStr for AvroDuration {
    type Err = AvroDurationError;

    fn from_str(text: &str) -> Result<Self, AvroDurationError> {
        let span = text.parse().ok();
        let duration = span.as_ref().and_then(Self::of_span);
        duration.ok_or_else(|| AvroDurationError { text: text.to_owned() })
    }
}

impl Serialize for AvroDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.to_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for AvroDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(DurationVisitor)
        } else {
            deserializer.deserialize_bytes(DurationVisitor)
        }
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = AvroDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an Avro duration of 12 bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<AvroDuration, E> {
        let invalid = || E::invalid_length(bytes.len(), &self);
        AvroDuration::from_bytes(bytes).ok_or_else(invalid)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<AvroDuration, E> {
        text.parse().map_err(E::custom)
    }
}
