//! The store on PostgreSQL as an event store.

use std::ops::ControlFlow;
use std::sync::Arc;

use annals_schemas::Fingerprint;
use futures_util::stream::Stream;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::sync::Semaphore;

use crate::aggregate::turns::Turns;
use crate::append::{Append, Appended};
use crate::error::{AppendError, Error};
use crate::event::{EventId, RecordedEvent};
use crate::event_store::sealed::{Backend, FoundSnapshot, RecordedId, Snapshot};
use crate::follow::{Checkpoint, Follow, Followed};
use crate::read::listing::unreadable;
use crate::read::pages::Reading;
use crate::read::{Key, Read};
use crate::store::Store;
use crate::stream::{StreamName, Version};
use crate::stream_life::StreamLife;
use crate::timestamptz::PgTimestamp;

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
        let versions = sqlx::query_scalar(self.statements().stream_versions.clone())
            .bind(names)
            .fetch_all(self.pool());
        self.within_deadline(versions)
            .await
            .map_err(Error::database("read the versions of streams"))
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

    fn follow_log(
        &self,
        follow: Follow,
    ) -> impl Stream<Item = Result<Followed, Error>> + Send + use<> {
        self.follow(follow)
    }

    fn follow_one(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<> {
        self.follow_stream(stream, from)
    }

    async fn log_end_checkpoint(&self) -> Result<Checkpoint, Error> {
        self.end_of_log().await
    }

    async fn life(&self, stream: &StreamName) -> Result<Option<StreamLife>, Error> {
        self.stream_life(stream).await
    }

    async fn close(&self, stream: &StreamName, reason: &str) -> Result<bool, Error> {
        self.close_stream(stream, reason).await
    }

    async fn reopen(&self, stream: &StreamName, reason: &str) -> Result<bool, Error> {
        self.reopen_stream(stream, reason).await
    }

    async fn truncate(
        &self,
        stream: &StreamName,
        before: Version,
        reason: &str,
    ) -> Result<u64, Error> {
        self.truncate_stream(stream, before, reason).await
    }

    async fn archive(&self, stream: &StreamName, reason: &str) -> Result<u64, Error> {
        self.archive_stream(stream, reason).await
    }

    async fn restore(&self, stream: &StreamName, reason: &str) -> Result<u64, Error> {
        self.restore_stream(stream, reason).await
    }

    async fn find_snapshot(
        &self,
        stream: &StreamName,
        schema: Fingerprint,
    ) -> Result<Option<FoundSnapshot>, Error> {
        let failed = Error::database_each("read a snapshot");
        let query = sqlx::query(self.statements().snapshot_find.clone());
        let query = query.bind(stream.as_str()).bind(schema.get());
        let found = query.fetch_optional(self.pool());
        let found = self.within_deadline(found).await.map_err(&failed)?;
        let read = |row: PgRow| {
            Ok(FoundSnapshot {
                version: row.try_get("version")?,
                removed: row.try_get::<i64, _>("removed")?.unsigned_abs(),
                state: row.try_get("state")?,
            })
        };
        found.map(read).transpose().map_err(failed)
    }

    async fn write_snapshot(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let written = sqlx::query(self.statements().snapshot_write.clone())
            .bind(snapshot.stream.as_str())
            .bind(snapshot.schema.fingerprint().get())
            .bind(snapshot.schema.full_name())
            .bind(snapshot.version.get())
            .bind(i64::try_from(snapshot.removed).unwrap_or(i64::MAX))
            .bind(snapshot.state.as_slice())
            .execute(self.pool());
        let written = self.within_deadline(written).await;
        written.map_err(Error::database("write a snapshot")).map(drop)
    }

    async fn remove_snapshots(&self, stream: &StreamName) -> Result<(), Error> {
        let deleted = sqlx::query(self.statements().snapshots_delete.clone())
            .bind(stream.as_str())
            .execute(self.pool());
        let deleted = self.within_deadline(deleted).await;
        deleted.map_err(Error::database("delete snapshots")).map(drop)
    }

    fn turns(&self) -> &Turns {
        self.decision_turns()
    }

    fn snapshot_writes(&self) -> &Arc<Semaphore> {
        self.snapshot_permits()
    }

    async fn recorded(&self, ids: &[EventId]) -> Result<Vec<RecordedId>, Error> {
        let ids: Vec<_> = ids.iter().map(|id| id.get()).collect();
        let failed = Error::database_each("find events by id");
        let query = sqlx::query(self.statements().events_by_id.clone()).bind(ids);
        let rows = self.within_deadline(query.fetch_all(self.pool())).await.map_err(&failed)?;
        rows.iter()
            .map(|row| {
                let stream: String = row.try_get("stream").map_err(&failed)?;
                let id: uuid::Uuid = row.try_get("event_id").map_err(&failed)?;
                let recorded_at: PgTimestamp = row.try_get("recorded_at").map_err(&failed)?;
                Ok(RecordedId {
                    id: id.into(),
                    stream: StreamName::new(stream).map_err(|error| unreadable(&error))?,
                    version: row.try_get("version").map_err(&failed)?,
                    position: row.try_get("position").map_err(&failed)?,
                    recorded_at: recorded_at.0,
                })
            })
            .collect()
    }
}
