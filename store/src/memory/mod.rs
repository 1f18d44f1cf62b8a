//! An event store in memory, for tests of an application without a database.

mod changes;
mod follower;
mod keys;
mod life;
mod log;

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_schemas::{Compatibility, Fingerprint};
use futures_util::stream::{self, Stream};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use self::keys::MemoryKeys;
use self::log::MemoryLog;
use crate::aggregate::turns::Turns;
use crate::append::{Append, Appended};
use crate::error::{AppendError, Error};
use crate::event::{EventId, RecordedEvent};
use crate::event_store::sealed::{Backend, FoundSnapshot, RecordedId, Snapshot};
use crate::follow::{Checkpoint, Follow, Followed};
use crate::history::History;
use crate::limits::EVENT_BYTES_MAX;
use crate::read::{Key, Read};
use crate::stream::{StreamName, Version};
use crate::stream_life::StreamLife;

/// An event store in memory, with the contract of [`EventStore`](crate::EventStore): for tests of
/// an application without a database.
///
/// Expected versions, repeated event ids, conflicts with their events, limits, checks of schemas,
/// reads, followers with their checkpoints, and the ends of streams (closed, truncated, archived)
/// are those of [`Store`](crate::Store): the same tests run on both. Its clones share their events,
/// which end with the last clone or follower. Each operation completes at once, so that two
/// concurrent appends are one after the other; there is no outbox, and no projection in a database.
/// [`PersonalKeys`](crate::PersonalKeys) of this store are in memory, too.
///
/// ```
/// use annals_store::{Append, EventStore, ExpectedVersion, MemoryStore};
/// # use annals_testkit::{Account, account, deposited, opened};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let append = Append::to(&account(1), ExpectedVersion::NoStream, [opened("Ann"), deposited(7)]);
/// store.append(&append).await?;
/// assert_eq!(store.load::<Account>(&account(1)).await?.state.cents, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    log: Arc<Mutex<MemoryLog>>,
    snapshots: Arc<Mutex<BTreeMap<(StreamName, Fingerprint), FoundSnapshot>>>,
    keys: Arc<Mutex<MemoryKeys>>,
    snapshot_writes: OneWrite,
    turns: Turns,
    /// Changes with each append, and when archived events come back.
    appended: watch::Sender<()>,
    history: OwnHistory,
}

/// The history of one store.
#[derive(Debug, Clone)]
struct OwnHistory(Arc<History>);

impl Default for OwnHistory {
    fn default() -> Self {
        let [system_identifier, timeline] = ["memory", "1"].map(str::to_owned);
        let store_id = Uuid::now_v7();
        Self(Arc::new(History { store_id, number: 1, system_identifier, timeline }))
    }
}

/// At most one snapshot is written at a time.
#[derive(Debug, Clone)]
struct OneWrite(Arc<Semaphore>);

impl Default for OneWrite {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that allows other new versions of schemas than
    /// [`Compatibility::Full`] does.
    #[must_use]
    pub fn with_compatibility(compatibility: Compatibility) -> Self {
        Self { log: Arc::new(Mutex::new(MemoryLog::new(compatibility))), ..Self::default() }
    }

    fn snapshots(&self) -> MutexGuard<'_, BTreeMap<(StreamName, Fingerprint), FoundSnapshot>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> MutexGuard<'_, MemoryKeys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No operation under this lock can leave a partial state.
    fn log(&self) -> MutexGuard<'_, MemoryLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of an operation that PostgreSQL would refuse.
fn illegal(action: &'static str, reason: String) -> Error {
    Error::Database { action, source: sqlx::Error::InvalidArgument(reason) }
}

impl Backend for MemoryStore {
    fn record(
        &self,
        append: &Append,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        let checked = append.validate(EVENT_BYTES_MAX);
        let appended = checked.and_then(|()| self.log().append(append));
        self.appended.send_replace(());
        ready(appended)
    }

    fn query<K: Key>(
        &self,
        read: Read<K>,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send {
        let events = self.log().read(&read);
        stream::iter(events.into_iter().map(Ok))
    }

    fn versions(
        &self,
        streams: &[StreamName],
    ) -> impl Future<Output = Result<Vec<Option<Version>>, Error>> + Send {
        let log = self.log();
        ready(Ok(streams.iter().map(|stream| log.version(stream)).collect()))
    }

    fn fold_stream(
        &self,
        stream: &StreamName,
        after: Option<Version>,
        mut each: impl FnMut(RecordedEvent) -> Result<ControlFlow<()>, Error> + Send,
    ) -> impl Future<Output = Result<Option<Version>, Error>> + Send {
        let (events, version) = {
            let log = self.log();
            (log.read(&Read::stream(stream).from(Version::after(after))), log.version(stream))
        };
        let mut folded = Ok(ControlFlow::Continue(()));
        for event in events {
            folded = each(event);
            if !matches!(folded, Ok(ControlFlow::Continue(()))) {
                break;
            }
        }
        ready(folded.map(|_| version))
    }

    fn follow_log(
        &self,
        follow: Follow,
    ) -> impl Stream<Item = Result<Followed, Error>> + Send + use<> {
        self.follow_events(follow)
    }

    fn follow_one(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<> {
        self.follow_version(stream, from)
    }

    fn log_end_checkpoint(&self) -> impl Future<Output = Result<Checkpoint, Error>> + Send {
        let end = self.log().end();
        ready(Ok(self.checkpoint_at(end)))
    }

    fn life(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<Option<StreamLife>, Error>> + Send {
        ready(Ok(self.log().life(stream)))
    }

    fn close(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        ready(self.log().close(stream, reason))
    }

    fn reopen(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        ready(self.log().reopen(stream, reason))
    }

    fn truncate(
        &self,
        stream: &StreamName,
        before: Version,
        reason: &str,
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        ready(self.log().truncate(stream, before, reason))
    }

    fn archive(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        let archived = self.log().archive(stream, reason);
        if archived.is_ok() {
            self.snapshots().retain(|(of, _), _| of != stream);
        }
        ready(archived)
    }

    fn restore(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        let restored = self.log().restore(stream, reason);
        self.appended.send_replace(());
        ready(restored)
    }

    fn find_snapshot(
        &self,
        stream: &StreamName,
        schema: Fingerprint,
    ) -> impl Future<Output = Result<Option<FoundSnapshot>, Error>> + Send {
        let found = self.snapshots().get(&(stream.clone(), schema)).cloned();
        // Not valid any more if one of its events was removed since.
        let is_valid =
            |found: &FoundSnapshot| self.log().absent_up_to(stream, found.version) == found.removed;
        ready(Ok(found.filter(is_valid)))
    }

    fn write_snapshot(
        &self,
        snapshot: &Snapshot,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let Snapshot { stream, schema, version, removed, state } = snapshot.clone();
        let mut snapshots = self.snapshots();
        let key = (stream, schema.fingerprint());
        let is_later =
            |earlier: &FoundSnapshot| earlier.version < version || earlier.removed < removed;
        if snapshots.get(&key).is_none_or(is_later) {
            snapshots.insert(key, FoundSnapshot { version, removed, state });
        }
        ready(Ok(()))
    }

    fn remove_snapshots(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        self.snapshots().retain(|(of, _), _| of != stream);
        ready(Ok(()))
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }

    fn snapshot_writes(&self) -> &Arc<Semaphore> {
        &self.snapshot_writes.0
    }

    fn recorded(
        &self,
        ids: &[EventId],
    ) -> impl Future<Output = Result<Vec<RecordedId>, Error>> + Send {
        let log = self.log();
        ready(Ok(ids.iter().filter_map(|id| log.recorded(*id)).collect()))
    }
}
