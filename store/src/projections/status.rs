//! The state of a projection, and the command that skips an event.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::ProjectionError;
use super::versions::begin;
use crate::event::EventId;
use crate::store::Store;
use crate::stream::{Position, Version};
use crate::timestamptz::PgTimestamp;

/// The state of a version of a projection; the view `projection_status` has the same for people.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// The version.
    pub version: u32,
    /// Readers see this version.
    pub is_active: bool,
    /// The number of applied events.
    pub events: u64,
    /// How far it has come in the log.
    pub position: Position,
    /// The last position of the log.
    pub log_position: Position,
    /// When the first event that is not applied was recorded; none if all are applied. Its age is
    /// the lag.
    pub lag_since: Option<Timestamp>,
    /// The runner that has the lease.
    pub owner: Option<String>,
    /// Applied events a second, since the runner acquired the lease.
    pub events_per_second: Option<f64>,
    /// The time to the end of the log, at this rate.
    pub time_left: Option<Duration>,
    /// The event at which it is stopped.
    pub failure: Option<ProjectionFailure>,
}

/// The event at which a projection is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectionFailure {
    /// The event, for [`Store::skip_projection_event`].
    pub event_id: EventId,
    /// Its stream; a text, because the name of an unreadable event can be illegal.
    pub stream: String,
    /// Its version in the stream.
    pub version: Version,
    /// Its type.
    pub event_type: String,
    /// The error of the last attempt, with its causes.
    pub error: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The first attempt.
    pub since: Timestamp,
}

impl Store {
    /// The state of all versions of a projection, in their order; none if there is no such
    /// projection.
    ///
    /// # Errors
    /// [`ProjectionError::Store`].
    pub async fn projection_status(
        &self,
        projection: &str,
    ) -> Result<Vec<ProjectionStatus>, ProjectionError> {
        let query = sqlx::query(self.statements().projection_status.clone()).bind(projection);
        let rows = self.within_deadline(query.fetch_all(self.pool())).await;
        let status = rows.and_then(|rows| rows.iter().map(status).collect());
        status.map_err(ProjectionError::database("read the state of a projection"))
    }

    /// Lets a projection skip the event at which it is stopped. `annals.projection_skips` records
    /// the reason, the role and the time. It applies to the versions that are stopped there, not to
    /// later ones.
    ///
    /// # Errors
    /// [`ProjectionError::Store`], also if no version is stopped at this event, or the reason is
    /// empty.
    pub async fn skip_projection_event(
        &self,
        projection: &str,
        event: EventId,
        reason: &str,
    ) -> Result<(), ProjectionError> {
        let skipped = async {
            // A connection and a transaction of its own: the pool can return one inside another
            // transaction.
            let mut own = self.pool().acquire().await?.detach();
            let mut transaction = begin(self, &mut own).await?;
            let skip = sqlx::query(self.statements().projection_skip.clone());
            let skip = skip.bind(projection).bind(event.get()).bind(reason);
            skip.execute(&mut *transaction).await?;
            transaction.commit().await
        };
        let skipped = self.within_deadline(skipped).await;
        skipped.map_err(ProjectionError::database("skip an event of a projection"))
    }
}

fn status(row: &PgRow) -> Result<ProjectionStatus, sqlx::Error> {
    let (version, events): (i32, i64) = (row.try_get("version")?, row.try_get("events")?);
    let seconds_left: Option<f64> = row.try_get("seconds_left")?;
    let time_left = seconds_left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(ProjectionStatus {
        version: version.unsigned_abs(),
        is_active: row.try_get("is_active")?,
        events: events.unsigned_abs(),
        position: row.try_get("position")?,
        log_position: row.try_get("log_position")?,
        lag_since: row.try_get::<Option<PgTimestamp>, _>("lag_since")?.map(|time| time.0),
        owner: row.try_get("owner")?,
        events_per_second: row.try_get("events_per_second")?,
        time_left,
        failure: failure(row)?,
    })
}

fn failure(row: &PgRow) -> Result<Option<ProjectionFailure>, sqlx::Error> {
    let Some(event_id) = row.try_get::<Option<Uuid>, _>("failed_event")? else { return Ok(None) };
    let attempts: i32 = row.try_get("attempts")?;
    Ok(Some(ProjectionFailure {
        event_id: event_id.into(),
        stream: row.try_get("failed_stream")?,
        version: row.try_get("failed_version")?,
        event_type: row.try_get("failed_type")?,
        error: row.try_get("error")?,
        attempts: attempts.unsigned_abs(),
        since: row.try_get::<PgTimestamp, _>("failed_since")?.0,
    }))
}
