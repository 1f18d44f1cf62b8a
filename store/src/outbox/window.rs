//! Windows: the events that became visible between two bounds, and how to page through them.

use std::num::NonZeroUsize;
use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row, SqlStr};

use crate::error::Error;
use crate::outbox::bound::Bound;
use crate::store::Store;
use crate::stream::Position;

/// Up to this number, the positions of late events are listed; above it, all events between the
/// first and the last one are looked through.
const LATE_EVENTS_MAX: i64 = 10_000;

/// The events that became visible between two bounds.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// The start: events that were visible then are not part of the window.
    pub since: &'a Bound,
    /// The end: events that were visible then are part of the window.
    pub until: &'a Bound,
}

/// The late events of a window: their positions are below the start of the window, because their
/// transactions were running then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateEvents {
    first: Position,
    last: Position,
    /// The positions of all of them, in order, unless they are many.
    positions: Option<Arc<[Position]>>,
}

impl LateEvents {
    /// The lowest position of these events.
    pub(crate) const fn first_position(&self) -> Position {
        self.first
    }
}

/// The next page of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextPage<'a> {
    /// The events at these positions, of which there is at least one; a page can be of the first of
    /// them only.
    OfPositions(&'a [Position]),
    /// A range of positions.
    ByPosition(PositionRange),
    /// The window has no further events.
    End,
}

/// A page with a maximum number of events.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    /// The position after which the page starts; [`Position::ORIGIN`]: at the start of the window.
    pub after: Position,
    /// Maximum number of events.
    pub events_max: NonZeroUsize,
}

impl PageLimit {
    pub(crate) fn rows_max(self) -> i64 {
        i64::try_from(self.events_max.get()).unwrap_or(i64::MAX)
    }
}

/// A range of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionRange {
    /// The position after which the range starts.
    pub after: Position,
    /// The last position.
    pub last: Position,
}

impl Window<'_> {
    /// The next page after a position; [`Position::ORIGIN`]: the first page of the window.
    #[must_use]
    pub fn next_page(self, late: Option<&LateEvents>, after: Position) -> NextPage<'_> {
        let start = self.since.position;
        if let Some(LateEvents { first, last, positions }) = late.filter(|late| after < late.last) {
            return match positions {
                Some(positions) => {
                    let read = positions.partition_point(|position| *position <= after);
                    NextPage::OfPositions(&positions[read..])
                }
                None => {
                    let after = after.max(first.before());
                    NextPage::ByPosition(PositionRange { after, last: *last })
                }
            };
        }
        let (after, last) = (after.max(start), self.until.position);
        if after < last {
            NextPage::ByPosition(PositionRange { after, last })
        } else {
            NextPage::End
        }
    }

    /// Binds the first seven arguments of a statement: the window, and the position to start after.
    pub(crate) fn bind_to<'q>(
        self,
        statement: SqlStr,
        after: Position,
    ) -> Query<'q, Postgres, PgArguments> {
        self.bind_bounds_to(statement).bind(after)
    }

    /// Binds the first six arguments of a statement: the window.
    pub(crate) fn bind_bounds_to<'q>(self, statement: SqlStr) -> Query<'q, Postgres, PgArguments> {
        let Self { since, until } = self;
        sqlx::query(statement)
            .bind(since.snapshot.clone())
            .bind(since.position)
            .bind(since.settled)
            .bind(until.snapshot.clone())
            .bind(until.position)
            .bind(until.settled)
    }
}

impl Store {
    /// Finds the late events of all windows that start at a bound.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn late_events(
        &self,
        connection: &mut PgConnection,
        since: &Bound,
    ) -> Result<Option<LateEvents>, Error> {
        if since.has_no_running_transactions() {
            return Ok(None);
        }
        let row = sqlx::query(self.statements().late_events.clone())
            .bind(&since.snapshot)
            .bind(since.next_xid)
            .bind(since.position)
            .bind(since.settled)
            .bind(LATE_EVENTS_MAX)
            .fetch_one(connection);
        let row = self.within_deadline(row).await;
        row.and_then(|row| late_events(&row))
            .map_err(Error::database("find the late events of a window"))
    }
}

fn late_events(row: &PgRow) -> Result<Option<LateEvents>, sqlx::Error> {
    let Some(first) = row.try_get("first")? else { return Ok(None) };
    let positions: Option<Vec<Position>> = row.try_get("positions")?;
    let positions = positions.map(Arc::from);
    Ok(Some(LateEvents { first, last: row.try_get("last")?, positions }))
}
