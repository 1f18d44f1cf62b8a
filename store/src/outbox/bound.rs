//! Bounds of the log: which events were visible at a moment.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::bigint::bigint;
use crate::error::Error;
use crate::history::History;
use crate::sqlstate::is_recovery_in_progress;
use crate::store::Store;
use crate::stream::Position;

/// A bound of the log: the set of events that were visible at a moment.
///
/// An event was visible if its position is at most [`position`](Self::position), and either its
/// position is at most [`settled`](Self::settled) or its transaction is visible in the snapshot.
/// The snapshot alone is not sufficient: after a crash, the server reuses the ids of transactions
/// whose log was not flushed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bound {
    /// The transactions that had ended: a `pg_snapshot` as text.
    pub snapshot: String,
    /// The next transaction id that the server was to assign.
    pub next_xid: TransactionId,
    /// The highest visible position.
    pub position: Position,
    /// The id of the event at this position; none before the first event. A history that lost this
    /// event can have another one at the same position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// The settled position: events up to it count as visible, with any transaction id.
    pub settled: Position,
}

/// A transaction id of the server, with its epoch: it does not wrap around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransactionId(i64);

bigint!(TransactionId);

impl TransactionId {
    /// The id with this number.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }
}

impl Bound {
    /// The bound before the first event.
    #[must_use]
    pub fn origin() -> Self {
        Self {
            snapshot: "3:3:".to_owned(),
            next_xid: TransactionId(3),
            position: Position::ORIGIN,
            event_id: None,
            settled: Position::ORIGIN,
        }
    }

    /// The event at the highest visible position; none before the first event.
    #[must_use]
    pub fn last_event(&self) -> Option<(Position, Uuid)> {
        Some((self.position, self.event_id?))
    }

    /// Whether the same events were visible at both bounds.
    #[must_use]
    pub fn is_equivalent_to(&self, other: &Self) -> bool {
        let positions = |bound: &Self| (bound.position, bound.settled);
        positions(self) == positions(other) && self.snapshot == other.snapshot
    }

    /// Whether the log ends earlier here than at a bound that was taken before: it lost a part.
    #[must_use]
    pub fn is_behind(&self, earlier: &Self) -> bool {
        self.position < earlier.position || self.next_xid < earlier.next_xid
    }

    /// Whether no transaction was running that can have written below the bound's position.
    pub(crate) fn has_no_running_transactions(&self) -> bool {
        let mut parts = self.snapshot.split(':').skip(1);
        let xmax = parts.next().and_then(|xmax| xmax.parse().ok().map(TransactionId));
        xmax == Some(self.next_xid) && parts.next().is_none_or(str::is_empty)
    }
}

/// The current end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// The history of the database.
    pub history: History,
    /// Changes with each restart of the server, promotion, restore and adoption.
    pub incarnation: Arc<str>,
    /// The bound at the end.
    pub bound: Bound,
}

impl Store {
    /// Reads the current end of the log, and its history.
    ///
    /// # Errors
    /// [`Error::Standby`] on a standby; [`Error::OtherCluster`] if the store came from another
    /// cluster and is not adopted; [`Error::Database`].
    pub async fn log_end(&self, connection: &mut PgConnection) -> Result<LogEnd, Error> {
        let row = sqlx::query(self.statements().log_end.clone()).fetch_one(connection);
        let row =
            self.within_deadline(row).await.map_err(|error| {
                match is_recovery_in_progress(&error) {
                    true => Error::Standby,
                    false => Error::Database { action: "read the end of the log", source: error },
                }
            })?;
        let (cluster, end) = log_end(&row).map_err(Error::database("read the end of the log"))?;
        if cluster == end.history.system_identifier {
            return Ok(end);
        }
        Err(Error::OtherCluster { recorded: end.history.system_identifier, found: cluster })
    }

    /// Returns the ids of the events, given by position and id, that are missing: the database
    /// lost a part of its history. An event that an administrator removed does not count as
    /// missing.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn missing_events(
        &self,
        connection: &mut PgConnection,
        events: impl IntoIterator<Item = (Position, Uuid)>,
    ) -> Result<Vec<Uuid>, Error> {
        let (positions, ids): (Vec<Position>, Vec<Uuid>) = events.into_iter().unzip();
        let missing = sqlx::query_scalar(self.statements().missing_events.clone())
            .bind(positions)
            .bind(ids)
            .fetch_all(connection);
        self.within_deadline(missing).await.map_err(Error::database("find missing events"))
    }
}

/// The cluster of the session, and the end of the log.
fn log_end(row: &PgRow) -> Result<(String, LogEnd), sqlx::Error> {
    let history = History {
        store_id: row.try_get("store_id")?,
        number: row.try_get("history")?,
        system_identifier: row.try_get("system_identifier")?,
        timeline: row.try_get("timeline")?,
    };
    let bound = Bound {
        snapshot: row.try_get("snapshot")?,
        next_xid: row.try_get("next_xid")?,
        position: row.try_get("position")?,
        event_id: row.try_get("event_id")?,
        settled: row.try_get("settled")?,
    };
    let incarnation: &str = row.try_get("incarnation")?;
    Ok((row.try_get("cluster")?, LogEnd { history, incarnation: incarnation.into(), bound }))
}
