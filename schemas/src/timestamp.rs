//! Serde modules for [`jiff::Timestamp`] as Avro `timestamp-millis` or `timestamp-micros`.
//!
//! jiff writes a timestamp as text in every format; Avro needs a number. These modules, used with
//! `#[serde(with = "..")]`, write text (RFC 3339, UTC) in human-readable formats, and the number
//! otherwise. Both forms have the same precision: the text is truncated to the unit, too.

use std::fmt;

use serde::de::{Error, Visitor};

/// Makes the serde `with` modules of one unit.
macro_rules! timestamp_unit {
    ($module:ident, $expecting:literal, $doc:literal, $to:ident, $from:ident) => {
        #[doc = $doc]
        pub mod $module {
            use jiff::Timestamp;
            use serde::{Deserializer, Serializer, ser::Error as _};

            use super::TimestampVisitor;

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
                let visitor = TimestampVisitor { expecting: EXPECTING, from: Timestamp::$from };
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

                struct SerializedTimestamp<'a>(&'a Timestamp);

                impl Serialize for SerializedTimestamp<'_> {
                    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                        super::serialize(self.0, serializer)
                    }
                }

                struct DeserializedTimestamp(Timestamp);

                impl<'de> Deserialize<'de> for DeserializedTimestamp {
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
                    timestamp.as_ref().map(SerializedTimestamp).serialize(serializer)
                }

                /// Reads a timestamp that may be absent.
                ///
                /// # Errors
                /// Those of the format, and a number or text outside of the years -9999 to 9999.
                pub fn deserialize<'de, D: Deserializer<'de>>(
                    deserializer: D,
                ) -> Result<Option<Timestamp>, D::Error> {
                    let read = Option::<DeserializedTimestamp>::deserialize(deserializer)?;
                    Ok(read.map(|DeserializedTimestamp(timestamp)| timestamp))
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

struct TimestampVisitor {
    expecting: &'static str,
    from: fn(i64) -> Result<jiff::Timestamp, jiff::Error>,
}

impl Visitor<'_> for TimestampVisitor {
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
