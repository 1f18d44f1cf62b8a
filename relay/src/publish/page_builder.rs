//! The state of a page while it is read, and its limits of time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use annals_store::outbox::OutboxEvent;

use crate::model::batch::{Collector, Limits};
use crate::model::checkpoint::LastEvent;
use crate::model::message::Message;
use crate::model::quarantine::{Cause, NewEntry};
use crate::publish::filter::NewEntries;

/// The longest that a page reads: then it ends, and the next one continues behind the positions
/// that it has read. On a slow connection these are fewer than there is room for.
const PAGE_TIME_MAX: Duration = Duration::from_secs(2);

/// The state of a page while it is read.
pub(crate) struct PageBuilder {
    pub(crate) collector: Collector,
    pub(crate) has_more: bool,
    pub(crate) new_entries: NewEntries,
    /// The last event of each shard.
    pub(crate) last: HashMap<i16, LastEvent>,
    /// When the page has to end.
    ends_at: Instant,
    /// When the present share of its time ends.
    share_ends_at: Instant,
    /// Whether an event has to wait for its topic or its schema.
    pub(crate) waits: bool,
    /// Whether an event that could be published is behind it.
    pub(crate) delays_others: bool,
    /// The quarantined category that is retried, and whether the registry has not answered again.
    pub(crate) retried: Option<RetriedCategory>,
}

/// A quarantined category whose events are read.
pub(crate) struct RetriedCategory {
    pub(crate) name: String,
    /// Whether the registry gives no id for one of its events: the category stays in quarantine.
    pub(crate) still_waits: bool,
}

impl PageBuilder {
    pub(crate) fn new(limits: Limits) -> Self {
        let began = Instant::now();
        Self {
            collector: Collector::new(limits),
            has_more: false,
            new_entries: NewEntries::default(),
            last: HashMap::new(),
            ends_at: began + PAGE_TIME_MAX,
            share_ends_at: began + PAGE_TIME_MAX,
            waits: false,
            delays_others: false,
            retried: None,
        }
    }

    /// Whether this entry is that of the category that is retried, which then stays in quarantine.
    pub(crate) fn keeps_waiting(&mut self, entry: &NewEntry) -> bool {
        let retried = self.retried.as_mut().filter(|retried| retried.name == entry.name);
        let retried = retried.filter(|_| entry.cause == Cause::Registry);
        retried.map(|retried| retried.still_waits = true).is_some()
    }

    /// Limits what is read next to an equal share of the room and of the time that are left, of so
    /// many shares.
    pub(crate) fn share(&mut self, shares: usize) {
        self.collector.share(shares);
        let now = Instant::now();
        let left = self.ends_at.saturating_duration_since(now);
        self.share_ends_at = now + left / u32::try_from(shares).unwrap_or(u32::MAX).max(1);
    }

    /// Whether the page takes no more events in this share.
    pub(crate) fn is_over(&self) -> bool {
        self.collector.is_full() || self.is_late()
    }

    /// Whether the time of this share is over.
    pub(crate) fn is_late(&self) -> bool {
        Instant::now() >= self.share_ends_at
    }

    pub(crate) fn push(&mut self, event: &OutboxEvent<'_>, message: Message) {
        let last = LastEvent { position: event.position, event_id: event.event_id };
        let known = self.last.entry(event.shard).or_insert(last);
        if known.position < last.position {
            *known = last;
        }
        self.collector.push(event.shard, message);
    }
}
