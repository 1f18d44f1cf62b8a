//! Following: everything from a checkpoint on, then live, without loss, inversion or stall.
//!
//! The log is read window by window: what became visible between two snapshots, in position order. The
//! first window of a follower that begins at the beginning is all of history, and is read by the same rule.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, TryStreamExt, try_unfold};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tokio::sync::watch;
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, Filter, Passed};
use crate::error::Error;
use crate::event::RecordedEvent;
use crate::outbox::{Bound, Late, LogEnd, PositionPage, Stretch, Window};
use crate::read::Read;
use crate::rows::{Recorded, recorded};
use crate::store::Store;
use crate::stream::{Category, Position, StreamName, Version};
use crate::telemetry;

/// Most events of a page: what a follower holds in memory.
const PAGE_EVENTS: i64 = 500;
/// The first pause of a follower that finds nothing; doubled from there.
const POLL_MIN: Duration = Duration::from_millis(1);
/// Longest time between two looks at the log, unless set otherwise.
const POLL_IDLE_MAX: Duration = Duration::from_millis(100);

/// What to follow, and from where: built up, then given to [`Store::follow`].
#[derive(Debug, Clone)]
pub struct Follow {
    category: Option<Category>,
    types: Option<Vec<String>>,
    after: Option<Checkpoint>,
    passed: BTreeSet<Position>,
    poll_idle_max: Duration,
}

impl Follow {
    /// Every event, from the first one ever recorded.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            category: None,
            types: None,
            after: None,
            passed: BTreeSet::new(),
            poll_idle_max: POLL_IDLE_MAX,
        }
    }

    /// Every event of a category, from the first one ever recorded.
    #[must_use]
    pub fn category(category: &Category) -> Self {
        Self { category: Some(category.clone()), ..Self::all() }
    }

    /// Goes on after a checkpoint.
    #[must_use]
    pub fn after(mut self, checkpoint: Checkpoint) -> Self {
        self.after = Some(checkpoint);
        self
    }

    /// Leaves out events of other types than these.
    #[must_use]
    pub fn of_types(mut self, types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.types = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Leaves out the events at these positions: those that cannot be read, as
    /// [`Error::UnreadableEvent`] says, and that somebody has decided to do without.
    #[must_use]
    pub fn passing(mut self, positions: impl IntoIterator<Item = Position>) -> Self {
        self.passed.extend(positions);
        self
    }

    /// Longest time between two looks at the log when nothing comes; 100 ms unless set. A look is one small
    /// query. The hint of an append wakes the follower before that, where it arrives.
    #[must_use]
    pub const fn poll_idle_max(mut self, pause: Duration) -> Self {
        self.poll_idle_max = pause;
        self
    }
}

/// An event, and where the follower stands after it.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The event.
    pub event: RecordedEvent,
    /// Everything up to this event is behind the follower.
    pub checkpoint: Checkpoint,
}

impl Store {
    /// Follows the log: every event after the checkpoint, then every event as it is committed, for ever.
    ///
    /// Each event comes once, the events of a stream in version order, whatever other transactions are open
    /// meanwhile; a transaction that is left open holds back its own events only. Across streams the order is
    /// that of positions within what became visible together. Memory is bounded by a page of 500 events.
    ///
    /// # Errors
    /// Items are [`Error::UnreadableEvent`] for one that is not what an append writes, after all events before it,
    /// [`Error::OtherHistory`] when something that was passed is not there any more, [`Error::OtherStore`] and
    /// [`Error::OtherCluster`], and other [`Error`]s when a page cannot be read. The stream ends there: follow again from the
    /// last checkpoint, when [`Error::is_retryable`] says that this can help.
    ///
    /// ```
    /// # use std::pin::pin;
    /// # use annals_store::{Append, Checkpoint, ExpectedVersion, Follow};
    /// # use annals_testkit::{account, deposited, opened};
    /// # use futures_util::TryStreamExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bed = annals_testkit::Testbed::new("doc_follow").await;
    /// # let store = bed.store();
    /// # let append = Append::to(&account(1), ExpectedVersion::Any, [opened("Ann"), deposited(1)]);
    /// # store.append(&append).await?;
    /// let mut log = pin!(store.follow(Follow::all()));
    /// let first = log.try_next().await?.ok_or("a log has no end")?;
    /// // To be kept with what the event was turned into, in the same transaction.
    /// let kept: String = serde_json::to_string(&first.checkpoint)?;
    ///
    /// // After a restart.
    /// let checkpoint: Checkpoint = serde_json::from_str(&kept)?;
    /// let mut log = pin!(store.follow(Follow::all().after(checkpoint)));
    /// let second = log.try_next().await?.ok_or("a log has no end")?;
    /// assert_eq!(second.event.version, first.event.version.next());
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow(
        &self,
        follow: Follow,
    ) -> impl Stream<Item = Result<Followed, Error>> + Send + use<> {
        let begin = Following::new(self, follow);
        try_unfold(begin, async |mut following: Following| {
            let followed = following.next().await?;
            Ok(Some((followed, following)))
        })
    }

    /// Where the log ends now: a follower that begins [`after`](Follow::after) it gets only what is committed later.
    ///
    /// # Errors
    /// [`Error::OtherCluster`]; [`Error::Database`].
    pub async fn end_of_log(&self) -> Result<Checkpoint, Error> {
        let LogEnd { history, bound, .. } = self.log_end().await?;
        Ok(Checkpoint::at(Arc::new(history), Arc::new(bound)))
    }

    /// Follows one stream from a version: its events, then every further one as it is committed, for ever.
    ///
    /// The checkpoint is the version of the last event. Where events were removed by logged administration it goes on
    /// behind them, and [`RecordedEvent::removed_before`] of the next event says how many there were.
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    pub fn follow_stream(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<> {
        let begin = StreamFollowing {
            store: self.clone(),
            stream: stream.clone(),
            from,
            page: VecDeque::new(),
            pace: Pace::new(self.hints(), POLL_IDLE_MAX),
        };
        try_unfold(begin, async |mut following: StreamFollowing| {
            let event = following.next().await?;
            Ok(Some((event, following)))
        })
    }

    async fn log_end(&self) -> Result<LogEnd, Error> {
        let mut connection =
            self.pool().acquire().await.map_err(Error::database("take a snapshot"))?;
        self.outbox_bound(&mut connection).await
    }
}

/// A follower of one stream under way.
struct StreamFollowing {
    store: Store,
    stream: StreamName,
    from: Version,
    page: VecDeque<RecordedEvent>,
    pace: Pace,
}

impl StreamFollowing {
    async fn next(&mut self) -> Result<RecordedEvent, Error> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.from = event.version.next();
                return Ok(event);
            }
            self.pace.about_to_look();
            let page =
                Read::stream(&self.stream).from(self.from).events_max(PAGE_EVENTS.unsigned_abs());
            self.page = self.store.read(page).try_collect().await?;
            self.pace.looked(!self.page.is_empty()).await;
        }
    }
}

/// A follower under way.
struct Following {
    store: Store,
    filter: Arc<Filter>,
    /// Behind everything that is in `page`; none before the first look.
    place: Option<Checkpoint>,
    page: VecDeque<Followed>,
    /// The late events of the window that begins and ends there.
    late: Option<([Arc<Bound>; 2], Option<Late>)>,
    /// The end of the log when it was last looked at.
    seen: Option<LogEnd>,
    /// Events that the application passes over.
    left_out: BTreeSet<Position>,
    /// Why what follows the page cannot be read.
    unreadable: Option<Error>,
    pace: Pace,
}

impl Following {
    fn new(store: &Store, follow: Follow) -> Self {
        let Follow { category, types, passed, after, poll_idle_max } = follow;
        let category = category.map(|category| category.as_str().to_owned());
        Self {
            store: store.clone(),
            filter: Arc::new(Filter { category, types }),
            place: after,
            page: VecDeque::new(),
            late: None,
            seen: None,
            unreadable: None,
            left_out: passed,
            pace: Pace::new(store.hints(), poll_idle_max),
        }
    }

    async fn next(&mut self) -> Result<Followed, Error> {
        loop {
            if let Some(followed) = self.page.pop_front() {
                return Ok(followed);
            }
            if let Some(error) = self.unreadable.take() {
                return Err(error);
            }
            self.pace.about_to_look();
            let is_more = self.look().await?;
            self.pace.looked(is_more).await;
        }
    }

    /// Reads the next page; false when there was nothing to read.
    async fn look(&mut self) -> Result<bool, Error> {
        // The snapshot is taken in a statement of its own, before the one that reads what it shows.
        let end = self.store.log_end().await?;
        let place = match self.place.clone() {
            Some(place) => self.recognised(place, &end).await?,
            None => Checkpoint::at(Arc::new(end.history.clone()), Arc::new(Bound::origin())),
        };
        let now = end.bound.clone();
        self.seen = Some(end);
        if place.until.is_none() && place.since.shows_the_same(&now) {
            self.place = Some(place);
            return Ok(false);
        }
        let until = place.until.clone().unwrap_or_else(|| Arc::new(now));
        self.turn_page(Checkpoint { until: Some(until), ..place }).await?;
        let is_inside = self.place.as_ref().is_some_and(|place| place.until.is_some());
        Ok(is_inside || !self.page.is_empty() || self.unreadable.is_some())
    }

    /// The place in the history that the database has now, once everything before it is known to be there.
    async fn recognised(&self, place: Checkpoint, end: &LogEnd) -> Result<Checkpoint, Error> {
        let is_the_same = |seen: &LogEnd| {
            seen.incarnation == end.incarnation && !end.bound.is_behind(&seen.bound)
        };
        if self.seen.as_ref().is_some_and(is_the_same) {
            return Ok(place);
        }
        if place.history.store_id != end.history.store_id {
            let (checkpoint, found) = (Box::new((*place.history).clone()), end.history.clone());
            return Err(Error::OtherStore { checkpoint, found: Box::new(found) });
        }
        self.store.verify_passed(&place, end).await?;
        Ok(Checkpoint { history: Arc::new(end.history.clone()), ..place })
    }

    /// The late events of the window that a place is inside.
    async fn late(&mut self, place: &Checkpoint) -> Result<Option<Late>, Error> {
        let Some(until) = &place.until else { return Ok(None) };
        let is_of =
            |of: &[Arc<Bound>; 2]| Arc::ptr_eq(&of[0], &place.since) && Arc::ptr_eq(&of[1], until);
        if let Some((_, late)) = self.late.as_ref().filter(|(of, _)| is_of(of)) {
            return Ok(*late);
        }
        let acquired = self.store.pool().acquire().await;
        let mut connection = acquired.map_err(Error::database("read the log"))?;
        let late = self.store.outbox_late(&mut connection, &place.since).await?;
        self.late = Some(([Arc::clone(&place.since), Arc::clone(until)], late));
        Ok(late)
    }

    #[tracing::instrument(
        name = "follow_page",
        level = "debug",
        skip_all,
        fields(category = self.filter.category, events)
    )]
    async fn turn_page(&mut self, place: Checkpoint) -> Result<(), Error> {
        let late = self.late(&place).await?;
        let Some(window) = place.window() else { return Ok(()) };
        let (rows, end) = self.rows(window, window.stretch(late, place.after)).await?;
        let is_cut = i64::try_from(rows.len()) == Ok(PAGE_EVENTS);
        let mut behind = place;
        let recorded = recorded(&self.store, &rows, &self.left_out).await?;
        let Recorded { mut events, unreadable } = recorded;
        self.unreadable = unreadable;
        for row in &rows {
            let (position, id) = place_of(row).map_err(Error::database("read the log"))?;
            let is_next = events.front().is_some_and(|event| event.position.get() == position);
            let event = if is_next { events.pop_front() } else { None };
            // What is left out is behind the follower like the rest.
            if event.is_none() && !self.left_out.contains(&Position::from_store(position)) {
                break;
            }
            behind = behind.passing(position, id, &self.filter);
            let checkpoint = behind.clone();
            self.page.extend(event.map(|event| Followed { event, checkpoint }));
        }
        if !is_cut && self.unreadable.is_none() {
            behind.after = end;
            let left = behind.window().map(|window| window.stretch(late, end));
            if left == Some(Stretch::Done) {
                behind = behind.at_its_end();
            }
        }
        let events = self.page.len();
        if let Some(last) = self.page.back_mut() {
            let category = self.filter.category.as_deref().unwrap_or_default();
            telemetry::followed(category, events, last.event.recorded_at);
            // What cannot be read is not behind the follower.
            if self.unreadable.is_none() {
                last.checkpoint = behind.clone();
            }
        }
        self.place = Some(behind);
        Ok(())
    }

    /// A page of a stretch of a window, and the position where the stretch ends.
    async fn rows(&self, window: Window<'_>, stretch: Stretch) -> Result<(Vec<PgRow>, i64), Error> {
        let statements = self.store.statements();
        let Filter { category, types } = &*self.filter;
        let (query, end) = match stretch {
            Stretch::Done => return Ok((Vec::new(), window.until.position)),
            Stretch::Late { after } => {
                let query = window.bound_to(statements.follow_late.clone(), after);
                (query, window.since.position)
            }
            Stretch::Positions(PositionPage { after, last }) => {
                let until = Bound { position: last, ..window.until.clone() };
                let window = Window { until: &until, ..window };
                let statement = match category {
                    Some(_) => statements.follow_page_category.clone(),
                    None => statements.follow_page_all.clone(),
                };
                (window.bound_to(statement, after), last)
            }
        };
        let query = query.bind(types.as_deref()).bind(category.as_deref()).bind(PAGE_EVENTS);
        let query = match stretch {
            Stretch::Late { .. } => query.bind(window.since.next_xid),
            Stretch::Positions(_) | Stretch::Done => query,
        };
        let rows = query.fetch_all(self.store.pool()).await;
        Ok((rows.map_err(Error::database("read the log"))?, end))
    }
}

/// Position and id of an event.
fn place_of(row: &PgRow) -> Result<(i64, Uuid), sqlx::Error> {
    Ok((row.try_get("position")?, row.try_get("event_id")?))
}

impl Store {
    /// Looks whether everything that a follower has passed is still there.
    async fn verify_passed(&self, place: &Checkpoint, end: &LogEnd) -> Result<(), Error> {
        let acquired = self.pool().acquire().await;
        let mut connection = acquired.map_err(Error::database("verify a checkpoint"))?;
        let bounds = [Some(&place.since), place.until.as_ref()].into_iter().flatten();
        let ends = bounds.filter_map(|bound| bound.last());
        let parted = |since, passed, present| Error::OtherHistory {
            checkpoint: Box::new((*place.history).clone()),
            found: Box::new(end.history.clone()),
            since,
            passed,
            present,
        };
        if !self.outbox_missing(&mut connection, ends).await?.is_empty() {
            return Err(parted(place.since.position - 1, 1, 0));
        }
        let Some(passed) = &place.passed else { return Ok(()) };
        let late = self.outbox_late(&mut connection, &passed.since).await?;
        let lowest = late.map_or(passed.since.position, |late| late.first_position() - 1);
        let mut start = lowest.max(passed.start);
        loop {
            let (present, digest) = self.passed_behind(&mut connection, passed, start).await?;
            if u64::try_from(present) == Ok(passed.events) && digest == passed.digest {
                return Ok(());
            }
            if start > passed.start {
                // Where the outbox did not come along, it cannot say which events were late.
                start = passed.start;
                continue;
            }
            return Err(parted(passed.since.position, passed.events, present));
        }
    }

    /// How many of the events that a follower passed are there behind a position, and their digest.
    async fn passed_behind(
        &self,
        connection: &mut PgConnection,
        passed: &Passed,
        start: i64,
    ) -> Result<(i64, i64), Error> {
        let Passed { since, until, after, filter, .. } = passed;
        let window = Window { since, until };
        let row = window
            .bound_to(self.statements().follow_passed.clone(), start)
            .bind(after)
            .bind(filter.types.as_deref())
            .bind(filter.category.as_deref())
            .fetch_one(connection)
            .await;
        let counted = row.and_then(|row| Ok((row.try_get("events")?, row.try_get("digest")?)));
        counted.map_err(Error::database("verify a checkpoint"))
    }
}

/// When to look again: at once while something comes, then after pauses that grow, or at a hint.
struct Pace {
    hints: watch::Receiver<()>,
    pause: Duration,
    poll_idle_max: Duration,
}

impl Pace {
    const fn new(hints: watch::Receiver<()>, poll_idle_max: Duration) -> Self {
        Self { hints, pause: Duration::ZERO, poll_idle_max }
    }

    /// A hint that comes from now on ends the pause after this look.
    fn about_to_look(&mut self) {
        self.hints.mark_unchanged();
    }

    async fn looked(&mut self, is_new: bool) {
        if is_new {
            self.pause = Duration::ZERO;
            return;
        }
        self.pause = (self.pause * 2).max(POLL_MIN).min(self.poll_idle_max);
        // Time is up, or somebody appended; an error says that no hints come any more.
        let hinted = tokio::time::timeout(self.pause, self.hints.changed()).await;
        if let Ok(Err(_no_more)) = hinted {
            tokio::time::sleep(self.pause).await;
        }
    }
}
