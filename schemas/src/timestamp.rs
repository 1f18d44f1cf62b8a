//! How a [`jiff::Timestamp`] becomes an Avro `timestamp-millis` or `timestamp-micros`.
//!
//! jiff writes a timestamp as text, whatever the format; Avro wants a number. These modules go
//! after `#[serde(with = "..")]`, and write text (RFC 3339, UTC) where people read, the number
//! where machines do. Both forms carry the same instant: what is finer than the unit is cut off in
//! the text too.

use std::fmt;

use serde::de::{Error, Visitor};

/// Makes the serde `with` modules of one unit.
macro_rules! timestamp_unit {
    ($module:ident, $expecting:literal, $doc:literal, $to:ident, $from:ident) => {
        #[doc = $doc]
        pub mod $module {
            use jiff::Timestamp;
            use serde::{Deserializer, Serializer, ser::Error as _};

            use super::Instant;

            pub(super) const EXPECTING: &str = $expecting;

            /// Writes a timestamp.
            ///
            /// # Errors
            /// Those of the format.
            pub fn serialize<S: Serializer>(
                timestamp: &Timestamp,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                let number = timestamp.$to();
                if serializer.is_human_readable() {
                    let cut = Timestamp::$from(number).map_err(S::Error::custom)?;
                    serializer.collect_str(&cut)
                } else {
                    serializer.serialize_i64(number)
                }
            }

            /// Reads a timestamp.
            ///
            /// # Errors
            /// Those of the format, and a number or text outside of the years -9999 to 9999.
            pub fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Timestamp, D::Error> {
                let visitor = Instant { expecting: EXPECTING, from: Timestamp::$from };
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(visitor)
                } else {
                    deserializer.deserialize_i64(visitor)
                }
            }

            /// The same for `Option<Timestamp>`, where the schema says `["null", ..]`.
            pub mod option {
                use jiff::Timestamp;
                use serde::{Deserialize, Deserializer, Serialize, Serializer};

                struct Written<'a>(&'a Timestamp);

                impl Serialize for Written<'_> {
                    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                        super::serialize(self.0, serializer)
                    }
                }

                struct Read(Timestamp);

                impl<'de> Deserialize<'de> for Read {
                    fn deserialize<D: Deserializer<'de>>(
                        deserializer: D,
                    ) -> Result<Self, D::Error> {
                        super::deserialize(deserializer).map(Self)
                    }
                }

                /// Writes a timestamp that may be absent.
                ///
                /// # Errors
                /// Those of the format.
                pub fn serialize<S: Serializer>(
                    timestamp: &Option<Timestamp>,
                    serializer: S,
                ) -> Result<S::Ok, S::Error> {
                    timestamp.as_ref().map(Written).serialize(serializer)
                }

                /// Reads a timestamp that may be absent.
                ///
                /// # Errors
                /// Those of the format, and a number or text outside of the years -9999 to 9999.
                pub fn deserialize<'de, D: Deserializer<'de>>(
                    deserializer: D,
                ) -> Result<Option<Timestamp>, D::Error> {
                    let read = Option::<Read>::deserialize(deserializer)?;
                    Ok(read.map(|Read(timestamp)| timestamp))
                }
            }
        }
    };
}

timestamp_unit!(
    timestamp_millis,
    "a timestamp in milliseconds since the Unix epoch",
    "For `{\"type\": \"long\", \"logicalType\": \"timestamp-millis\"}`, with `#[serde(with = \"..\")]`.",
    as_millisecond,
    from_millisecond
);
timestamp_unit!(
    timestamp_micros,
    "a timestamp in microseconds since the Unix epoch",
    "For `{\"type\": \"long\", \"logicalType\": \"timestamp-micros\"}`, with `#[serde(with = \"..\")]`.",
    as_microsecond,
    from_microsecond
);

struct Instant {
    expecting: &'static str,
    from: fn(i64) -> Result<jiff::Timestamp, jiff::Error>,
}

impl Visitor<'_> for Instant {
    type Value = jiff::Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        (self.from)(number).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        text.parse().map_err(E::custom)
    }
}
