//! The relay's state in PostgreSQL: sessions, leases, checkpoints, quarantine, skipped events, end
//! offsets of topics.

mod checkpoints;
pub(crate) mod deployment;
pub(crate) mod lag;
mod leases;
mod membership;
pub(crate) mod overview;
mod process;
mod quarantine;
mod session;
mod skipped;
mod store_facts;
mod tables;
pub(crate) mod topic_ends;

pub(crate) use checkpoints::StoredCheckpoints;
pub(crate) use session::{Session, TransactionalIds, WriteNumber};
pub(crate) use skipped::SkippedEvents;
pub(crate) use store_facts::store_facts;
pub(crate) use tables::RelayTables;
