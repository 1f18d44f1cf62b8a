//! Following: everything from a checkpoint on, then live, without loss, inversion or stall.
//!
//! The log is read window by window: what became visible between two snapshots, in position order. The
//! first window of a follower that begins at the beginning is all of history, and is read by the same rule.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, TryStreamExt, try_unfold};
use sqlx::SqlStr;
use tokio::sync::watch;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::event::RecordedEvent;
use crate::outbox::{Bound, Window};
use crate::read::Read;
use crate::rows::recorded;
use crate::store::Store;
use crate::stream::{Category, StreamName, Version};
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
    poll_idle_max: Duration,
}

impl Follow {
    /// Every event, from the first one ever recorded.
    #[must_use]
    pub const fn all() -> Self {
        Self { category: None, types: None, after: None, poll_idle_max: POLL_IDLE_MAX }
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
    /// Items are [`Error::OtherHistory`] when the checkpoint belongs to another cluster or timeline, and other
    /// [`Error`]s when a page cannot be read. The stream ends there: follow again from the last checkpoint, when
    /// [`Error::is_retryable`] says that this can help.
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

    /// Where the log stands now: a follower that begins [`after`](Follow::after) it gets only what is committed later.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn end_of_log(&self) -> Result<Checkpoint, Error> {
        let (cluster, now) = self.bound_now().await?;
        Ok(Checkpoint::at(Arc::new(cluster), Arc::new(now)))
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

    async fn bound_now(&self) -> Result<(crate::outbox::Cluster, Bound), Error> {
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
    follow: Follow,
    /// Behind everything that is in `page`; none before the first look.
    place: Option<Checkpoint>,
    page: VecDeque<Followed>,
    pace: Pace,
}

impl Following {
    fn new(store: &Store, mut follow: Follow) -> Self {
        let pace = Pace::new(store.hints(), follow.poll_idle_max);
        Self {
            store: store.clone(),
            place: follow.after.take(),
            follow,
            page: VecDeque::new(),
            pace,
        }
    }

    async fn next(&mut self) -> Result<Followed, Error> {
        loop {
            if let Some(followed) = self.page.pop_front() {
                return Ok(followed);
            }
            self.pace.about_to_look();
            let is_new = self.look().await?;
            self.pace.looked(is_new).await;
        }
    }

    /// Reads the next page; false when there is nothing in it.
    async fn look(&mut self) -> Result<bool, Error> {
        // The snapshot is taken in a statement of its own, before the one that reads what it shows.
        let (cluster, now) = self.store.bound_now().await?;
        let place = self.place.take().unwrap_or_else(|| {
            Checkpoint::at(Arc::new(cluster.clone()), Arc::new(Bound::origin()))
        });
        place.check(&cluster)?;
        if place.until.is_none() && place.since.snapshot == now.snapshot {
            self.place = Some(place);
            return Ok(false);
        }
        let place = match &place.until {
            Some(_) => place,
            None => self.enter(place, now).await?,
        };
        self.turn_page(place).await?;
        Ok(!self.page.is_empty())
    }

    /// Enters the window that ends at `until`.
    async fn enter(&self, place: Checkpoint, until: Bound) -> Result<Checkpoint, Error> {
        let window = Window { since: &place.since, until: &until };
        let after = if is_small(window) {
            0
        } else {
            let mut connection =
                self.store.pool().acquire().await.map_err(Error::database("read the log"))?;
            self.store.outbox_window_start(&mut connection, &place.since).await?
        };
        Ok(Checkpoint { until: Some(Arc::new(until)), after, ..place })
    }

    #[tracing::instrument(
        name = "follow_page",
        level = "debug",
        skip_all,
        fields(category = self.follow.category.as_ref().map(Category::as_str), events)
    )]
    async fn turn_page(&mut self, place: Checkpoint) -> Result<(), Error> {
        let Some(until) = place.until.clone() else { return Ok(()) };
        let window = Window { since: &place.since, until: &until };
        let category = self.follow.category.as_ref().map(Category::as_str);
        let mut query = sqlx::query(self.statement(window))
            .bind(&place.since.snapshot)
            .bind(&until.snapshot)
            .bind(place.after)
            .bind(PAGE_EVENTS)
            .bind(category)
            .bind(self.follow.types.as_deref());
        if !is_small(window) {
            query = query.bind(until.position);
        }
        let rows =
            query.fetch_all(self.store.pool()).await.map_err(Error::database("read the log"))?;
        let is_last = i64::try_from(rows.len()) != Ok(PAGE_EVENTS);
        let events = recorded(&self.store, &rows).await?;
        let within = |event: RecordedEvent| {
            let checkpoint = Checkpoint { after: event.position.get(), ..place.clone() };
            Followed { event, checkpoint }
        };
        self.page = events.into_iter().map(within).collect();
        let end = if is_last {
            Checkpoint::at(Arc::clone(&place.cluster), until)
        } else {
            self.page.back().map_or(place, |last| last.checkpoint.clone())
        };
        let events = self.page.len();
        if let Some(last) = self.page.back_mut() {
            telemetry::followed(category.unwrap_or_default(), events, last.event.recorded_at);
            last.checkpoint = end.clone();
        }
        self.place = Some(end);
        Ok(())
    }

    fn statement(&self, window: Window<'_>) -> SqlStr {
        let statements = self.store.statements();
        match self.follow.category {
            _ if is_small(window) => statements.follow_live.clone(),
            Some(_) => statements.follow_page_category.clone(),
            None => statements.follow_page_all.clone(),
        }
    }
}

/// Whether a window is read by transaction id. Never one from the beginning: rows of the outbox are gone by
/// then, and only the events are there for ever.
fn is_small(window: Window<'_>) -> bool {
    window.since.position > 0 && window.is_live()
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
