//! Avro schemas of Annals events: encodes, decodes and checks compatibility, without I/O.
//!
//! Each event type has one `.avsc` file and one struct of the same name. [`events!`] declares the
//! event types of a category, and generates a test that fails if a struct does not fit its schema:
//! after that, encoding an event does not fail for that reason.
//!
//! ```
//! use annals_schemas::{EventSet, events};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! pub struct OrderShipped {
//!     carrier: Carrier,
//!     weight_grams: i64,
//! }
//!
//! #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! enum Carrier {
//!     Post,
//!     Courier,
//! }
//!
//! events! {
//!     /// What happens to an order.
//!     #[derive(Debug, Clone, PartialEq)]
//!     pub enum OrderEvent in "order" {
//!         /// It left the warehouse.
//!         OrderShipped = "../tests/avro/order/OrderShipped.v1.avsc",
//!     }
//! }
//!
//! let event = OrderEvent::from(OrderShipped { carrier: Carrier::Courier, weight_grams: 1200 });
//! let encoded = event.encode()?;
//! assert_eq!(encoded.event_type, "OrderShipped");
//! assert_eq!(encoded.payload, [0x02, 0xe0, 0x12]);
//! assert_eq!(encoded.data.get(), r#"{"carrier":"Courier","weight_grams":1200}"#);
//!
//! let decoded = OrderEvent::decode(encoded.event_type, &encoded.schema, &encoded.payload)?;
//! assert_eq!(decoded, event);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How Rust types are written
//!
//! | Avro | Rust |
//! |---|---|
//! | `int` | `i32`; also `i8`, `i16`, `u8`, `u16` |
//! | `long` | `i64`; also `u32` |
//! | `float`, `double` | `f32`, `f64` |
//! | `string` | `String`, and every type that serde writes as text |
//! | `bytes`, `fixed` | types that serde writes as bytes: `serde_bytes`, `uuid::Uuid` |
//! | `bytes`, marked as personal | [`Personal`](personal::Personal) |
//! | `["null", x]` | `Option` |
//! | `array`, `map` | `Vec` and sets, maps with text keys |
//! | `enum` | an enum without data, each variant a symbol |
//! | another union | an enum with one variant a branch, in the same order; or an untagged one |
//! | `record` | a struct of the same name and fields; `#[serde(rename = "..")]` where they differ |
//! | `decimal` | [`Decimal`], such as `Decimal<12, 2>` for money |
//! | `timestamp-millis`, `-micros`, `-nanos` | [`jiff::Timestamp`] with [`timestamp_millis`], [`timestamp_micros`], [`timestamp_nanos`] |
//! | `local-timestamp-millis`, `-micros`, `-nanos` | [`jiff::civil::DateTime`] with [`local_timestamp_millis`], [`local_timestamp_micros`], [`local_timestamp_nanos`] |
//! | `date` | [`jiff::civil::Date`] with [`date`](mod@date) |
//! | `time-millis`, `time-micros` | [`jiff::civil::Time`] with [`time_millis`], [`time_micros`] |
//! | `duration` | [`AvroDuration`] |
//!
//! The module of each type of time goes into `#[serde(with = "annals_schemas::date")]`, and its
//! `option` into that of an `Option`. An array or a map of them needs a newtype for its elements,
//! with this attribute and `#[serde(transparent)]`. The logical type `big-decimal` has no type.
//! A `float` or `double` may not be NaN or infinite ([`EncodeError::NotFinite`]), since JSON has no
//! such numbers.
//!
//! A newtype needs `#[serde(transparent)]`. Avro has no `u64`, and a record here may not contain
//! itself. An Avro `uuid` that is a `string` is a `uuid::Uuid` with
//! `#[serde(with = "uuid::serde::hyphenated")]`.
//!
//! # Versions
//!
//! Each event stores the [`Fingerprint`] of the schema that wrote it. [`Schema::decode`] resolves
//! that schema to the program's own by Avro's rules: new fields get their defaults, renamed fields
//! are found by their aliases, numbers widen. [`can_read`] checks whether that works for every
//! event, and [`Compatibility`] also whether earlier programs read new events. For other changes,
//! an event type gets another name, and an upcaster makes events of the new type from those of the
//! old one ([`events!`], `upcast`); [`verify_released`] proves that every released version is read.

#[macro_use]
mod declare;
mod avro_types;
mod compatibility;
mod datum;
mod decimal;
mod default;
mod definition;
mod duration;
mod error;
mod event;
mod explain;
mod fingerprint;
mod fit;
mod json;
mod layout;
mod lint;
pub mod personal;
mod reals;
mod resolution;
mod resolver;
mod schema;
mod semantic_form;
mod times;
mod wire_format;

pub use compatibility::{Broken, Compatibility};
pub use decimal::{Decimal, DecimalError};
pub use duration::{AvroDuration, AvroDurationError};
pub use error::{DecodeError, EncodeError, Incompatibility, Incompatible, SchemaError};
pub use event::{
    EncodedEvent, EventDeclaration, EventSet, FitReport, UnknownEvents, conflicting_definitions,
    verify, verify_released,
};
pub use fingerprint::Fingerprint;
pub use fit::{Misfit, check_fit};
/// The jiff whose timestamps, dates and times the serde modules write.
pub use jiff;
pub use layout::{EventSchemas, Layout, SharedSchema, event_schemas};
pub use schema::{Schema, can_read};
pub use times::{
    date, local_timestamp_micros, local_timestamp_millis, local_timestamp_nanos, time_micros,
    time_millis, timestamp_micros, timestamp_millis, timestamp_nanos,
};
pub use wire_format::{
    Framing, SCHEMA_ID_HEADER, SchemaId, WireFormatError, from_wire_format, to_wire_format,
};

/// For the code generated by [`events!`] only.
#[doc(hidden)]
pub mod __private {
    pub use crate::event::{SchemaTable, is_category};
}
