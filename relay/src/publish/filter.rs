//! Which events of the log are left out: those of quarantined streams and categories.

use std::collections::{BTreeMap, HashMap, HashSet};

use annals_store::outbox::OutboxEvent;

use crate::model::quarantine::{Kind, NewEntry, Quarantine, ShardCursor, category_of};

/// Leaves out the events of quarantined streams and categories.
pub(crate) struct QuarantineFilter {
    shards: BTreeMap<i16, Quarantine>,
}

impl QuarantineFilter {
    pub(crate) fn new(shards: &[ShardCursor]) -> Self {
        let quarantined = shards.iter().filter(|shard| !shard.quarantine.is_empty());
        let quarantined = quarantined.map(|shard| (shard.shard(), shard.quarantine.clone()));
        Self { shards: quarantined.collect() }
    }

    pub(crate) fn leaves_out(&self, event: &OutboxEvent<'_>) -> bool {
        let includes = |of: &Quarantine| of.includes(event.category, event.stream);
        self.shards.get(&event.shard).is_some_and(includes)
    }
}

/// The streams and categories that a page or a batch found unpublishable, each once: a category in
/// place of too many of its streams, so that a page with millions of them is bounded.
#[derive(Default)]
pub(crate) struct NewEntries {
    entries: Vec<NewEntry>,
    names: HashSet<(Kind, String)>,
    /// The number of streams of each category.
    streams: HashMap<String, usize>,
}

impl NewEntries {
    pub(crate) fn push(&mut self, entry: NewEntry) {
        if !self.names.insert((entry.kind, entry.name.clone())) {
            return;
        }
        if entry.kind == Kind::Category {
            self.entries.push(entry);
            return;
        }
        let category = category_of(&entry.name).to_owned();
        let streams = self.streams.entry(category.clone()).or_default();
        *streams += 1;
        let entry = entry.summed_up(*streams);
        if entry.kind == Kind::Category {
            let is_of =
                |of: &NewEntry| of.kind == Kind::Stream && category_of(&of.name) == category;
            self.entries.retain(|other| !is_of(other));
            self.names.insert((Kind::Category, category));
        }
        self.entries.push(entry);
    }

    /// Whether one of them makes this event wait.
    pub(crate) fn include(&self, event: &OutboxEvent<'_>) -> bool {
        !self.is_empty() && self.include_stream(event.stream)
    }

    /// Whether one of them makes the events of this stream wait.
    pub(crate) fn include_stream(&self, stream: &str) -> bool {
        self.names.contains(&(Kind::Category, category_of(stream).to_owned()))
            || self.names.contains(&(Kind::Stream, stream.to_owned()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn into_entries(self) -> Vec<NewEntry> {
        self.entries
    }
}
