//! The follower of the log, which reads it window by window.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use uuid::Uuid;

use super::checkpoint::{Checkpoint, Filter};
use super::evidence::verify;
use super::poll::{PollTimer, Polled};
use super::request::{Follow, Followed};
use crate::error::Error;
use crate::event::RecordedEvent;
use crate::outbox::{Bound, LateEvents, LogEnd, NextPage, PositionRange, Window};
use crate::read::removed_events::RemovedEvents;
use crate::read::rows::{DecodedRows, PAGE_BYTES, decode_rows, is_full};
use crate::read::stretch::Stretch;
use crate::store::Store;
use crate::stream::Position;
use crate::telemetry;

/// Maximum number of events of a page, which a follower keeps in memory.
pub(super) const PAGE_EVENTS: i64 = 500;

/// The events of a page.
#[derive(Debug)]
pub(crate) struct FollowedPage {
    pub(crate) events: Vec<RecordedEvent>,
    /// The checkpoint after each of them.
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// The checkpoint after the page: also events that the follower excludes can be before it.
    pub(crate) reached: Checkpoint,
}

/// A follower in progress.
pub(crate) struct Follower {
    store: Store,
    filter: Arc<Filter>,
    /// The checkpoint after all events of `page`; none before the first poll.
    checkpoint: Option<Checkpoint>,
    page: VecDeque<Followed>,
    /// The late events of the window between these bounds.
    late: Option<([Arc<Bound>; 2], Option<LateEvents>)>,
    /// The end of the log at the last poll.
    log_end: Option<LogEnd>,
    /// Removed events behind the last event of `page`.
    removed_behind: u64,
    /// How many positions the next page looks through.
    stretch: Stretch,
    /// Positions that the application skips.
    skipped: BTreeSet<Position>,
    /// The error after the page.
    unreadable: Option<Error>,
    timer: PollTimer,
}

impl Follower {
    pub(crate) fn new(store: &Store, follow: Follow) -> Self {
        let Follow { category, types, skipped, after, poll_idle_max } = follow;
        let category = category.map(|category| category.as_str().to_owned());
        Self {
            store: store.clone(),
            filter: Arc::new(Filter { category, types }),
            checkpoint: after,
            page: VecDeque::new(),
            late: None,
            log_end: None,
            removed_behind: 0,
            unreadable: None,
            stretch: Stretch::FIRST,
            skipped,
            timer: PollTimer::new(store.notifications().subscribe(), poll_idle_max),
        }
    }

    pub(super) async fn next(&mut self) -> Result<Followed, Error> {
        loop {
            if let Some(followed) = self.page.pop_front() {
                return Ok(followed);
            }
            if let Some(error) = self.unreadable.take() {
                return Err(error);
            }
            self.timer.before_poll();
            let polled = self.poll().await?;
            self.timer.after_poll(polled).await;
        }
    }

    /// The next page with events, or one without any, if the checkpoint advances over others.
    pub(crate) async fn next_page(&mut self) -> Result<FollowedPage, Error> {
        loop {
            if let Some(page) = self.take_page()? {
                return Ok(page);
            }
            let before = self.checkpoint.clone();
            self.timer.before_poll();
            let polled = self.poll().await?;
            self.timer.after_poll(polled).await;
            // A follower that starts before removed events counts them.
            let is_empty = self.page.is_empty() && self.removed_behind == 0;
            if let Some(reached) = self.checkpoint.clone().filter(|_| is_empty)
                && before.is_some_and(|before| before != reached)
            {
                return Ok(FollowedPage { events: Vec::new(), checkpoints: Vec::new(), reached });
            }
        }
    }

    /// The next page with events; none, and the checkpoint there, at the present end of the log.
    pub(crate) async fn next_page_to_end(
        &mut self,
    ) -> Result<Result<FollowedPage, Checkpoint>, Error> {
        loop {
            if let Some(page) = self.take_page()? {
                return Ok(Ok(page));
            }
            if self.poll().await? == Polled::Nothing
                && let Some(reached) = self.checkpoint.clone()
            {
                return Ok(Err(reached));
            }
        }
    }

    /// The page that was read, if it has events.
    fn take_page(&mut self) -> Result<Option<FollowedPage>, Error> {
        let Some(last) = self.page.back() else {
            return self.unreadable.take().map_or(Ok(None), Err);
        };
        let reached = last.checkpoint.clone();
        let followed = self.page.drain(..);
        let (events, checkpoints) =
            followed.map(|followed| (followed.event, followed.checkpoint)).unzip();
        Ok(Some(FollowedPage { events, checkpoints, reached }))
    }

    /// Reads the next page.
    async fn poll(&mut self) -> Result<Polled, Error> {
        // The snapshot is taken in an earlier statement than the one that reads the events.
        let end = read_log_end(&self.store).await?;
        let checkpoint = match self.checkpoint.clone() {
            Some(checkpoint) => self.verified(checkpoint, &end).await?,
            None => Checkpoint::at(Arc::new(end.history.clone()), Arc::new(Bound::origin())),
        };
        let now = end.bound.clone();
        self.log_end = Some(end);
        if checkpoint.until.is_none() && checkpoint.since.is_equivalent_to(&now) {
            self.checkpoint = Some(checkpoint);
            return Ok(Polled::Nothing);
        }
        let until = checkpoint.until.clone().unwrap_or_else(|| Arc::new(now));
        self.read_page(Checkpoint { until: Some(until), ..checkpoint }).await?;
        let is_inside = self.checkpoint.as_ref().is_some_and(|reached| reached.until.is_some());
        let is_more = is_inside || !self.page.is_empty() || self.unreadable.is_some();
        Ok(if is_more { Polled::Something } else { Polled::Nothing })
    }

    /// The checkpoint in the current history, after all events before it are known to be present.
    async fn verified(&self, checkpoint: Checkpoint, end: &LogEnd) -> Result<Checkpoint, Error> {
        let is_the_same = |known: &LogEnd| {
            known.incarnation == end.incarnation && !end.bound.is_behind(&known.bound)
        };
        if self.log_end.as_ref().is_some_and(is_the_same) {
            return Ok(checkpoint);
        }
        if checkpoint.history.store_id != end.history.store_id {
            let (of, found) = (Box::new((*checkpoint.history).clone()), end.history.clone());
            return Err(Error::OtherStore { checkpoint: of, found: Box::new(found) });
        }
        verify(&self.store, &checkpoint, end).await?;
        Ok(Checkpoint { history: Arc::new(end.history.clone()), ..checkpoint })
    }

    /// The late events of the window that a checkpoint is in.
    async fn late(&mut self, checkpoint: &Checkpoint) -> Result<Option<LateEvents>, Error> {
        let Some(until) = &checkpoint.until else { return Ok(None) };
        let since = &checkpoint.since;
        let is_of = |of: &[Arc<Bound>; 2]| Arc::ptr_eq(&of[0], since) && Arc::ptr_eq(&of[1], until);
        if let Some((_, late)) = self.late.as_ref().filter(|(of, _)| is_of(of)) {
            return Ok(late.clone());
        }
        let acquired = self.store.pool().acquire().await;
        let mut connection = acquired.map_err(Error::database("read the log"))?;
        let late = self.store.late_events(&mut connection, since).await?;
        self.late = Some(([Arc::clone(since), Arc::clone(until)], late.clone()));
        Ok(late)
    }

    #[tracing::instrument(
        name = "follow_page",
        level = "debug",
        skip_all,
        fields(category = self.filter.category, events)
    )]
    async fn read_page(&mut self, checkpoint: Checkpoint) -> Result<(), Error> {
        let late = self.late(&checkpoint).await?;
        let late = late.as_ref();
        let start = checkpoint.after;
        let Some(window) = checkpoint.window() else { return Ok(()) };
        let (rows, end) = self.rows(window, window.next_page(late, checkpoint.after)).await?;
        let is_full = i64::try_from(rows.len()) == Ok(PAGE_EVENTS) || is_full(&rows)?;
        let mut reached = self.set_page(checkpoint, &rows).await?;
        if !is_full && self.unreadable.is_none() {
            reached.after = end;
        }
        self.count_removed(&reached, start).await?;
        if !is_full && self.unreadable.is_none() {
            let next = reached.window().map(|window| window.next_page(late, end));
            if next == Some(NextPage::End) {
                reached = reached.at_window_end();
            }
        }
        let events = self.page.len();
        if let Some(last) = self.page.back_mut() {
            let category = self.filter.category.as_deref().unwrap_or_default();
            telemetry::followed(category, events, last.event.recorded_at);
            // The checkpoint stays before an unreadable event, and before removed events, so that a
            // follower that starts from it counts them.
            if self.unreadable.is_none() && self.removed_behind == 0 {
                last.checkpoint = reached.clone();
            }
        }
        self.checkpoint = Some(reached);
        Ok(())
    }

    /// Sets the page to the events of these rows; returns the checkpoint after them.
    async fn set_page(&mut self, start: Checkpoint, rows: &[PgRow]) -> Result<Checkpoint, Error> {
        let decoded = decode_rows(&self.store, rows, &self.skipped).await?;
        let DecodedRows { mut events, unreadable } = decoded;
        self.unreadable = unreadable;
        let mut reached = start;
        for row in rows {
            let (position, id) = position_and_id(row).map_err(Error::database("read the log"))?;
            let is_next = events.front().is_some_and(|event| event.position == position);
            let event = if is_next { events.pop_front() } else { None };
            // The checkpoint advances over skipped events.
            if event.is_none() && !self.skipped.contains(&position) {
                break;
            }
            reached = reached.after_event(position, id, &self.filter);
            let checkpoint = reached.clone();
            self.page.extend(event.map(|event| Followed { event, checkpoint }));
        }
        Ok(reached)
    }

    /// Counts the removed events before each event of the page, which starts after a position of
    /// the window and ends where the checkpoint is.
    async fn count_removed(&mut self, end: &Checkpoint, start: Position) -> Result<(), Error> {
        let Some(window) = end.window() else { return Ok(()) };
        let statement = self.store.statements().follow_removed_events.clone();
        let rows = window
            .bind_to(statement, start)
            .bind(end.after.get())
            .bind(self.filter.category.as_deref())
            .fetch_all(self.store.pool());
        let rows = self.store.within_deadline(rows).await;
        let rows = rows.map_err(Error::database("count removed events"))?;
        let removed = rows.iter().map(|row| row.try_get("position"));
        let removed: Result<_, _> = removed.collect();
        let removed = removed.map_err(Error::database("count removed events"))?;
        let events = self.page.iter_mut().map(|followed| &mut followed.event);
        self.removed_behind = RemovedEvents::forwards(removed).count(events, self.removed_behind);
        Ok(())
    }

    /// The rows of a page, and the position where the page ends.
    async fn rows(
        &mut self,
        window: Window<'_>,
        page: NextPage<'_>,
    ) -> Result<(Vec<PgRow>, Position), Error> {
        loop {
            let stretch = self.within_stretch(window, page);
            let Some((query, end)) = self.query(window, stretch) else {
                return Ok((Vec::new(), window.until.position));
            };
            let started_at = Instant::now();
            let rows = self.store.within_deadline(query.fetch_all(self.store.pool())).await;
            let rows = match rows {
                Err(error) if stretch != page && self.stretch.is_shortened_after(&error) => {
                    continue;
                }
                rows => rows.map_err(Error::database("read the log"))?,
            };
            if stretch != page {
                self.stretch.passed(started_at.elapsed());
            }
            return Ok((rows, end));
        }
    }

    /// The page, or the first stretch of it where the server can have to look through many events
    /// for one that belongs to it: those of other types, and those that were visible before the
    /// window.
    fn within_stretch<'a>(&self, window: Window<'_>, page: NextPage<'a>) -> NextPage<'a> {
        match page {
            NextPage::ByPosition(PositionRange { after, last })
                if self.filter.types.is_some() || after < window.since.position =>
            {
                let last = last.min(after.saturating_add(self.stretch.positions()));
                NextPage::ByPosition(PositionRange { after, last })
            }
            page => page,
        }
    }

    /// The statement of a page, and the position where the page ends; none behind the last page.
    fn query(
        &self,
        window: Window<'_>,
        page: NextPage<'_>,
    ) -> Option<(Query<'static, Postgres, PgArguments>, Position)> {
        let statements = self.store.statements();
        let Filter { category, types } = &*self.filter;
        let (query, end) = match page {
            NextPage::End => return None,
            NextPage::OfPositions(positions) => {
                let few = positions.len().min(usize::try_from(PAGE_EVENTS).unwrap_or(usize::MAX));
                let end = *positions.get(few.checked_sub(1)?)?;
                let query = window.bind_bounds_to(statements.follow_page_of_positions.clone());
                (query.bind(positions[..few].to_vec()), end)
            }
            NextPage::ByPosition(PositionRange { after, last }) => {
                let until = Bound { position: last, ..window.until.clone() };
                let window = Window { until: &until, ..window };
                let statement = match category {
                    Some(_) => statements.follow_page_of_category.clone(),
                    None => statements.follow_page_of_all.clone(),
                };
                (window.bind_to(statement, after), last)
            }
        };
        let query = query.bind(types.clone()).bind(category.clone());
        Some((query.bind(PAGE_EVENTS).bind(PAGE_BYTES), end))
    }
}

pub(super) async fn read_log_end(store: &Store) -> Result<LogEnd, Error> {
    let acquired = store.pool().acquire().await;
    let mut connection = acquired.map_err(Error::database("read the end of the log"))?;
    store.log_end(&mut connection).await
}

fn position_and_id(row: &PgRow) -> Result<(Position, Uuid), sqlx::Error> {
    Ok((row.try_get("position")?, row.try_get("event_id")?))
}
