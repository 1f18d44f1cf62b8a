//! Reads in progress: the page in memory, and the query for the next one.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use jiff::Timestamp;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row, SqlStr};

use crate::error::Error;
use crate::event::RecordedEvent;
use crate::read::query::sealed::PageKey;
use crate::read::query::{Key, Read, sealed};
use crate::read::removed_events::RemovedEvents;
use crate::read::rows::{PAGE_BYTES, decode_rows, is_full};
use crate::read::stream_page::{PageStart, StreamPage};
use crate::read::stretch::Stretch;
use crate::store::Store;
use crate::stream::{Category, Position, Version};
use crate::telemetry;
use crate::timestamptz::PgTimestamp;

/// Maximum number of events of the first page: many readers take few events.
const PAGE_EVENTS_FIRST: u32 = 100;
/// Maximum number of events of a later page.
const PAGE_EVENTS_MAX: u32 = 1_000;

/// A read in progress.
pub(crate) struct Reading<K> {
    store: Store,
    read: Read<K>,
    statement: SqlStr,
    page: VecDeque<RecordedEvent>,
    /// The error after the page.
    unreadable: Option<Error>,
    page_events: u32,
    /// Version or position of the last event read; none before the first page.
    last: Option<PageKey>,
    /// How many positions the next page looks through for the types.
    stretch: Stretch,
    /// Removed events up to here are counted; none before the first page.
    counted: Option<PageKey>,
    /// The lowest version or position that can have been recorded since the requested time.
    lowest: PageKey,
    /// The version of the stream's last event, removed or not.
    stream_version: Option<Version>,
    /// Removed events behind the last event read.
    removed_behind: u64,
    remaining: u64,
    is_at_end: bool,
}

impl<K: Key> Reading<K> {
    pub(crate) fn new(store: &Store, read: Read<K>) -> Self {
        Self {
            store: store.clone(),
            statement: read.statement(store),
            page: VecDeque::new(),
            unreadable: None,
            page_events: PAGE_EVENTS_FIRST,
            last: None,
            stretch: Stretch::FIRST,
            counted: None,
            lowest: <K as sealed::ToPageKey>::FIRST,
            stream_version: None,
            removed_behind: 0,
            remaining: read.events_max,
            is_at_end: false,
            read,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<RecordedEvent>, Error> {
        if self.remaining == 0 {
            return Ok(None);
        }
        while self.page.is_empty() {
            if let Some(error) = self.unreadable.take() {
                return Err(error);
            }
            if self.is_at_end {
                break;
            }
            self.read_page().await?;
        }
        let event = self.page.pop_front();
        self.remaining -= u64::from(event.is_some());
        Ok(event)
    }

    #[tracing::instrument(
        name = "read_page",
        level = "debug",
        skip_all,
        fields(source = self.read.source_text(), events)
    )]
    async fn read_page(&mut self) -> Result<(), Error> {
        let started_at = Instant::now();
        let start = self.page_start().await?;
        self.counted.get_or_insert(start);
        if self.is_stretched() && start == PageKey::END {
            self.is_at_end = true;
            return self.pass(start).await;
        }
        let rows_max = self.page_events.min(u32::try_from(self.remaining).unwrap_or(u32::MAX));
        let (rows, end) = self.rows(start, rows_max).await?;
        if K::IS_POSITION {
            self.set_page(&rows, start, rows_max).await?;
            self.count_removed(start).await?;
            if self.is_at_end && self.is_stretched() && self.unreadable.is_none() {
                self.pass(end).await?;
            }
        } else {
            self.set_stream_page(&rows, start, rows_max).await?;
        }
        telemetry::page_read(started_at, self.page.len());
        self.page_events = PAGE_EVENTS_MAX;
        Ok(())
    }

    /// The rows of a page, and the last position at which they can be.
    async fn rows(
        &mut self,
        start: PageKey,
        rows_max: u32,
    ) -> Result<(Vec<PgRow>, PageKey), Error> {
        loop {
            let end = self.end_of_stretch(start);
            let started_at = Instant::now();
            let query = self.page_query(start, rows_max, self.read.types.as_deref());
            let query = self.bound_by(query.bind(self.read.recorded_since.map(PgTimestamp)), end);
            let rows = self.store.within_deadline(query.fetch_all(self.store.pool())).await;
            let is_stretched = self.is_stretched();
            let rows = match rows {
                Err(error) if is_stretched && self.stretch.is_shortened_after(&error) => continue,
                rows => rows.map_err(Error::database("read events"))?,
            };
            if is_stretched {
                self.stretch.passed(started_at.elapsed());
            }
            return Ok((rows, end));
        }
    }

    /// The first arguments of the statement of a page.
    fn page_query(
        &self,
        start: PageKey,
        rows_max: u32,
        types: Option<&[String]>,
    ) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(self.statement.clone())
            .bind(self.read.source_text())
            .bind(start)
            .bind(i64::from(rows_max))
            .bind(types.map(<[String]>::to_vec))
    }

    /// The last arguments: where the page ends is one of a category and of all events, and of each
    /// read backwards by position.
    fn bound_by(
        &self,
        query: Query<'static, Postgres, PgArguments>,
        end: PageKey,
    ) -> Query<'static, Postgres, PgArguments> {
        let query = query.bind(PAGE_BYTES);
        let is_bound = self.read.is_backwards || self.read.whole_category().is_some();
        if K::IS_POSITION && is_bound { query.bind(end) } else { query }
    }

    /// Whether the server can have to look through many events for one of the types.
    fn is_stretched(&self) -> bool {
        self.read.types.is_some() && self.read.whole_category().is_some()
    }

    /// The last position of the stretch that begins behind `start`.
    fn end_of_stretch(&self, start: PageKey) -> PageKey {
        let positions = self.stretch.positions();
        match (self.read.is_backwards, self.is_stretched()) {
            (true, true) => self.lowest.max(start.shifted(-positions)),
            (true, false) => self.lowest,
            (false, true) => start.shifted(positions),
            (false, false) => PageKey::END,
        }
    }

    /// Continues with the next event of any type behind the end of a stretch; ends the read if
    /// there is none.
    async fn pass(&mut self, end: PageKey) -> Result<(), Error> {
        let is_backwards = self.read.is_backwards;
        let last = if is_backwards { self.lowest } else { PageKey::END };
        let any_time: Option<PgTimestamp> = None;
        let query = self.bound_by(self.page_query(end, 1, None).bind(any_time), last);
        let next = self.store.within_deadline(query.fetch_optional(self.store.pool())).await;
        let next = next.and_then(|row| row.map(|row| row.try_get("position")).transpose());
        let next: Option<PageKey> = next.map_err(Error::database("read events"))?;
        let Some(next) = next else { return Ok(()) };
        self.is_at_end = false;
        self.last = Some(if is_backwards { next.next() } else { next.before() });
        Ok(())
    }

    async fn set_page(
        &mut self,
        rows: &[PgRow],
        start: PageKey,
        rows_max: u32,
    ) -> Result<(), Error> {
        let decoded = decode_rows(&self.store, rows, &BTreeSet::new()).await?;
        (self.page, self.unreadable) = (decoded.events, decoded.unreadable);
        self.last = Some(self.page.back().map_or(start, <K as sealed::ToPageKey>::of));
        self.is_at_end = u32::try_from(self.page.len()) != Ok(rows_max) && !is_full(rows)?;
        Ok(())
    }

    /// Counts the removed events before each event of the page. Those with a correlation id,
    /// a causation id or a tag are not known.
    async fn count_removed(&mut self, start: PageKey) -> Result<(), Error> {
        let start = self.counted.unwrap_or(start);
        let (Some(category), Some(last)) = (self.read.whole_category(), self.page.back()) else {
            return Ok(());
        };
        self.counted = Some(sealed::ToPageKey::key(last.position));
        let (last, is_backwards) = (sealed::ToPageKey::key(last.position), self.read.is_backwards);
        let (after, last) =
            if is_backwards { (last.before(), start.before()) } else { (start, last) };
        let category = category.map(Category::as_str);
        let removed = self.store.removed_events((after, last), category, &self.read).await?;
        let removed = match is_backwards {
            true => RemovedEvents::backwards(removed),
            false => RemovedEvents::forwards(removed),
        };
        self.removed_behind = removed.count(&mut self.page, self.removed_behind);
        Ok(())
    }

    /// Counts removed events, too.
    async fn set_stream_page(
        &mut self,
        rows: &[PgRow],
        start: PageKey,
        rows_max: u32,
    ) -> Result<(), Error> {
        let is_backwards = self.read.is_backwards;
        let start = PageStart { version: start, is_backwards, removed_before: self.removed_behind };
        let page = StreamPage::decode(&self.store, rows, start).await?;
        (self.page, self.unreadable) = (page.events, page.unreadable);
        self.last = Some(page.end.unwrap_or(start.version));
        self.is_at_end = page.scanned < u64::from(rows_max) && !page.is_cut;
        self.removed_behind = page.removed_behind;
        self.stream_version = page.stream_version;
        Ok(())
    }

    /// The version or position after which the page starts, or before which in a backwards read.
    async fn page_start(&mut self) -> Result<PageKey, Error> {
        if let Some(last) = self.last {
            return Ok(last);
        }
        if K::IS_POSITION
            && let Some(time) = self.read.recorded_since
        {
            self.lowest = sealed::ToPageKey::key(position_at(&self.store, time).await?);
        }
        let from = self.read.from.map(sealed::ToPageKey::key);
        Ok(if self.read.is_backwards {
            from.map_or(PageKey::END, PageKey::next)
        } else {
            from.map_or(self.lowest, |from| from.max(self.lowest)).before()
        })
    }
}

/// The position from which a forward read misses no event recorded at `time` or later.
async fn position_at(store: &Store, time: Timestamp) -> Result<Position, Error> {
    let position = sqlx::query_scalar(store.statements().position_at.clone())
        .bind(PgTimestamp(time))
        .fetch_one(store.pool());
    store.within_deadline(position).await.map_err(Error::database("find the position of a time"))
}

impl Reading<Version> {
    /// The version of the stream's last event, removed or not, when the last page was read.
    pub(crate) const fn end(&self) -> Option<Version> {
        self.stream_version
    }
}
