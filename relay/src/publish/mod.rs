//! The stages of publishing: pages of the outbox are read, events are encoded, batches are sent.

mod encoder;
mod filter;
mod operator_requests;
mod page;
mod page_builder;
pub(crate) mod predecessors;
mod preparation;
mod quarantined;
mod reader;
pub mod registry;
mod registry_answer;
mod registry_outage;
pub(crate) mod registry_tls;
mod rows;
pub(crate) mod schema_lookups;
mod senders;
mod sending;
mod standby;
mod step_limit;
mod topic_worker;
mod topics;
mod topics_log;
mod topics_state;
pub(crate) mod uncompared;
pub(crate) mod writer_schemas;

use std::sync::Arc;

use annals_store::Store;

pub(crate) use reader::ReaderHandle;
pub(crate) use senders::{FENCED_AT_ONCE, Senders, fence};

use crate::config::Config;
use crate::publish::uncompared::UncomparedTopics;
use crate::report::failure::Failure;

/// Starts a reader, with its encoder and its client of the registry.
pub(crate) fn start_reader(
    config: &Arc<Config>,
    store: &Store,
    uncompared: &Arc<UncomparedTopics>,
) -> Result<ReaderHandle, Failure> {
    let registry = registry::RegistryClient::connect(config, store)?;
    let encoder = encoder::Encoder::new(config, store, registry, uncompared);
    Ok(ReaderHandle::start(config, store, encoder))
}
