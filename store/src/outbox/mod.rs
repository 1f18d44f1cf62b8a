//! The outbox, for its publisher: windows of the events that became visible between two snapshots.
//!
//! Positions are drawn before the commit, so a position does not say which events are still to
//! appear below it. Transaction ids are assigned before an append, so they do not order a stream.
//! The events that became visible between two snapshots, in position order, contain each event once
//! and each stream in version order: version n + 1 can only be written after the transaction of
//! version n has ended, and draws its position after that.

mod bound;
mod event;
mod pages;
mod partitions;
mod window;

pub use self::bound::{Bound, LogEnd, TransactionId};
pub use self::event::{Details, OutboxEvent, OutboxRow, UnreadableDetail};
pub(crate) use self::partitions::OUTBOX_POSITIONS_LEFT_MIN;
pub use self::window::{LateEvents, NextPage, PageLimit, PositionRange, Window};
pub use crate::history::History;
