//! Followers of the log in memory.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use futures_util::stream::{Stream, try_unfold};
use tokio::sync::watch;

use crate::error::Error;
use crate::event::{EventId, RecordedEvent};
use crate::follow::{Checkpoint, Follow, Followed};
use crate::memory::MemoryStore;
use crate::outbox::Bound;
use crate::read::{Key, Read};
use crate::stream::{Position, StreamName, Version};

/// Maximum number of events that a follower takes at once.
const PAGE_EVENTS: u64 = 500;

impl MemoryStore {
    /// Follows the log from the checkpoint of `follow`.
    pub(super) fn follow_events(
        &self,
        follow: Follow,
    ) -> impl Stream<Item = Result<Followed, Error>> + Send + use<> {
        let (read, after, skipped) = follow.into_read();
        let after = after.map_or(Ok(Position::ORIGIN), |after| self.verified(&after));
        let behind = |event: &RecordedEvent| event.position.saturating_add(1);
        let pages = after.map(|after| Pages::new(self, read, after.saturating_add(1), behind));
        try_unfold((pages, skipped), async |(pages, skipped): (Result<Pages<_>, Error>, _)| {
            let mut pages = pages?;
            let event = pages.next(&skipped).await;
            let checkpoint = pages.store.checkpoint_at(event.position);
            Ok(Some((Followed { event, checkpoint }, (Ok(pages), skipped))))
        })
    }

    pub(super) fn follow_version(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<> {
        let behind = |event: &RecordedEvent| event.version.next();
        let pages = Pages::new(self, Read::stream(stream), from, behind);
        try_unfold(pages, async |mut pages: Pages<Version>| {
            let event = pages.next(&BTreeSet::new()).await;
            Ok(Some((event, pages)))
        })
    }

    /// The checkpoint behind the event at a position.
    pub(super) fn checkpoint_at(&self, position: Position) -> Checkpoint {
        let event_id = self.log().id_at(position).map(EventId::get);
        let bound = Bound { position, settled: position, event_id, ..Bound::origin() };
        Checkpoint::at(Arc::clone(&self.history.0), Arc::new(bound))
    }

    /// The position behind which a checkpoint continues.
    fn verified(&self, checkpoint: &Checkpoint) -> Result<Position, Error> {
        let (of, found) = (&checkpoint.history, &self.history.0);
        let histories = || (Box::new((**of).clone()), Box::new((**found).clone()));
        if of.store_id != found.store_id {
            let (checkpoint, found) = histories();
            return Err(Error::OtherStore { checkpoint, found });
        }
        let last = checkpoint.since.last_event();
        let is_known = |(position, id)| self.log().id_at(position).is_some_and(|of| of.get() == id);
        if last.is_some_and(|last| !is_known(last)) {
            let (checkpoint, found) = histories();
            let since = last.map_or(Position::ORIGIN, |(position, _)| position.before());
            return Err(Error::OtherHistory { checkpoint, found, since, processed: 1, present: 0 });
        }
        Ok(checkpoint.position())
    }
}

/// A read that continues with each new event, without end.
struct Pages<K> {
    store: MemoryStore,
    appended: watch::Receiver<()>,
    read: Read<K>,
    /// The key to read from next.
    from: K,
    /// The key behind that of an event.
    behind: fn(&RecordedEvent) -> K,
    page: VecDeque<RecordedEvent>,
}

impl<K: Key> Pages<K> {
    fn new(store: &MemoryStore, read: Read<K>, from: K, behind: fn(&RecordedEvent) -> K) -> Self {
        let (store, appended) = (store.clone(), store.appended.subscribe());
        let read = read.events_max(PAGE_EVENTS);
        Self { store, appended, read, from, behind, page: VecDeque::new() }
    }

    /// The next event that is not skipped.
    async fn next(&mut self, skipped: &BTreeSet<Position>) -> RecordedEvent {
        loop {
            if let Some(event) = self.page.pop_front() {
                return event;
            }
            // Before the read: an append from now on ends the wait.
            self.appended.mark_unchanged();
            let page = self.store.log().read(&self.read.clone().from(self.from));
            match page.last() {
                Some(last) => self.from = (self.behind)(last),
                // The store, and so the sender, lives as long as its follower.
                None => drop(self.appended.changed().await),
            }
            let is_wanted = |event: &RecordedEvent| !skipped.contains(&event.position);
            self.page = page.into_iter().filter(is_wanted).collect();
        }
    }
}
