//! The end of streams: closed, truncated, archived.

use jiff::Timestamp;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryScalar;
use sqlx::{Postgres, Row};

use crate::error::Error;
use crate::store::Store;
use crate::stream::{StreamName, Version};
use crate::timestamptz::PgTimestamp;

/// The state of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamLife {
    /// The version of its last event.
    pub version: Version,
    /// Since when it refuses appends; none if it is open.
    pub closed_at: Option<Timestamp>,
    /// The events below this version were removed for good.
    pub truncated_before: Option<Version>,
    /// Since when its events are in the archive, and no read returns them.
    pub archived_at: Option<Timestamp>,
}

/// Administration of streams: for a login with the role `annals_admin`. Each call is logged with
/// its reason in the table `admin_log`.
impl Store {
    /// The state of a stream; none if there is no such stream. For each role.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn stream_life(&self, stream: &StreamName) -> Result<Option<StreamLife>, Error> {
        let failed = Error::database_each("read the state of a stream");
        let query = sqlx::query(self.statements().stream_life.clone()).bind(stream.as_str());
        let row = self.within_deadline(query.fetch_optional(self.pool())).await;
        let Some(row) = row.map_err(&failed)? else { return Ok(None) };
        let read = || {
            let time = |column| {
                row.try_get::<Option<PgTimestamp>, _>(column).map(|time| time.map(|time| time.0))
            };
            Ok(StreamLife {
                version: row.try_get("version")?,
                closed_at: time("closed_at")?,
                truncated_before: row.try_get("truncated_before")?,
                archived_at: time("archived_at")?,
            })
        };
        read().map(Some).map_err(failed)
    }

    /// Closes a stream (a tombstone): each append of events to it is refused with
    /// [`Refusal::StreamClosed`](crate::Refusal::StreamClosed), also by the decisions in progress.
    /// Its events are read as before. A retry of an append from before gets the original answer.
    /// False if it is closed already.
    ///
    /// # Errors
    /// [`Error::Database`], also if there is no such stream or the reason is empty.
    pub async fn close_stream(&self, stream: &StreamName, reason: &str) -> Result<bool, Error> {
        let statement = sqlx::query_scalar(self.statements().stream_close.clone());
        self.change_stream("close a stream", statement.bind(stream.as_str()).bind(reason)).await
    }

    /// Opens a closed stream again. False if it is open.
    ///
    /// # Errors
    /// [`Error::Database`], also if the stream is archived: restore it first.
    pub async fn reopen_stream(&self, stream: &StreamName, reason: &str) -> Result<bool, Error> {
        let statement = sqlx::query_scalar(self.statements().stream_reopen.clone());
        self.change_stream("open a stream", statement.bind(stream.as_str()).bind(reason)).await
    }

    /// Removes the events of a stream below a version for good, such as those behind a retention
    /// period; their number. Reads start at the first event that is left, with the number of
    /// removed events before it
    /// ([`RecordedEvent::removed_before`](crate::RecordedEvent::removed_before)), and loads count
    /// them ([`Loaded::removed`](crate::Loaded::removed)).
    ///
    /// # Errors
    /// [`Error::Database`], also while a relay or a followed projection of this database has not
    /// read these events, and if the version is behind the stream's last event.
    pub async fn truncate_stream(
        &self,
        stream: &StreamName,
        before: Version,
        reason: &str,
    ) -> Result<u64, Error> {
        let statement = sqlx::query_scalar(self.statements().stream_truncate.clone());
        let statement = statement.bind(stream.as_str()).bind(before.get()).bind(reason);
        self.change_stream("truncate a stream", statement).await.map(i64::unsigned_abs)
    }

    /// Moves the events of a closed stream out of the table of events, into `archived_events`;
    /// their number. For readers they are removed: a stream has a version, and no events.
    /// Positions, ids and bytes are kept.
    ///
    /// # Errors
    /// [`Error::Database`], also if the stream is open, and while a relay or a followed projection
    /// of this database has not read its events.
    pub async fn archive_stream(&self, stream: &StreamName, reason: &str) -> Result<u64, Error> {
        let statement = sqlx::query_scalar(self.statements().stream_archive.clone());
        let statement = statement.bind(stream.as_str()).bind(reason);
        self.change_stream("archive a stream", statement).await.map(i64::unsigned_abs)
    }

    /// Moves the events of an archived stream back; their number. It stays closed.
    ///
    /// Readers that have passed their positions do not get them again; new ones do.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn restore_stream(&self, stream: &StreamName, reason: &str) -> Result<u64, Error> {
        let statement = sqlx::query_scalar(self.statements().stream_restore.clone());
        let statement = statement.bind(stream.as_str()).bind(reason);
        self.change_stream("restore a stream", statement).await.map(i64::unsigned_abs)
    }

    async fn change_stream<T>(
        &self,
        action: &'static str,
        statement: QueryScalar<'_, Postgres, T, PgArguments>,
    ) -> Result<T, Error>
    where
        T: Send + Unpin,
        (T,): for<'row> sqlx::FromRow<'row, sqlx::postgres::PgRow>,
    {
        let changed = statement.fetch_one(self.pool());
        self.within_deadline(changed).await.map_err(Error::database(action))
    }
}
