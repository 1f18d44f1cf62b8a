//! Reading: streams of events, a page at a time, each page one query by key.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use annals_schemas::EventSet;
use futures_util::stream::{Stream, TryStreamExt, try_unfold};
use jiff::Timestamp;
use sqlx::SqlStr;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::Error;
use crate::event::RecordedEvent;
use crate::pgtime::PgTimestamp;
use crate::rows::recorded;
use crate::sql::Statements;
use crate::store::Store;
use crate::stream::{Category, Position, StreamName, Version};
use crate::stream_page::{Begin, StreamPage};
use crate::telemetry;

/// Events of the first page. The next ones are as large as [`PAGE_BYTES`] allows.
const PAGE_EVENTS_FIRST: i64 = 100;
/// Most events of a page.
const PAGE_EVENTS_MAX: i64 = 1_000;
/// Payload bytes that a page is meant to have: what a reader holds in memory.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// What to read, and how: built up, then given to [`Store::read`].
///
/// `K` is what the events are read in the order of: the [`Version`] of a stream, the [`Position`] of
/// everything else.
///
/// ```
/// # use annals_store::{Category, Read};
/// # fn example(order: &Category) -> Read<annals_store::Position> {
/// // The last ten cancellations.
/// Read::category(order).of_types(["OrderCancelled"]).backwards().events_max(10)
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Read<K> {
    source: Source,
    is_backwards: bool,
    from: Option<K>,
    recorded_since: Option<Timestamp>,
    types: Option<Vec<String>>,
    events_max: u64,
}

#[derive(Debug, Clone)]
enum Source {
    Stream(StreamName),
    Category(Category),
    Correlation(Uuid),
    Causation(Uuid),
    All,
}

impl Read<Version> {
    /// The events of a stream, in version order; none if there is no such stream.
    ///
    /// Where events were removed by logged administration the read goes on behind them, and
    /// [`RecordedEvent::removed_before`] of the next event says how many there were.
    #[must_use]
    pub fn stream(stream: &StreamName) -> Self {
        Self::new(Source::Stream(stream.clone()))
    }
}

impl Read<Position> {
    /// The events of a category, in position order.
    #[must_use]
    pub fn category(category: &Category) -> Self {
        Self::new(Source::Category(category.clone()))
    }

    /// All events, in position order.
    #[must_use]
    pub fn all() -> Self {
        Self::new(Source::All)
    }

    /// The events of one request or process, across streams, in position order.
    #[must_use]
    pub fn correlation(correlation_id: Uuid) -> Self {
        Self::new(Source::Correlation(correlation_id))
    }

    /// The events that an event or a command led to, across streams, in position order.
    #[must_use]
    pub fn causation(causation_id: Uuid) -> Self {
        Self::new(Source::Causation(causation_id))
    }
}

impl<K> Read<K> {
    const fn new(source: Source) -> Self {
        Self {
            source,
            is_backwards: false,
            from: None,
            recorded_since: None,
            types: None,
            events_max: u64::MAX,
        }
    }

    /// Begins with the event of this version or position, or the next one in the direction of reading.
    #[must_use]
    pub fn from(mut self, from: K) -> Self {
        self.from = Some(from);
        self
    }

    /// Reads from the last event to the first.
    #[must_use]
    pub const fn backwards(mut self) -> Self {
        self.is_backwards = true;
        self
    }

    /// Leaves out what was recorded before a time, by the database's clock. It is not even looked at, but in one stream,
    /// where it is passed over a page at a time.
    #[must_use]
    pub const fn recorded_since(mut self, time: Timestamp) -> Self {
        self.recorded_since = Some(time);
        self
    }

    /// Leaves out events of other types than these. They are passed over on the server, one by one: a
    /// type that is rare in what is read takes as long as reading all of it.
    #[must_use]
    pub fn of_types(mut self, types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.types = Some(types.into_iter().map(Into::into).collect());
        self
    }

    /// Ends after so many events.
    #[must_use]
    pub const fn events_max(mut self, events_max: u64) -> Self {
        self.events_max = events_max;
        self
    }

    fn statement(&self, statements: &Statements) -> SqlStr {
        let [forwards, backwards] = match self.source {
            Source::Stream(_) => [&statements.read_stream, &statements.read_stream_backwards],
            Source::Category(_) => [&statements.read_category, &statements.read_category_backwards],
            Source::Correlation(_) => {
                [&statements.read_correlation, &statements.read_correlation_backwards]
            }
            Source::Causation(_) => {
                [&statements.read_causation, &statements.read_causation_backwards]
            }
            Source::All => [&statements.read_all, &statements.read_all_backwards],
        };
        if self.is_backwards { backwards.clone() } else { forwards.clone() }
    }

    fn source_text(&self) -> Option<String> {
        match &self.source {
            Source::Stream(stream) => Some(stream.to_string()),
            Source::Category(category) => Some(category.to_string()),
            Source::Correlation(id) | Source::Causation(id) => Some(id.to_string()),
            Source::All => None,
        }
    }
}

/// What events can be read in the order of: [`Version`] or [`Position`].
pub trait Key: sealed::Key {}
impl Key for Version {}
impl Key for Position {}

mod sealed {
    use crate::event::RecordedEvent;
    use crate::stream::{Position, Version};

    pub trait Key: Copy + Send + Sync {
        const IS_POSITION: bool;
        const FIRST: i64;
        fn get(self) -> i64;
        fn of(event: &RecordedEvent) -> i64;
    }

    impl Key for Version {
        const IS_POSITION: bool = false;
        const FIRST: i64 = Self::FIRST.get();
        fn get(self) -> i64 {
            self.get()
        }
        fn of(event: &RecordedEvent) -> i64 {
            event.version.get()
        }
    }

    impl Key for Position {
        const IS_POSITION: bool = true;
        const FIRST: i64 = Self::FIRST.get();
        fn get(self) -> i64 {
            self.get()
        }
        fn of(event: &RecordedEvent) -> i64 {
            event.position.get()
        }
    }
}

impl Store {
    /// Reads events as they are committed, to where they end when the end is reached.
    ///
    /// Memory is bounded by a page: some 4 MiB of payloads, at most 1,000 events. Each page is a query
    /// of its own: reading by position while others append, an event whose transaction commits late can have a
    /// lower position than one already read, and is then left out. To miss nothing, follow.
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    ///
    /// ```
    /// # use std::pin::pin;
    /// # use annals_store::{Append, Category, ExpectedVersion, Read};
    /// # use annals_testkit::{AccountEvent, account, deposited, opened};
    /// # use futures_util::TryStreamExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bed = annals_testkit::Testbed::new("doc_read").await;
    /// # let store = bed.store();
    /// # let append = Append::to(&account(1), ExpectedVersion::Any, [opened("Ann"), deposited(1), deposited(2)]);
    /// # store.append(&append).await?;
    /// // The last ten deposits, the latest first.
    /// let accounts = Category::new("account")?;
    /// let read = Read::category(&accounts).of_types(["MoneyDeposited"]).backwards().events_max(10);
    /// let mut events = pin!(store.read(read));
    /// let mut found = Vec::new();
    /// while let Some(event) = events.try_next().await? {
    ///     if let AccountEvent::MoneyDeposited(deposited) = event.decode()? {
    ///         found.push(deposited.cents);
    ///     }
    /// }
    /// assert_eq!(found, [2, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read<K: Key>(
        &self,
        read: Read<K>,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<K> {
        let begin = Reading::new(self, read);
        try_unfold(begin, async |mut reading: Reading<K>| {
            Ok(reading.next().await?.map(|event| (event, reading)))
        })
    }

    /// Reads a stream forwards from a version: a short form of [`read`](Self::read).
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    pub fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<> {
        self.read(Read::stream(stream).from(from))
    }

    /// Reads a stream as values of the application's type, with their versions.
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read or an event not be decoded; the stream ends there.
    pub fn read_events<E: EventSet>(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<(Version, E), Error>> + Send + use<E> {
        self.read_stream(stream, from).and_then(|event| std::future::ready(decode(&event)))
    }

    /// The position from which reading forwards misses nothing that was recorded at a time or later.
    async fn position_at(&self, time: Timestamp) -> Result<i64, Error> {
        sqlx::query_scalar(self.statements().position_at.clone())
            .bind(PgTimestamp(time))
            .fetch_one(self.pool())
            .await
            .map_err(Error::database("find the position of a time"))
    }

    /// The version of a stream's last event, also when that event was removed; `None` when there is no such stream.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn stream_version(&self, stream: &StreamName) -> Result<Option<Version>, Error> {
        let version: Option<i64> = sqlx::query_scalar(self.statements().stream_version.clone())
            .bind(stream.as_str())
            .fetch_optional(self.pool())
            .await
            .map_err(Error::database("read a stream's version"))?;
        Ok(version.map(Version::from_store))
    }
}

pub(crate) fn decode<E: EventSet>(event: &RecordedEvent) -> Result<(Version, E), Error> {
    let decoded = event.decode().map_err(|source| Error::Decode {
        stream: event.stream.clone(),
        version: event.version,
        source,
    })?;
    Ok((event.version, decoded))
}

/// A read under way.
pub(crate) struct Reading<K> {
    store: Store,
    read: Read<K>,
    statement: SqlStr,
    page: VecDeque<RecordedEvent>,
    /// Why what follows the page cannot be read.
    unreadable: Option<Error>,
    page_events: i64,
    /// Version or position up to which everything is read; none before the first page.
    last: Option<i64>,
    /// The lowest version or position that can have been recorded since the time asked for.
    lowest: i64,
    /// The version of the last event that the stream ever had.
    stream_version: Option<i64>,
    /// Events of the stream that were removed behind the last one read.
    removed_behind: u64,
    left: u64,
    is_at_end: bool,
}

impl<K: Key> Reading<K> {
    pub(crate) fn new(store: &Store, read: Read<K>) -> Self {
        Self {
            store: store.clone(),
            statement: read.statement(store.statements()),
            page: VecDeque::new(),
            unreadable: None,
            page_events: PAGE_EVENTS_FIRST,
            last: None,
            lowest: <K as sealed::Key>::FIRST,
            stream_version: None,
            removed_behind: 0,
            left: read.events_max,
            is_at_end: false,
            read,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<RecordedEvent>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        while self.page.is_empty() {
            if let Some(error) = self.unreadable.take() {
                return Err(error);
            }
            if self.is_at_end {
                break;
            }
            self.turn_page().await?;
        }
        let event = self.page.pop_front();
        self.left -= u64::from(event.is_some());
        Ok(event)
    }

    #[tracing::instrument(
        name = "read_page",
        level = "debug",
        skip_all,
        fields(source = self.read.source_text(), events)
    )]
    async fn turn_page(&mut self) -> Result<(), Error> {
        let begin = self.begin().await?;
        let begun = Instant::now();
        let most = self.page_events.min(i64::try_from(self.left).unwrap_or(i64::MAX));
        let mut query = sqlx::query(self.statement.clone())
            .bind(self.read.source_text())
            .bind(begin)
            .bind(most)
            .bind(self.read.types.as_deref())
            .bind(self.read.recorded_since.map(PgTimestamp));
        if K::IS_POSITION && self.read.is_backwards {
            query = query.bind(self.lowest);
        }
        let rows =
            query.fetch_all(self.store.pool()).await.map_err(Error::database("read events"))?;
        if K::IS_POSITION {
            self.take_page(&rows, begin, most).await?;
        } else {
            self.take_stream_page(&rows, begin, most).await?;
        }
        telemetry::page_read(begun, self.page.len());
        self.page_events = next_page_events(&self.page);
        Ok(())
    }

    async fn take_page(&mut self, rows: &[PgRow], begin: i64, most: i64) -> Result<(), Error> {
        let recorded = recorded(&self.store, rows, &BTreeSet::new()).await?;
        (self.page, self.unreadable) = (recorded.events, recorded.unreadable);
        self.last = Some(self.page.back().map_or(begin, <K as sealed::Key>::of));
        self.is_at_end = i64::try_from(self.page.len()) != Ok(most);
        Ok(())
    }

    /// Notes as well what was removed.
    async fn take_stream_page(
        &mut self,
        rows: &[PgRow],
        begin: i64,
        most: i64,
    ) -> Result<(), Error> {
        let is_backwards = self.read.is_backwards;
        let begin = Begin { version: begin, is_backwards, removed_before: self.removed_behind };
        let page = StreamPage::of(&self.store, rows, begin).await?;
        (self.page, self.unreadable) = (page.events, page.unreadable);
        self.last = Some(page.end.unwrap_or(begin.version));
        self.is_at_end = page.looked_at < most;
        self.removed_behind = page.removed_behind;
        self.stream_version = page.stream_version;
        Ok(())
    }

    /// The version or position after which the page begins; before which, when reading goes backwards.
    async fn begin(&mut self) -> Result<i64, Error> {
        if let Some(last) = self.last {
            return Ok(last);
        }
        if K::IS_POSITION
            && let Some(time) = self.read.recorded_since
        {
            self.lowest = self.store.position_at(time).await?;
        }
        let from = self.read.from.map(sealed::Key::get);
        Ok(if self.read.is_backwards {
            from.map_or(i64::MAX, |from| from.saturating_add(1))
        } else {
            from.map_or(self.lowest, |from| from.max(self.lowest)) - 1
        })
    }
}

impl Reading<Version> {
    /// Of a stream that was read forwards to its end: its version, and how many events were removed behind the last one.
    pub(crate) fn end(&self) -> (Option<Version>, u64) {
        let last = self.last.unwrap_or(-1);
        let behind = self.stream_version.map_or(0, |version| (version - last).max(0));
        (self.stream_version.map(Version::from_store), self.removed_behind + behind.unsigned_abs())
    }
}

/// How many events of this size make a page.
fn next_page_events(page: &VecDeque<RecordedEvent>) -> i64 {
    if page.is_empty() {
        return PAGE_EVENTS_MAX;
    }
    let bytes: usize = page.iter().map(|event| event.payload.len()).sum();
    let fitting = PAGE_BYTES.saturating_mul(page.len()) / bytes.max(1);
    i64::try_from(fitting).unwrap_or(i64::MAX).clamp(1, PAGE_EVENTS_MAX)
}
