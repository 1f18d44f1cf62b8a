//! Personal data in events: fields that are encrypted with a key of their subject, and that cannot
//! be read after the key is destroyed.
//!
//! A field of Avro type `bytes` is personal if its schema says so:
//!
//! ```json
//! {"name": "owner", "type": "bytes", "annals.personal": true}
//! {"name": "email", "type": ["null", "bytes"], "default": null, "confluent:tags": ["PII"]}
//! ```
//!
//! In Rust the field is a [`Personal`] value. It is open when the application makes the event,
//! sealed as soon as the event is encoded for an append, and sealed or erased when it is read
//! again. An open value is never serialized outside an event: it cannot get into a log or a read
//! model by mistake.
//!
//! # Format
//!
//! The value of a sealed field, version 1:
//!
//! | bytes | content |
//! | --- | --- |
//! | 1 | `0x01`, the version of this format |
//! | 16 | the key id |
//! | 12 | the nonce |
//! | any | AES-256-GCM of the value as JSON in UTF-8 |
//! | 16 | the tag of GCM |
//!
//! A single byte `0x00` is a value that was erased before the event was made.
//!
//! From the secret of a subject (32 random bytes), with HMAC-SHA256 as the function
//! `H(key, message)`:
//!
//! | what | is |
//! | --- | --- |
//! | key id | the first 16 bytes of `H(secret, "annals personal 1 id" ‖ subject)` |
//! | encryption key | `H(secret, "annals personal 1 encryption")` |
//! | nonce key | `H(secret, "annals personal 1 nonce")` |
//! | place | `"annals personal 1"`, the key id, the event id (16 bytes), the length of the event type (4 bytes, big endian), the event type, the path of the field |
//! | nonce | the first 12 bytes of `H(nonce key, place ‖ value)` |
//!
//! The place is the additional authenticated data of GCM: a value that was copied to another field,
//! event or subject does not open. An event id occurs once in a store, so that it determines stream
//! and category. The path has the names of records' fields, the indices of arrays and the keys of
//! maps, with dots between them.
//!
//! The nonce depends on the value: sealing the same value for the same place gives the same bytes,
//! so that a retry of an append is recognized, and another value gets another nonce. It reveals
//! nothing but whether two values of one field of one event are equal. The key id depends on the
//! secret: a wrong secret is noticed before it is used.

mod draft;
mod finite;
mod key;
mod marks;
mod place;
mod value;
mod walk;

pub use self::draft::Draft;
pub use self::key::{BlindIndex, KeyId, KeyRing, RingKey, Subject, SubjectError, SubjectKey};
pub use self::place::placed;
pub use self::value::{OpenError, Personal};

pub(crate) use self::marks::{Marks, is_marked};
