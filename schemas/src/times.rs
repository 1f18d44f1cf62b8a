//! Serde modules for the types of [`jiff`] as Avro's logical types of time.
//!
//! jiff writes dates and times as text in every format; Avro needs a number. These modules, used
//! with `#[serde(with = "..")]`, write text in human-readable formats (RFC 3339 in UTC, or the same
//! without a zone), and the number otherwise. Both forms have the same precision: the text is
//! truncated to the unit, too.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::de::Visitor;
use serde::ser::Error as _;
use serde::{Deserializer, Serializer};

use crate::avro_types::Logical;

const NANOS_PER_MICRO: i64 = 1_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// How Avro counts a type.
trait Count {
    type Value: fmt::Display + FromStr<Err: fmt::Display>;
    const EXPECTING: &'static str;
    /// The Avro type is `int`, not `long`.
    const IS_INT: bool = false;

    fn to_number(value: &Self::Value) -> Result<i64, jiff::Error>;
    fn from_number(number: i64) -> Result<Self::Value, jiff::Error>;
}

fn serialize<C: Count, S: Serializer>(value: &C::Value, serializer: S) -> Result<S::Ok, S::Error> {
    let number = C::to_number(value).map_err(S::Error::custom)?;
    if serializer.is_human_readable() {
        return serializer.collect_str(&C::from_number(number).map_err(S::Error::custom)?);
    }
    if C::IS_INT {
        serializer.serialize_i32(i32::try_from(number).map_err(S::Error::custom)?)
    } else {
        serializer.serialize_i64(number)
    }
}

fn deserialize<'de, C: Count, D: Deserializer<'de>>(deserializer: D) -> Result<C::Value, D::Error> {
    let visitor = CountVisitor::<C>(PhantomData);
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(visitor)
    } else if C::IS_INT {
        deserializer.deserialize_i32(visitor)
    } else {
        deserializer.deserialize_i64(visitor)
    }
}

struct CountVisitor<C>(PhantomData<C>);

impl<C: Count> Visitor<'_> for CountVisitor<C> {
    type Value = C::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(C::EXPECTING)
    }

    fn visit_i32<E: serde::de::Error>(self, number: i32) -> Result<C::Value, E> {
        self.visit_i64(number.into())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<C::Value, E> {
        C::from_number(number).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<C::Value, E> {
        text.parse().map_err(E::custom)
    }
}

/// An optional value on its way through serde.
struct Counted<C: Count>(C::Value);

impl<'de, C: Count> serde::Deserialize<'de> for Counted<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize::<C, D>(deserializer).map(Self)
    }
}

struct CountedRef<'a, C: Count>(&'a C::Value);

impl<C: Count> serde::Serialize for CountedRef<'_, C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize::<C, S>(self.0, serializer)
    }
}

/// Makes the serde `with` module of one logical type.
macro_rules! logical_type {
    ($module:ident, $count:ident, $type:ty, $named:literal) => {
        #[doc = concat!("For [`", stringify!($type), "`] as ", $named, ", with `#[serde(with = \"..\")]`.")]
        pub mod $module {
            use serde::{Deserializer, Serializer};

            /// Writes a value.
            ///
            /// # Errors
            /// Those of the format, and a value that the number cannot express.
            pub fn serialize<S: Serializer>(
                value: &$type,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                super::serialize::<super::$count, S>(value, serializer)
            }

            /// Reads a value.
            ///
            /// # Errors
            /// Those of the format, and a number or text outside of the type's range.
            pub fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$type, D::Error> {
                super::deserialize::<super::$count, D>(deserializer)
            }

            /// The same for an `Option`, where the schema says `["null", ..]`.
            pub mod option {
                use serde::{Deserialize, Deserializer, Serialize, Serializer};

                use crate::times::{$count, Counted, CountedRef};

                /// Writes a value that may be absent.
                ///
                /// # Errors
                /// Those of the format, and a value that the number cannot express.
                pub fn serialize<S: Serializer>(
                    value: &Option<$type>,
                    serializer: S,
                ) -> Result<S::Ok, S::Error> {
                    value.as_ref().map(CountedRef::<$count>).serialize(serializer)
                }

                /// Reads a value that may be absent.
                ///
                /// # Errors
                /// Those of the format, and a number or text outside of the type's range.
                pub fn deserialize<'de, D: Deserializer<'de>>(
                    deserializer: D,
                ) -> Result<Option<$type>, D::Error> {
                    let read = Option::<Counted<$count>>::deserialize(deserializer)?;
                    Ok(read.map(|Counted(value)| value))
                }
            }
        }
    };
}

logical_type!(timestamp_millis, TimestampMillis, jiff::Timestamp, "`timestamp-millis`, a `long`");
logical_type!(timestamp_micros, TimestampMicros, jiff::Timestamp, "`timestamp-micros`, a `long`");
logical_type!(timestamp_nanos, TimestampNanos, jiff::Timestamp, "`timestamp-nanos`, a `long`");
logical_type!(
    local_timestamp_millis,
    LocalTimestampMillis,
    jiff::civil::DateTime,
    "`local-timestamp-millis`, a `long`"
);
logical_type!(
    local_timestamp_micros,
    LocalTimestampMicros,
    jiff::civil::DateTime,
    "`local-timestamp-micros`, a `long`"
);
logical_type!(
    local_timestamp_nanos,
    LocalTimestampNanos,
    jiff::civil::DateTime,
    "`local-timestamp-nanos`, a `long`"
);
logical_type!(date, DateDays, jiff::civil::Date, "`date`, an `int`");
logical_type!(time_millis, TimeMillis, jiff::civil::Time, "`time-millis`, an `int`");
logical_type!(time_micros, TimeMicros, jiff::civil::Time, "`time-micros`, a `long`");

/// Instants: the number counts from the Unix epoch.
macro_rules! timestamps {
    ($count:ident, $expecting:literal, $local:ident, $expecting_local:literal, $to:expr, $from:expr) => {
        pub(crate) struct $count;

        impl Count for $count {
            type Value = Timestamp;
            const EXPECTING: &'static str = $expecting;

            fn to_number(timestamp: &Timestamp) -> Result<i64, jiff::Error> {
                $to(*timestamp)
            }

            fn from_number(number: i64) -> Result<Timestamp, jiff::Error> {
                $from(number)
            }
        }

        pub(crate) struct $local;

        /// As if the clock showed UTC.
        impl Count for $local {
            type Value = DateTime;
            const EXPECTING: &'static str = $expecting_local;

            fn to_number(local: &DateTime) -> Result<i64, jiff::Error> {
                $to(TimeZone::UTC.to_timestamp(*local)?)
            }

            fn from_number(number: i64) -> Result<DateTime, jiff::Error> {
                Ok(TimeZone::UTC.to_datetime($from(number)?))
            }
        }
    };
}

timestamps!(
    TimestampMillis,
    "a timestamp in milliseconds since the Unix epoch",
    LocalTimestampMillis,
    "a local timestamp in milliseconds",
    |timestamp: Timestamp| Ok(timestamp.as_millisecond()),
    Timestamp::from_millisecond
);
timestamps!(
    TimestampMicros,
    "a timestamp in microseconds since the Unix epoch",
    LocalTimestampMicros,
    "a local timestamp in microseconds",
    |timestamp: Timestamp| Ok(timestamp.as_microsecond()),
    Timestamp::from_microsecond
);
timestamps!(
    TimestampNanos,
    "a timestamp in nanoseconds since the Unix epoch",
    LocalTimestampNanos,
    "a local timestamp in nanoseconds",
    |timestamp: Timestamp| {
        let nanos = timestamp.as_nanosecond();
        i64::try_from(nanos)
            .map_err(|_range| jiff::Error::from_args(format_args!("{nanos} ns are no long")))
    },
    |nanos: i64| Timestamp::from_nanosecond(nanos.into())
);

/// Days since the Unix epoch.
pub(crate) struct DateDays;

impl Count for DateDays {
    type Value = Date;
    const EXPECTING: &'static str = "a date in days since the Unix epoch";
    const IS_INT: bool = true;

    fn to_number(date: &Date) -> Result<i64, jiff::Error> {
        Ok(EPOCH.until(*date)?.get_days().into())
    }

    fn from_number(days: i64) -> Result<Date, jiff::Error> {
        EPOCH.checked_add(jiff::Span::new().try_days(days)?)
    }
}

const EPOCH: Date = Date::constant(1970, 1, 1);

/// Milliseconds since midnight.
pub(crate) struct TimeMillis;

impl Count for TimeMillis {
    type Value = Time;
    const EXPECTING: &'static str = "a time of day in milliseconds";
    const IS_INT: bool = true;

    fn to_number(time: &Time) -> Result<i64, jiff::Error> {
        Ok(nanos_since_midnight(*time) / NANOS_PER_MILLI)
    }

    fn from_number(millis: i64) -> Result<Time, jiff::Error> {
        Time::midnight().checked_add(SignedDuration::from_millis(millis))
    }
}

/// Microseconds since midnight.
pub(crate) struct TimeMicros;

impl Count for TimeMicros {
    type Value = Time;
    const EXPECTING: &'static str = "a time of day in microseconds";

    fn to_number(time: &Time) -> Result<i64, jiff::Error> {
        Ok(nanos_since_midnight(*time) / NANOS_PER_MICRO)
    }

    fn from_number(micros: i64) -> Result<Time, jiff::Error> {
        Time::midnight().checked_add(SignedDuration::from_micros(micros))
    }
}

fn nanos_since_midnight(time: Time) -> i64 {
    let seconds =
        (i64::from(time.hour()) * 60 + i64::from(time.minute())) * 60 + i64::from(time.second());
    seconds * 1_000_000_000 + i64::from(time.subsec_nanosecond())
}

/// The text of a number of a logical type; none outside of the type's range.
pub(crate) fn text(logical: Logical, number: i64) -> Option<String> {
    fn of<C: Count>(number: i64) -> Option<String> {
        C::from_number(number).ok().map(|value| value.to_string())
    }
    match logical {
        Logical::Date => of::<DateDays>(number),
        Logical::TimeMillis => of::<TimeMillis>(number),
        Logical::TimeMicros => of::<TimeMicros>(number),
        Logical::TimestampMillis => of::<TimestampMillis>(number),
        Logical::TimestampMicros => of::<TimestampMicros>(number),
        Logical::TimestampNanos => of::<TimestampNanos>(number),
        Logical::LocalTimestampMillis => of::<LocalTimestampMillis>(number),
        Logical::LocalTimestampMicros => of::<LocalTimestampMicros>(number),
        Logical::LocalTimestampNanos => of::<LocalTimestampNanos>(number),
        Logical::Decimal { .. } | Logical::BigDecimal | Logical::Uuid | Logical::Duration => None,
    }
}
