//! Retries: quarantine entries whose events can be published now continue from cursors of their
//! own.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use annals_store::Position;
use annals_store::outbox::{Bound, NextPage, OutboxEvent, PageLimit, PositionRange, Window};

use crate::model::checkpoint::{Cursor, EntryId};
use crate::model::quarantine::{Cause, Entry, EntryState, Kind, ShardCursor, category_of};
use crate::publish::page_builder::{PageBuilder, RetriedCategory};
use crate::publish::reader::{Reader, ReaderParts};
use crate::publish::rows::{RowsRead, collect};
use crate::publish::step_limit::StepLimit;
use crate::report::failure::Failure;

/// The interval at which the topic of a quarantined category is checked.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The interval at which the registry is asked for the ids that quarantined categories wait for.
const REGISTRY_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The window of an entry.
#[derive(Clone, Copy)]
struct EntryWindow<'a> {
    shard: &'a ShardCursor,
    name: &'a (Kind, String),
    entry: &'a Entry,
    until: &'a Bound,
}

impl Reader {
    /// Reads the events of entries that are to be retried, as far as there is room: half of the
    /// batch and of the time for all of them.
    pub(super) async fn retry_quarantined(
        &mut self,
        shards: &mut [ShardCursor],
        page: &mut PageBuilder,
    ) -> Result<(), Failure> {
        if shards.iter().all(|shard| shard.quarantine.is_empty()) {
            return Ok(());
        }
        self.check_topics(shards);
        self.check_registry(shards);
        page.share(2);
        for shard in shards {
            let mut names: Vec<(EntryId, (Kind, String))> = shard
                .quarantine
                .iter()
                .filter(|(_, entry)| self.is_retried(entry.id))
                .map(|(name, entry)| (entry.id, name.clone()))
                .collect();
            names.sort();
            for (_, name) in names {
                self.retry(shard, &name, page).await?;
            }
        }
        Ok(())
    }

    fn is_retried(&self, entry: EntryId) -> bool {
        self.requests.retry_requested(entry) || self.ready.contains(&entry)
    }

    /// Advances one entry as far as there is room.
    async fn retry(
        &mut self,
        shard: &mut ShardCursor,
        name: &(Kind, String),
        page: &mut PageBuilder,
    ) -> Result<(), Failure> {
        // A stream waits for its quarantined category.
        let category = category_of(&name.1);
        if name.0 == Kind::Stream && shard.quarantine.has(Kind::Category, category) {
            return Ok(());
        }
        let mut step = 0;
        while let Some(entry) = shard.quarantine.get(name).cloned() {
            if page.waits {
                page.has_more = true;
                return Ok(());
            }
            let after = entry.cursor.after;
            // Otherwise the shard would meet the next event without an id, and quarantine it again.
            if shard.is_caught_up(&entry.cursor) && self.lacks_id(name, &entry) {
                return Ok(());
            }
            let cursor = if shard.is_caught_up(&entry.cursor) {
                entry.cursor.clone()
            } else if page.is_over() {
                page.has_more = true;
                return Ok(());
            } else if let Some(until) = shard.window_of(&entry).cloned() {
                let window = EntryWindow { shard, name, entry: &entry, until: &until };
                page.retried = self.retried(&window);
                self.entry_page(&window, &mut step, page).await?
            } else {
                return Ok(());
            };
            if page.retried.take().is_some_and(|retried| retried.still_waits) {
                shard.quarantine.advance(name, cursor, EntryState::Ahead);
                page.collector.touch(shard.shard());
                self.ready.remove(&entry.id);
                self.without_id.insert(entry.id);
                return Ok(());
            }
            if page.waits && cursor.after <= after {
                page.has_more = true;
                return Ok(());
            }
            let has_ended = shard.is_caught_up(&cursor) && !self.lacks_id(name, &entry);
            let state = if has_ended { EntryState::Ended } else { EntryState::Ahead };
            shard.quarantine.advance(name, cursor, state);
            // The checkpoint has the progress, also if there was no event left.
            page.collector.touch(shard.shard());
        }
        Ok(())
    }

    /// Reads one statement's worth of the window of an entry; returns the cursor after it, and the
    /// number of positions that the next statement wants.
    async fn entry_page(
        &mut self,
        of: &EntryWindow<'_>,
        step: &mut i64,
        page: &mut PageBuilder,
    ) -> Result<Cursor, Failure> {
        let EntryWindow { entry, until, .. } = *of;
        let window = Window { since: &entry.cursor.since, until };
        let late = self.late(window).await?;
        // The whole rest of the window is behind this position.
        let after = match window.next_page(late.as_ref(), entry.cursor.after) {
            NextPage::OfPositions([first, ..]) => first.before(),
            NextPage::ByPosition(PositionRange { after, .. }) => after,
            NextPage::OfPositions([]) | NextPage::End => return Ok(Cursor::done(until)),
        };
        let room = page.collector.room(self.event_bytes);
        let room = i64::try_from(room.get()).unwrap_or(i64::MAX);
        *step = self.steps.begin(room.max(*step));
        let (read, end) = self.entry_stretch(of, (after, *step), page).await?;
        self.steps.ended();
        *step = StepLimit::next(*step, read.events, room);
        if !read.is_cut && end == until.position {
            return Ok(Cursor::done(until));
        }
        let last = if read.is_cut { read.last.unwrap_or(after) } else { end };
        Ok(entry.cursor.within(until, last))
    }

    /// Reads so many positions of the window of an entry, or so many events of a stream, as far as
    /// there is room; returns the position up to which it has read all.
    async fn entry_stretch(
        &mut self,
        of: &EntryWindow<'_>,
        (after, step): (Position, i64),
        page: &mut PageBuilder,
    ) -> Result<(RowsRead, Position), Failure> {
        let EntryWindow { shard, name: (kind, name), entry, until } = *of;
        let window = Window { since: &entry.cursor.since, until };
        let room = page.collector.room(self.event_bytes);
        let events_max = usize::try_from(step).ok().and_then(NonZeroUsize::new);
        let events_max = room.min(events_max.unwrap_or(room));
        let ReaderParts { store, encoder, connection, skipped } = self.parts().await?;
        let (read, last) = match kind {
            Kind::Stream => {
                let limits = PageLimit { after, events_max };
                let rows = store.outbox_page_of_stream(connection, window, name, limits);
                (collect(rows, encoder, skipped, page, |_| false).await?, until.position)
            }
            Kind::Category => {
                let last = until.position.min(after.saturating_add(step));
                let limits = (PositionRange { after, last }, events_max);
                let category = (name.as_str(), shard.shard());
                let rows = store.outbox_page_of_category(connection, window, category, limits);
                // A stream with an entry of its own continues from its own cursor.
                let is_left_out =
                    |event: &OutboxEvent<'_>| shard.quarantine.has(Kind::Stream, event.stream);
                (collect(rows, encoder, skipped, page, is_left_out).await?, last)
            }
        };
        self.rows_read(&read, events_max.get());
        // Fewer than there was room for: these were all.
        let is_all = read.events < events_max.get();
        let end = if is_all { last } else { read.last.unwrap_or(after) };
        Ok((read, end))
    }

    /// Whether a category waits for an id that the registry has not given.
    fn lacks_id(&self, (kind, name): &(Kind, String), entry: &Entry) -> bool {
        let is_of_registry = *kind == Kind::Category && entry.cause == Cause::Registry;
        is_of_registry && !self.encoder.has_schema_id(name)
    }

    /// The category of an entry that is retried without the request of an operator, who would see
    /// the result of the attempt.
    fn retried(&self, of: &EntryWindow<'_>) -> Option<RetriedCategory> {
        let (kind, name) = of.name;
        let is_by_itself = *kind == Kind::Category && !self.requests.retry_requested(of.entry.id);
        is_by_itself.then(|| RetriedCategory { name: name.clone(), still_waits: false })
    }

    /// Asks the registry for the ids that quarantined categories wait for: once it has answered,
    /// they are retried.
    fn check_registry(&mut self, shards: &[ShardCursor]) {
        let mut categories = categories_of(shards, Cause::Registry);
        categories.retain(|_, entries| !entries.iter().all(|entry| self.is_retried(*entry)));
        for (category, entries) in &categories {
            if self.encoder.has_schema_id(category) {
                self.ready.extend(entries);
            } else {
                // The events before the first one without an id are published.
                let blocked = &self.without_id;
                self.ready.extend(entries.iter().filter(|entry| !blocked.contains(*entry)));
            }
        }
        let now = Instant::now();
        let is_due = |at: &Instant| now - *at >= REGISTRY_CHECK_INTERVAL;
        // While the registry answers, all of them are asked for, each at this interval.
        if self.encoder.is_registry_unavailable()
            && !self.registry_checked.as_ref().is_none_or(is_due)
        {
            return;
        }
        let is_category_due = |category: &&String| self.checked.get(*category).is_none_or(is_due);
        let mut due: Vec<&String> = categories.keys().filter(is_category_due).collect();
        due.sort_by_key(|category| self.checked.get(*category));
        for category in self.encoder.ask_again(due.into_iter()) {
            self.checked.insert(category.clone(), now);
            self.registry_checked = Some(now);
        }
    }

    /// Checks the topics of quarantined categories, beside publishing: once a topic can be written
    /// to, its category is retried.
    fn check_topics(&mut self, shards: &[ShardCursor]) {
        let categories = categories_of(shards, Cause::Topic);
        for (category, entries) in &categories {
            match self.encoder.checked_topic(category) {
                Some(Ok(())) => self.ready.extend(entries),
                Some(Err(failure)) => {
                    let error = failure.in_full();
                    tracing::debug!(
                        event = "category_still_quarantined",
                        category,
                        error,
                        "the category stays in quarantine"
                    );
                }
                None => {}
            }
        }
        let due = self.due_topics(&categories);
        if !due.is_empty() {
            let now = Instant::now();
            self.checked.extend(due.iter().map(|category| (category.clone(), now)));
            self.encoder.check_topics(&due);
        }
    }

    /// The categories whose topics are to be checked now.
    fn due_topics(&self, categories: &BTreeMap<String, Vec<EntryId>>) -> BTreeSet<String> {
        let due = categories.iter().filter(|(category, entries)| {
            let checked = self.checked.get(*category);
            let is_due = checked.is_none_or(|at| at.elapsed() >= TOPIC_CHECK_INTERVAL);
            is_due && !entries.iter().all(|entry| self.is_retried(*entry))
        });
        due.map(|(category, _)| category.clone()).collect()
    }
}

/// The categories in quarantine for this cause, with their entries.
fn categories_of(shards: &[ShardCursor], cause: Cause) -> BTreeMap<String, Vec<EntryId>> {
    let mut categories: BTreeMap<String, Vec<EntryId>> = BTreeMap::new();
    for shard in shards {
        let entries = shard.quarantine.iter();
        let entries =
            entries.filter(|((kind, _), entry)| *kind == Kind::Category && entry.cause == cause);
        for ((_, name), entry) in entries {
            categories.entry(name.clone()).or_default().push(entry.id);
        }
    }
    categories
}
