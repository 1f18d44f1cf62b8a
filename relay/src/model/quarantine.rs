//! Quarantine: streams and categories of which an event cannot be published. Their later events
//! wait, in order, while everything else is published. Once the event can be published, the entry
//! continues from a cursor of its own until it has caught up with its shard.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use annals_relay_machine::Lease;
use annals_store::Position;
use annals_store::outbox::{Bound, LogEnd};
use serde::Serialize;

use crate::model::checkpoint::{
    Cursor, EntryId, EntryProgress, LastEvent, OpenEntries, ShardCheckpoint,
};
pub use crate::model::quarantine_cause::{Cause, Kind};
use crate::model::shard_number::number;

/// A stream or a category to quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewEntry {
    /// Whether it is a stream or a category.
    pub kind: Kind,
    /// The name of the stream or the category.
    pub name: String,
    /// Why.
    pub cause: Cause,
    /// The component's own words.
    pub reason: String,
    /// The position of the refused event; `None` for a category.
    pub position: Option<Position>,
}

impl NewEntry {
    /// The entry of the whole category in place of that of a stream, if so many streams of the
    /// category are quarantined with it that it is.
    pub(crate) fn summed_up(self, streams: usize) -> Self {
        let is_too_many = self.kind == Kind::Stream && streams > STREAMS_OF_CATEGORY_MAX;
        if is_too_many { self.of_category(streams) } else { self }
    }

    /// The same of the whole category, of which so many streams are quarantined.
    fn of_category(self, streams: usize) -> Self {
        let Self { name, cause, reason, .. } = self;
        let reason = format!("{streams} of its streams are refused, such as {name}: {reason}");
        let name = category_of(&name).to_owned();
        Self { kind: Kind::Category, name, cause, reason, position: None }
    }
}

/// More quarantined streams of one category than this quarantine the category: the cause
/// is then common to its events, and each further stream would cost a try of its own.
const STREAMS_OF_CATEGORY_MAX: usize = 20;

/// The entries to add: one for a category in place of those of too many of its streams.
pub(crate) fn with_categories<'a>(
    known: impl IntoIterator<Item = &'a Quarantine>,
    entries: Vec<NewEntry>,
) -> Vec<NewEntry> {
    let mut streams: HashMap<String, HashSet<String>> = HashMap::new();
    let known = known.into_iter().flat_map(Quarantine::iter).map(|(name, _)| name.clone());
    let new = entries.iter().map(|entry| (entry.kind, entry.name.clone()));
    for (kind, stream) in known.chain(new) {
        if kind == Kind::Stream {
            streams.entry(category_of(&stream).to_owned()).or_default().insert(stream);
        }
    }
    let mut added: HashSet<(Kind, String)> = HashSet::new();
    let summed_up = entries.into_iter().map(|entry| {
        let count = streams.get(category_of(&entry.name)).map_or(0, HashSet::len);
        entry.summed_up(count)
    });
    summed_up.filter(|entry| added.insert((entry.kind, entry.name.clone()))).collect()
}

/// The category of a stream, by its name.
pub(crate) fn category_of(stream: &str) -> &str {
    stream.split_once('-').map_or(stream, |(category, _)| category)
}

/// Whether PostgreSQL has the cursor of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryState {
    /// It has.
    Recorded,
    /// The shard's checkpoint has a later cursor.
    Ahead,
    /// The entry has ended, by its shard's checkpoint.
    Ended,
}

/// One entry of the quarantine, in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number in PostgreSQL.
    pub(crate) id: EntryId,
    pub(crate) cause: Cause,
    pub(crate) cursor: Cursor,
    pub(crate) state: EntryState,
}

/// An entry with the name of its stream or category.
pub(crate) type NamedEntry = ((Kind, String), Entry);

/// The quarantine of one shard, by kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Quarantine(Arc<HashMap<(Kind, String), Entry>>);

impl Quarantine {
    pub(crate) fn new(entries: impl IntoIterator<Item = NamedEntry>) -> Self {
        Self(Arc::new(entries.into_iter().collect()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An entry that has not ended.
    pub(crate) fn get(&self, name: &(Kind, String)) -> Option<&Entry> {
        self.0.get(name).filter(|entry| entry.state != EntryState::Ended)
    }

    /// The entries that have not ended, with their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&(Kind, String), &Entry)> {
        self.0.iter().filter(|(_, entry)| entry.state != EntryState::Ended)
    }

    /// The numbers of the entries that have not ended.
    pub(crate) fn ids(&self) -> impl Iterator<Item = EntryId> {
        self.iter().map(|(_, entry)| entry.id)
    }

    /// Whether an event of this category and stream has to wait.
    pub(crate) fn includes(&self, category: &str, stream: &str) -> bool {
        !self.is_empty() && (self.has(Kind::Category, category) || self.has(Kind::Stream, stream))
    }

    /// Whether there is an entry of this name.
    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        // A pair of texts has no borrowed form; entries are few, and mostly there are none.
        self.get(&(kind, name.to_owned())).is_some()
    }

    /// Moves an entry to a later cursor.
    pub(crate) fn advance(&mut self, name: &(Kind, String), cursor: Cursor, state: EntryState) {
        if let Some(entry) = Arc::make_mut(&mut self.0).get_mut(name) {
            entry.cursor = cursor;
            entry.state = state;
        }
    }

    /// Drops the progress from checkpoints that PostgreSQL has recorded by now.
    pub(crate) fn recorded(&mut self, recorded: &HashMap<EntryId, Option<Cursor>>) {
        let is_news = |entry: &Entry| {
            entry.state != EntryState::Recorded
                && recorded.get(&entry.id) == Some(&progress(entry).cursor)
        };
        if !self.0.values().any(is_news) {
            return;
        }
        let entries = Arc::make_mut(&mut self.0);
        entries.retain(|_, entry| !(entry.state == EntryState::Ended && is_news(entry)));
        for entry in entries.values_mut().filter(|entry| is_news(entry)) {
            entry.state = EntryState::Recorded;
        }
    }

    /// The progress that PostgreSQL has not recorded.
    fn progress(&self) -> Vec<EntryProgress> {
        let unrecorded = self.0.values().filter(|entry| entry.state != EntryState::Recorded);
        unrecorded.map(progress).collect()
    }
}

fn progress(entry: &Entry) -> EntryProgress {
    let cursor = (entry.state != EntryState::Ended).then(|| entry.cursor.clone());
    EntryProgress { entry: entry.id, cursor }
}

/// How far one shard is published, with its quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardCursor {
    pub(crate) lease: Lease,
    /// The end of the log when the checkpoint was read: it names the history.
    pub(crate) known: Arc<LogEnd>,
    pub(crate) cursor: Cursor,
    /// The last published event of the shard.
    pub(crate) last: Option<LastEvent>,
    pub(crate) quarantine: Quarantine,
}

impl ShardCursor {
    /// The shard's number in the database.
    pub(crate) fn shard(&self) -> i16 {
        number(self.lease.shard)
    }

    /// The shard's checkpoint.
    pub(crate) fn checkpoint(&self) -> ShardCheckpoint {
        let (history, quarantine) = (self.known.history.clone(), self.quarantine.progress());
        ShardCheckpoint::new(history, self.cursor.clone(), quarantine)
            .ending_with(self.last)
            .with_open_entries(OpenEntries::of(self.quarantine.ids()))
    }

    /// The end of the window up to which an entry can be read; none while the entry has to wait for
    /// its shard.
    pub(crate) fn window_of<'a>(&'a self, entry: &'a Entry) -> Option<&'a Bound> {
        // In the window that the shard is in, the shard goes first.
        let is_before = entry.cursor.since != self.cursor.since;
        is_before.then(|| entry.cursor.until.as_ref().unwrap_or(&self.cursor.since))
    }

    /// Whether an entry with this cursor has caught up with the shard.
    pub(crate) fn is_caught_up(&self, cursor: &Cursor) -> bool {
        let is_between = cursor.until.is_none() && self.cursor.until.is_none();
        is_between && cursor.since == self.cursor.since
    }
}

/// Shards with the same cursor together: normally all, and several groups only after a takeover,
/// until each has finished its window.
pub(crate) fn groups(shards: &[ShardCursor]) -> Vec<(Cursor, Vec<i16>)> {
    let mut groups: Vec<(Cursor, Vec<i16>)> = Vec::new();
    for shard in shards {
        match groups.iter_mut().find(|(cursor, _)| *cursor == shard.cursor) {
            Some((_, shards)) => shards.push(shard.shard()),
            None => groups.push((shard.cursor.clone(), vec![shard.shard()])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use annals_relay_machine::Shard;
    use annals_store::outbox::{History, TransactionId};
    use uuid::Uuid;

    use super::*;

    fn at(position: i64) -> Position {
        Position::new(position).unwrap_or(Position::ORIGIN)
    }

    fn bound(position: i64) -> Bound {
        let snapshot = format!("{position}:{position}:");
        let (next_xid, position) = (TransactionId::new(position), at(position));
        Bound { snapshot, next_xid, position, event_id: None, settled: Position::ORIGIN }
    }

    fn shard(shard: u16, cursor: Cursor) -> ShardCursor {
        let history = History {
            store_id: Uuid::nil(),
            number: 1,
            system_identifier: "7".into(),
            timeline: "00000001".into(),
        };
        let known = LogEnd { history, incarnation: "a".into(), bound: Bound::origin() };
        let lease = Lease { shard: Shard(shard), epoch: 1 };
        ShardCursor {
            lease,
            known: Arc::new(known),
            cursor,
            last: None,
            quarantine: Quarantine::default(),
        }
    }

    fn name() -> (Kind, String) {
        (Kind::Stream, "account-1".to_owned())
    }

    fn quarantined(cursor: Cursor) -> Quarantine {
        let entry = Entry {
            id: EntryId::new(7),
            cause: Cause::Record,
            cursor,
            state: EntryState::Recorded,
        };
        Quarantine::new([(name(), entry)])
    }

    #[test]
    fn shards_with_one_cursor_are_read_together() {
        let behind = Cursor::origin().within(&bound(99), at(42));
        let read = |cursors: [Cursor; 3]| {
            let cursors: Vec<_> =
                (0..).zip(cursors).map(|(number, cursor)| shard(number, cursor)).collect();
            groups(&cursors).into_iter().map(|(_, shards)| shards).collect::<Vec<_>>()
        };
        assert_eq!(read([Cursor::origin(), behind, Cursor::origin()]), [vec![0, 2], vec![1]]);
        let done = Cursor::done(&bound(99));
        assert_eq!(read([done.clone(), done.clone(), done]), [[0, 1, 2]]);
    }

    #[test]
    fn quarantined_events_wait_and_no_others() {
        let quarantine = quarantined(Cursor::origin());
        assert!(quarantine.includes("account", "account-1"));
        assert!(!quarantine.includes("account", "account-2"));
        let category = Entry {
            id: EntryId::new(8),
            cause: Cause::Record,
            cursor: Cursor::origin(),
            state: EntryState::Recorded,
        };
        let quarantine = Quarantine::new([((Kind::Category, "account".to_owned()), category)]);
        assert!(quarantine.includes("account", "account-2"));
        assert!(!quarantine.includes("ledger", "ledger-1"));
    }

    #[test]
    fn an_entry_waits_in_the_window_of_its_shard_and_then_continues_to_the_ends_of_windows() {
        let mut shard = shard(1, Cursor::origin().within(&bound(9), at(5)));
        let entry = Cursor::origin().within(&bound(9), at(3));
        let entry = Entry {
            id: EntryId::new(7),
            cause: Cause::Record,
            cursor: entry,
            state: EntryState::Recorded,
        };
        assert_eq!(shard.window_of(&entry), None);
        shard.cursor = Cursor::done(&bound(9));
        assert_eq!(shard.window_of(&entry), Some(&bound(9)));
        shard.cursor = Cursor::done(&bound(12));
        assert_eq!(shard.window_of(&entry), Some(&bound(9)), "its own window has its own end");
        let next = Entry { cursor: Cursor::done(&bound(9)), ..entry };
        assert_eq!(shard.window_of(&next), Some(&bound(12)));
    }

    #[test]
    fn an_entry_catches_up_when_its_shard_is_between_two_windows() {
        let mut shard = shard(1, Cursor::done(&bound(9)));
        assert!(shard.is_caught_up(&Cursor::done(&bound(9))));
        assert!(!shard.is_caught_up(&Cursor::done(&bound(5))));
        shard.cursor = shard.cursor.within(&bound(12), at(10));
        assert!(
            !shard.is_caught_up(&Cursor::done(&bound(9))),
            "the shard has skipped later events of the entry"
        );
    }

    #[test]
    fn checkpoints_have_the_progress_of_an_entry_until_it_is_recorded() {
        let mut shard = shard(1, Cursor::origin());
        shard.quarantine = quarantined(Cursor::origin());
        assert_eq!(shard.checkpoint().quarantine, []);
        let further = Cursor::done(&bound(5));
        shard.quarantine.advance(&name(), further.clone(), EntryState::Ahead);
        let progress = EntryProgress { entry: EntryId::new(7), cursor: Some(further.clone()) };
        assert_eq!(shard.checkpoint().quarantine, [progress]);
        shard.quarantine.recorded(&HashMap::from([(EntryId::new(7), Some(Cursor::origin()))]));
        assert_eq!(shard.checkpoint().quarantine.len(), 1, "an older cursor is recorded");
        shard.quarantine.recorded(&HashMap::from([(EntryId::new(7), Some(further.clone()))]));
        assert_eq!(shard.checkpoint().quarantine, []);
        shard.quarantine.advance(&name(), further, EntryState::Ended);
        assert_eq!(
            shard.checkpoint().quarantine,
            [EntryProgress { entry: EntryId::new(7), cursor: None }]
        );
        assert!(
            !shard.quarantine.includes("account", "account-1"),
            "it has ended, recorded or not"
        );
        shard.quarantine.recorded(&HashMap::from([(EntryId::new(7), None)]));
        assert!(shard.quarantine.is_empty());
    }
}
