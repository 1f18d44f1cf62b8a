//! The selection of appends for a call.

use std::collections::HashSet;

use crate::append::coalescing::Coalescing;
use crate::append::queued::QueuedAppend;
use crate::event::EventId;
use crate::stream::StreamName;

/// The appends selected for a call.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) appends: Vec<QueuedAppend>,
    ids: HashSet<EventId>,
    bytes: usize,
    /// Streams with an append that stays in the queue: later appends to them stay, too.
    pub(crate) passed: HashSet<StreamName>,
}

impl Selection {
    pub(crate) fn is_full(&self, options: &Coalescing) -> bool {
        self.ids.len() >= options.call_events_max.get()
            || self.bytes >= options.call_bytes_max.get()
    }

    pub(crate) fn accepts(&self, append: &QueuedAppend, options: &Coalescing) -> bool {
        self.ids.len() + append.events() <= options.call_events_max.get()
            && self.bytes + append.bytes <= options.call_bytes_max.get()
            && !self.passed.contains(&append.stream)
            && !append.ids().any(|id| self.ids.contains(&id))
    }

    pub(crate) fn add(&mut self, append: QueuedAppend) {
        self.ids.extend(append.ids());
        self.bytes += append.bytes;
        self.appends.push(append);
    }
}
