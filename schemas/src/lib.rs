//! Avro in, bytes out: the schemas of Annals events, without any I/O.
//!
//! Each type of event has one `.avsc` file and one struct of the same name. [`events!`] declares the
//! types of a category, and makes the test that fails when a struct and its schema do not fit:
//! encoding an event never fails for that reason afterwards.
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
//! | `string` | `String`, and all that serde writes as text |
//! | `bytes`, `fixed` | what serde writes as bytes: `serde_bytes`, `uuid::Uuid` |
//! | `["null", x]` | `Option` |
//! | `array`, `map` | `Vec` and sets, maps with text keys |
//! | `enum` | an enum without data, each variant a symbol |
//! | another union | an enum with one variant a branch, in the same order; or an untagged one |
//! | `record` | a struct of the same name and fields; `#[serde(rename = "..")]` where they differ |
//! | `timestamp-millis`, `timestamp-micros` | [`jiff::Timestamp`] with [`timestamp_millis`], [`timestamp_micros`] |
//!
//! A newtype needs `#[serde(transparent)]`. Avro has no `u64` and no recursion here. An Avro `uuid` that
//! is a `string` is a `uuid::Uuid` with `#[serde(with = "uuid::serde::hyphenated")]`.
//!
//! # Versions
//!
//! The schema that wrote an event is known by its [`Fingerprint`], and [`Schema::decode`] turns what it
//! wrote into what the program's own schema says, by Avro's rules: new fields get their defaults,
//! renamed ones are found by their aliases, numbers widen. [`can_read`] tells beforehand whether that
//! will work for every event.

#[macro_use]
mod declare;
mod convert;
mod datum;
mod default;
mod definition;
mod error;
mod event;
mod explain;
mod fingerprint;
mod fit;
mod frame;
mod json;
mod meaning;
mod node;
mod plan;
mod schema;
mod timestamp;
mod unmeant;

pub use error::{DecodeError, EncodeError, Incompatibility, Incompatible, SchemaError};
pub use event::{Encoded, EventDeclaration, EventSet, Report, verify};
pub use fingerprint::Fingerprint;
pub use fit::{Misfit, check_fit};
pub use frame::{FrameError, SchemaId, frame, unframe};
pub use schema::{Schema, can_read};
pub use timestamp::{timestamp_micros, timestamp_millis};

/// What the code made by [`events!`] needs; not for anybody else.
#[doc(hidden)]
pub mod __private {
    pub use crate::event::{Table, is_category};
}
