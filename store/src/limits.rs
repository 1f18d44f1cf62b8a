//! Limits on one append, checked before it is sent to the server; and the oldest server.

/// Maximum number of events in one append.
pub const EVENTS_PER_APPEND_MAX: usize = 10_000;
/// Maximum number of streams in one append, including streams that are only checked.
pub const STREAMS_PER_APPEND_MAX: usize = 1_000;
/// Maximum number of different tags in one append, those of its conditions included: each is a lock
/// in the shared memory of the server until the append has committed.
pub const TAGS_PER_APPEND_MAX: usize = 100;
/// Maximum size of one append, in bytes of payload, JSON, metadata and headers: PostgreSQL limits a
/// message to 1 GiB, and has several copies of it in memory.
pub const APPEND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Maximum size of the metadata and headers of one event, in bytes of JSON.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Maximum length of the name of a free header, in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 200;
/// Default maximum size of one event's payload: fits into a Kafka topic with the default
/// `max.message.bytes` of 1 MiB, with space for key and headers.
pub const EVENT_BYTES_MAX: usize = 1_000_000 - 32 * 1024;
/// The oldest major version of PostgreSQL that the store works with.
pub const POSTGRES_MAJOR_MIN: i32 = 14;
