//! The relay's data: cursors and checkpoints, quarantine entries, messages, batches, claims. No
//! I/O.

pub(crate) mod announced_session;
pub(crate) mod batch;
pub(crate) mod batch_timings;
pub mod checkpoint;
pub mod claim;
pub(crate) mod claim_book;
pub mod event_format;
pub mod execution;
pub mod headers;
pub(crate) mod lag;
pub mod message;
pub(crate) mod offsets;
pub mod quarantine;
mod quarantine_cause;
pub(crate) mod shard_number;
