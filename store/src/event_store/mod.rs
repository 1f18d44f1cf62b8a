//! The contract of an event store, which the stores on PostgreSQL and in memory share.

mod postgres;
pub(crate) mod sealed;

use std::future::Future;

use futures_util::stream::Stream;

use self::sealed::Backend;
use crate::aggregate;
use crate::aggregate::{
    Aggregate, Aggregates, AsOf, Decide, DecideError, Decided, Loaded, TaggedStates,
};
use crate::append::{Append, Appended};
use crate::error::{AppendError, Error};
use crate::event::RecordedEvent;
use crate::follow::{Checkpoint, Follow, Followed};
use crate::read::{Key, Read};
use crate::stream::{StreamName, Version};
use crate::stream_life::StreamLife;

/// An event store: appends and reads, and aggregates on top of them.
///
/// [`Store`](crate::Store) is the one on PostgreSQL, [`MemoryStore`](crate::MemoryStore) one for
/// tests without a database. Both keep the same contract; the same tests run on both. Code that is
/// generic over this trait runs on either. The trait cannot be implemented outside this crate.
pub trait EventStore: Backend {
    /// Appends events: [`Store::append`](crate::Store::append).
    ///
    /// # Errors
    /// [`AppendError`]: refused, failed, or with an unknown outcome.
    fn append(
        &self,
        append: &Append,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        self.record(append)
    }

    /// Reads committed events: [`Store::read`](crate::Store::read).
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

    /// Follows the log: each event after the checkpoint, then each new event, without end:
    /// [`Store::follow`](crate::Store::follow).
    ///
    /// # Errors
    /// Items are [`Error`]s, and the stream ends there: [`Error::OtherStore`] for the checkpoint of
    /// another store.
    fn follow(
        &self,
        follow: Follow,
    ) -> impl Stream<Item = Result<Followed, Error>> + Send + use<Self> {
        self.follow_log(follow)
    }

    /// Follows one stream from a version:
    /// [`Store::follow_stream`](crate::Store::follow_stream).
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    fn follow_stream(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<Self> {
        self.follow_one(stream, from)
    }

    /// The current end of the log: [`Store::end_of_log`](crate::Store::end_of_log).
    ///
    /// # Errors
    /// [`Error::OtherCluster`]; [`Error::Database`].
    fn end_of_log(&self) -> impl Future<Output = Result<Checkpoint, Error>> + Send {
        self.log_end_checkpoint()
    }

    /// The state of a stream: [`Store::stream_life`](crate::Store::stream_life).
    ///
    /// # Errors
    /// [`Error::Database`].
    fn stream_life(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<Option<StreamLife>, Error>> + Send {
        self.life(stream)
    }

    /// Closes a stream: [`Store::close_stream`](crate::Store::close_stream).
    ///
    /// # Errors
    /// [`Error::Database`], also if there is no such stream or the reason is empty.
    fn close_stream(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        self.close(stream, reason)
    }

    /// Opens a closed stream again: [`Store::reopen_stream`](crate::Store::reopen_stream).
    ///
    /// # Errors
    /// As [`close_stream`](Self::close_stream).
    fn reopen_stream(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        self.reopen(stream, reason)
    }

    /// Removes the events of a stream below a version for good; their number:
    /// [`Store::truncate_stream`](crate::Store::truncate_stream).
    ///
    /// # Errors
    /// [`Error::Database`], also if there is no such stream, the reason is empty, or the version is
    /// behind the last event.
    fn truncate_stream(
        &self,
        stream: &StreamName,
        before: Version,
        reason: &str,
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        self.truncate(stream, before, reason)
    }

    /// Moves the events of a closed stream out of the log; their number:
    /// [`Store::archive_stream`](crate::Store::archive_stream).
    ///
    /// # Errors
    /// As [`close_stream`](Self::close_stream); also if the stream is open.
    fn archive_stream(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        self.archive(stream, reason)
    }

    /// Moves the events of an archived stream back; their number:
    /// [`Store::restore_stream`](crate::Store::restore_stream).
    ///
    /// # Errors
    /// As [`close_stream`](Self::close_stream).
    fn restore_stream(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        self.restore(stream, reason)
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
    /// # let events = [opened("Ann"), deposited(7)];
    /// # let append = Append::to(&account, ExpectedVersion::NoStream, events);
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
    /// [`Position`](crate::Position).
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
    /// version. `None` if the aggregate has no snapshots ([`Aggregate::snapshots`]) or the stream
    /// no event. [`decide`](Self::decide) saves snapshots by itself.
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
    /// checked, also one without events; no stream may be named twice. An append whose outcome is
    /// unknown is repeated with the same events.
    ///
    /// The decisions of one store and its clones on one stream take turns, so that they meet no
    /// conflicts with each other: `decision` must not wait for another decision on the stream.
    /// Other processes and plain appends still come first at times, and the number of tries is
    /// bounded ([`Decide::tries_max`]). With a command id
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
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    /// #         f.write_str("declined")
    /// #     }
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

    /// Reads the events with some tags, decides on them, and appends under the condition that no
    /// further event with one of the tags was recorded since: a dynamic consistency boundary.
    /// When one came first, it decides again with it. The closure can run more than once.
    ///
    /// Each tag has a state of its own, which results from the events of the state's category with
    /// that tag, in the order of their positions. The closure returns the append: its events
    /// for their streams, with the tags that later decisions have to find them by. An append
    /// without events records nothing. Its expected versions are checked beside the tags, and a
    /// conflict of a stream ends the decision.
    ///
    /// # Errors
    /// [`DecideError`].
    ///
    /// ```
    /// # use annals_store::{
    /// #     Aggregate, Append, EventStore, ExpectedVersion, MemoryStore, StreamName, Tag,
    /// # };
    /// # use annals_testkit::{AccountEvent, opened};
    /// #[derive(Default)]
    /// struct Household { accounts: u32 }
    ///
    /// impl Aggregate for Household {
    ///     type Event = AccountEvent;
    ///
    ///     fn apply(&mut self, event: AccountEvent) {
    ///         self.accounts += u32::from(matches!(event, AccountEvent::AccountOpened(_)));
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (store, ann) = (MemoryStore::new(), StreamName::new("account-ann")?);
    /// // At most two accounts of a household, whatever their streams.
    /// let household = Tag::new("household:12")?;
    /// let event = opened("Ann").with_tag(&household);
    /// store.decide_on_tags(&household, |state: &Household| {
    ///     if state.accounts >= 2 {
    ///         return Err("two accounts are open");
    ///     }
    ///     Ok(Append::to(&ann, ExpectedVersion::NoStream, [event.clone()]))
    /// }).await.map_err(|error| format!("{error:?}"))?;
    /// # Ok(())
    /// # }
    /// ```
    fn decide_on_tags<S, E>(
        &self,
        on: impl Into<Decide<S::Tags>> + Send,
        decision: impl FnMut(&S) -> Result<Append, E> + Send,
    ) -> impl Future<Output = Result<Decided<S>, DecideError<E>>> + Send
    where
        S: TaggedStates,
        E: Send,
    {
        aggregate::on_tags::decide_on_tags(self, on.into(), decision)
    }
}

impl<B: Backend> EventStore for B {}
