//! The operations that differ between stores.

use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;

use annals_schemas::{Fingerprint, Schema};
use futures_util::stream::Stream;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::aggregate::turns::Turns;
use crate::append::{Append, Appended};
use crate::error::{AppendError, Error, Refusal};
use crate::event::{EventId, RecordedEvent};
use crate::follow::{Checkpoint, Follow, Followed};
use crate::personal::table::KeyTable;
use crate::read::{Key, Read};
use crate::stream::{Position, StreamName, Version};
use crate::stream_life::StreamLife;

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
pub trait Backend: KeyTable + Clone + Send + Sync + 'static {
    fn record(&self, append: &Append)
    -> impl Future<Output = Result<Appended, AppendError>> + Send;

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

    fn follow_log(
        &self,
        follow: Follow,
    ) -> impl Stream<Item = Result<Followed, Error>> + Send + use<Self>;

    fn follow_one(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<Self>;

    fn log_end_checkpoint(&self) -> impl Future<Output = Result<Checkpoint, Error>> + Send;

    fn life(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<Option<StreamLife>, Error>> + Send;

    fn close(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    fn reopen(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    fn truncate(
        &self,
        stream: &StreamName,
        before: Version,
        reason: &str,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    fn archive(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    fn restore(
        &self,
        stream: &StreamName,
        reason: &str,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    /// The last valid snapshot of a stream, of this state schema.
    fn find_snapshot(
        &self,
        stream: &StreamName,
        schema: Fingerprint,
    ) -> impl Future<Output = Result<Option<FoundSnapshot>, Error>> + Send;

    /// Writes a snapshot, unless a later one is written.
    fn write_snapshot(&self, snapshot: &Snapshot)
    -> impl Future<Output = Result<(), Error>> + Send;

    fn remove_snapshots(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The order of this process's decisions on one stream.
    fn turns(&self) -> &Turns;

    /// A permit for each snapshot that can be written at a time.
    fn snapshot_writes(&self) -> &Arc<Semaphore>;

    /// The recorded ones of these events, in the order of `ids`.
    fn recorded(
        &self,
        ids: &[EventId],
    ) -> impl Future<Output = Result<Vec<RecordedId>, Error>> + Send;
}

impl RecordedId {
    /// The refusal of another event with this id.
    pub(crate) fn taken(&self) -> Refusal {
        let (event_id, stream) = (self.id, self.stream.to_string());
        Refusal::IdTaken { event_id, stream, differs: vec!["stream".to_owned()] }
    }
}
