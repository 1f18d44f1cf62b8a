//! The contract of an event store, which [`Store`] and [`MemoryStore`](crate::MemoryStore) share.

use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;

use annals_schemas::Fingerprint;
use futures_util::stream::Stream;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::sync::Semaphore;

use self::sealed::{Backend, FoundSnapshot, RecordedId, Snapshot};
use crate::aggregate::{Aggregate, Aggregates, AsOf, Decide, DecideError, Decided, Loaded};
use crate::append::{Append, Appended};
use crate::error::{AppendError, Error, Refusal};
use crate::event::{EventId, RecordedEvent};
use crate::read::pages::Reading;
use crate::read::{Key, Read};
use crate::store::Store;
use crate::stream::{Position, StreamName, Version};
use crate::timestamptz::PgTimestamp;
use crate::{aggregate, read};

/// An event store: appends and reads, and aggregates on top of them.
///
/// [`Store`] is the one on PostgreSQL, [`MemoryStore`](crate::MemoryStore) one for tests without a
/// database. Both keep the same contract; the same tests run on both. Code that is generic over this
/// trait runs on either. The trait cannot be implemented outside this crate.
pub trait EventStore: Backend {
    /// Appends events: [`Store::append`].
    ///
    /// # Errors
    /// [`AppendError`]: refused, failed, or with an unknown outcome.
    fn append(
        &self,
        append: &Append,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        self.record(append)
    }

    /// Reads committed events: [`Store::read`].
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    fn read<K: Key>(
        &self,
        read: Read<K>,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send {
        self.query(read)
    }

    /// The version of each stream's last event, all at one moment; `None` where there is no such
    /// stream.
    ///
    /// # Errors
    /// [`Error::Database`].
    fn stream_versions(
        &self,
        streams: &[StreamName],
    ) -> impl Future<Output = Result<Vec<Option<Version>>, Error>> + Send {
        self.versions(streams)
    }

    /// Rebuilds an aggregate from all events of its stream; the default state if there are none.
    ///
    /// [`Loaded::removed`] counts the events that an administrator removed.
    ///
    /// # Errors
    /// [`Error`] if the stream cannot be read or an event cannot be decoded.
    ///
    /// ```
    /// # use annals_store::{Aggregate, Append, EventStore, ExpectedVersion, Version};
    /// # use annals_testkit::{AccountEvent, account, deposited, opened};
    /// #[derive(Default)]
    /// struct Balance {
    ///     cents: i64,
    /// }
    ///
    /// impl Aggregate for Balance {
    ///     type Event = AccountEvent;
    ///
    ///     fn apply(&mut self, event: AccountEvent) {
    ///         if let AccountEvent::MoneyDeposited(deposited) = event {
    ///             self.cents += deposited.cents;
    ///         }
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bed = annals_testkit::Testbed::new("doc_load").await;
    /// # let (store, account, deposit) = (bed.store(), account(42), deposited(5));
    /// # let append = Append::to(&account, ExpectedVersion::NoStream, [opened("Ann"), deposited(7)]);
    /// # store.append(&append).await?;
    /// let balance = store.load::<Balance>(&account).await?;
    /// assert_eq!(balance.state.cents, 7);
    /// // Appended only if no other append came first.
    /// store.append(&Append::to(&account, balance.expected(), [deposit])).await?;
    ///
    /// // As it was at a version, or at a time: pass a `jiff::Timestamp`.
    /// let earlier = store.load_at::<Balance>(&account, Version::FIRST).await?;
    /// assert_eq!(earlier.state.cents, 0);
    /// // The effect of later events alone.
    /// let change = store.load_after::<Balance>(&account, Version::FIRST).await?;
    /// assert_eq!(change.state.cents, 12);
    /// # Ok(())
    /// # }
    /// ```
    fn load<A: Aggregate>(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<Loaded<A>, Error>> + Send {
        aggregate::load::load(self, stream, None, None)
    }

    /// Rebuilds an aggregate as it was at a moment: a [`Version`], a `jiff::Timestamp` or a
    /// [`Position`].
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_at<A: Aggregate>(
        &self,
        stream: &StreamName,
        moment: impl Into<AsOf> + Send,
    ) -> impl Future<Output = Result<Loaded<A>, Error>> + Send {
        aggregate::load::load(self, stream, None, Some(moment.into()))
    }

    /// Applies only the events after a version, to the default state: what happened since.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_after<A: Aggregate>(
        &self,
        stream: &StreamName,
        version: Version,
    ) -> impl Future<Output = Result<Loaded<A>, Error>> + Send {
        aggregate::load::load(self, stream, Some(version), None)
    }

    /// Loads an aggregate and saves its state as a snapshot, whether one is due or not; returns its
    /// version. `None` if the aggregate has no snapshots ([`Aggregate::snapshots`]) or the stream no
    /// event. [`decide`](Self::decide) saves snapshots by itself.
    ///
    /// # Errors
    /// As [`load`](Self::load); [`Error::Encode`] if the state does not match its schema.
    fn save_snapshot<A: Aggregate>(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<Option<Version>, Error>> + Send {
        aggregate::load::save::<A>(self, stream)
    }

    /// Deletes the snapshots of a stream, of all state schemas: the next load reads all its events.
    ///
    /// # Errors
    /// [`Error::Database`].
    fn delete_snapshots(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        self.remove_snapshots(stream)
    }

    /// Decides on the state of one or several aggregates, and appends the events of the decision
    /// under the versions on which it was made.
    ///
    /// `decision` is a function of the state: it returns events, or the domain's refusal. After a
    /// conflict it is called again, on the state with the events that came first; mostly without
    /// another read, because a conflict contains them. Several aggregates are loaded as of one
    /// moment, and their events are recorded together or not at all; each of their streams is
    /// checked, also one without events. An append whose outcome is unknown is repeated with the
    /// same events.
    ///
    /// The number of tries is bounded ([`Decide::tries_max`]). With a command id
    /// ([`Decide::command`]), a decision can be repeated at any time and is recorded once.
    ///
    /// # Errors
    /// [`DecideError`]: refused by the domain, contended, or failed.
    ///
    /// ```
    /// use annals_store::{CommandId, Decide, EventStore, MemoryStore, StreamName};
    /// # use annals_testkit::{Account, AccountClosed, AccountEvent, AccountOpened, MoneyDeposited};
    ///
    /// # #[derive(Debug)] struct Declined;
    /// # impl std::fmt::Display for Declined {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("declined") }
    /// # }
    /// # impl std::error::Error for Declined {}
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (store, command) = (MemoryStore::new(), CommandId::from(uuid::Uuid::now_v7()));
    /// let ann = StreamName::new("account-ann")?;
    /// let opened = AccountOpened { owner: "Ann".to_owned() };
    /// store.decide(&ann, |account: &Account| match account.owner {
    ///     None => Ok(vec![opened.clone().into()]),
    ///     Some(_) => Err(Declined),
    /// }).await?;
    ///
    /// // Two aggregates, one append. The request can be sent again: it has an id.
    /// let bob = StreamName::new("account-bob")?;
    /// let merge = Decide::on((&ann, &bob)).command(command);
    /// let merged = store.decide(merge, |(ann, bob): &(Account, Account)| {
    ///     if ann.closed || bob.closed {
    ///         return Err(Declined);
    ///     }
    ///     let cents = bob.cents;
    ///     let deposited = MoneyDeposited { sequence: 0, cents, note: "merged".to_owned() };
    ///     Ok((vec![deposited.into()], vec![AccountClosed { reason: None }.into()]))
    /// }).await?;
    /// assert!(merged.state.1.closed);
    /// # Ok(())
    /// # }
    /// ```
    fn decide<S, E>(
        &self,
        on: impl Into<Decide<S::Streams>> + Send,
        decision: impl FnMut(&S) -> Result<S::Events, E> + Send,
    ) -> impl Future<Output = Result<Decided<S>, DecideError<E>>> + Send
    where
        S: Aggregates,
        E: Send,
    {
        aggregate::decide::decide(self, on.into(), decision)
    }
}

impl<B: Backend> EventStore for B {}

pub(crate) mod sealed {
    use std::future::Future;
    use std::ops::ControlFlow;
    use std::sync::Arc;

    use annals_schemas::{Fingerprint, Schema};
    use futures_util::stream::Stream;
    use jiff::Timestamp;
    use tokio::sync::Semaphore;

    use crate::append::{Append, Appended};
    use crate::error::{AppendError, Error};
    use crate::event::{EventId, RecordedEvent};
    use crate::read::{Key, Read};
    use crate::stream::{Position, StreamName, Version};

    /// The identifying fields of a recorded event.
    #[derive(Debug, Clone)]
    pub struct RecordedId {
        pub id: EventId,
        pub stream: StreamName,
        pub version: Version,
        pub position: Position,
        pub recorded_at: Timestamp,
    }

    /// A state to be saved.
    #[derive(Debug, Clone)]
    pub struct Snapshot {
        pub stream: StreamName,
        pub schema: Schema,
        /// The last event that the state has.
        pub version: Version,
        /// Removed events up to it.
        pub removed: u64,
        pub state: Vec<u8>,
    }

    /// A saved state.
    #[derive(Debug, Clone)]
    pub struct FoundSnapshot {
        pub version: Version,
        pub removed: u64,
        pub state: Vec<u8>,
    }

    /// The operations that differ between stores.
    pub trait Backend: Clone + Send + Sync + 'static {
        fn record(
            &self,
            append: &Append,
        ) -> impl Future<Output = Result<Appended, AppendError>> + Send;

        fn query<K: Key>(
            &self,
            read: Read<K>,
        ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send;

        fn versions(
            &self,
            streams: &[StreamName],
        ) -> impl Future<Output = Result<Vec<Option<Version>>, Error>> + Send;

        /// Passes the events behind a version to `each`, in order, until it breaks. Returns the
        /// version of the stream's last event, removed or not.
        fn fold_stream(
            &self,
            stream: &StreamName,
            after: Option<Version>,
            each: impl FnMut(RecordedEvent) -> Result<ControlFlow<()>, Error> + Send,
        ) -> impl Future<Output = Result<Option<Version>, Error>> + Send;

        /// The last valid snapshot of a stream, of this state schema.
        fn find_snapshot(
            &self,
            stream: &StreamName,
            schema: Fingerprint,
        ) -> impl Future<Output = Result<Option<FoundSnapshot>, Error>> + Send;

        /// Writes a snapshot, unless a later one is written.
        fn write_snapshot(
            &self,
            snapshot: &Snapshot,
        ) -> impl Future<Output = Result<(), Error>> + Send;

        fn remove_snapshots(
            &self,
            stream: &StreamName,
        ) -> impl Future<Output = Result<(), Error>> + Send;

        /// A permit for each snapshot that can be written at a time.
        fn snapshot_writes(&self) -> &Arc<Semaphore>;

        /// The recorded ones of these events, in the order of `ids`.
        fn recorded(
            &self,
            ids: &[EventId],
        ) -> impl Future<Output = Result<Vec<RecordedId>, Error>> + Send;
    }
}

impl RecordedId {
    /// The refusal of another event with this id.
    pub(crate) fn taken(&self) -> Refusal {
        let (event_id, stream) = (self.id, self.stream.to_string());
        Refusal::IdTaken { event_id, stream, differs: vec!["stream".to_owned()] }
    }
}

impl Backend for Store {
    async fn record(&self, append: &Append) -> Result<Appended, AppendError> {
        Self::append(self, append).await
    }

    fn query<K: Key>(
        &self,
        read: Read<K>,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send {
        Self::read(self, read)
    }

    async fn versions(&self, streams: &[StreamName]) -> Result<Vec<Option<Version>>, Error> {
        let names: Vec<&str> = streams.iter().map(StreamName::as_str).collect();
        let versions: Vec<Option<i64>> =
            sqlx::query_scalar(self.statements().stream_versions.clone())
                .bind(names)
                .fetch_all(self.pool())
                .await
                .map_err(Error::database("read the versions of streams"))?;
        Ok(versions.into_iter().map(|version| version.map(Version::from_store)).collect())
    }

    async fn fold_stream(
        &self,
        stream: &StreamName,
        after: Option<Version>,
        mut each: impl FnMut(RecordedEvent) -> Result<ControlFlow<()>, Error> + Send,
    ) -> Result<Option<Version>, Error> {
        let read = Read::stream(stream).from(Version::after(after));
        let mut reading = Reading::new(self, read);
        while let Some(event) = reading.next().await? {
            if each(event)?.is_break() {
                break;
            }
        }
        // Not the version of the last event read: if the last event was removed, no append could
        // ever match the expected version.
        Ok(reading.end())
    }

    async fn find_snapshot(
        &self,
        stream: &StreamName,
        schema: Fingerprint,
    ) -> Result<Option<FoundSnapshot>, Error> {
        let failed = Error::database_each("read a snapshot");
        let query = sqlx::query(self.statements().snapshot_find.clone());
        let query = query.bind(stream.as_str()).bind(schema.get());
        let found = query.fetch_optional(self.pool()).await.map_err(&failed)?;
        let read = |row: PgRow| {
            Ok(FoundSnapshot {
                version: Version::from_store(row.try_get("version")?),
                removed: row.try_get::<i64, _>("removed")?.unsigned_abs(),
                state: row.try_get("state")?,
            })
        };
        found.map(read).transpose().map_err(failed)
    }

    async fn write_snapshot(&self, snapshot: &Snapshot) -> Result<(), Error> {
        sqlx::query(self.statements().snapshot_write.clone())
            .bind(snapshot.stream.as_str())
            .bind(snapshot.schema.fingerprint().get())
            .bind(snapshot.schema.full_name())
            .bind(snapshot.version.get())
            .bind(i64::try_from(snapshot.removed).unwrap_or(i64::MAX))
            .bind(snapshot.state.as_slice())
            .execute(self.pool())
            .await
            .map_err(Error::database("write a snapshot"))
            .map(drop)
    }

    async fn remove_snapshots(&self, stream: &StreamName) -> Result<(), Error> {
        sqlx::query(self.statements().snapshots_delete.clone())
            .bind(stream.as_str())
            .execute(self.pool())
            .await
            .map_err(Error::database("delete snapshots"))
            .map(drop)
    }

    fn snapshot_writes(&self) -> &Arc<Semaphore> {
        self.snapshot_permits()
    }

    async fn recorded(&self, ids: &[EventId]) -> Result<Vec<RecordedId>, Error> {
        let ids: Vec<_> = ids.iter().map(|id| id.get()).collect();
        let failed = Error::database_each("find events by id");
        let query = sqlx::query(self.statements().events_by_id.clone()).bind(ids);
        let rows = query.fetch_all(self.pool()).await.map_err(&failed)?;
        rows.iter()
            .map(|row| {
                let stream: String = row.try_get("stream").map_err(&failed)?;
                let id: uuid::Uuid = row.try_get("event_id").map_err(&failed)?;
                let recorded_at: PgTimestamp = row.try_get("recorded_at").map_err(&failed)?;
                Ok(RecordedId {
                    id: id.into(),
                    stream: StreamName::new(stream)
                        .map_err(|error| read::listing::unreadable(&error))?,
                    version: Version::from_store(row.try_get("version").map_err(&failed)?),
                    position: Position::from_store(row.try_get("position").map_err(&failed)?),
                    recorded_at: recorded_at.0,
                })
            })
            .collect()
    }
}
