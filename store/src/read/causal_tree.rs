//! The causal tree of an event.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use sqlx::Row;

use crate::error::Error;
use crate::event::{EventId, RecordedEvent};
use crate::read::rows::decode_rows;
use crate::store::Store;

/// An event in a causal tree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CausalEvent {
    /// The number of events above it.
    pub depth: u32,
    /// The event.
    pub event: RecordedEvent,
}

impl Store {
    /// The causal tree of an event, by the causation ids: the event that led to it first, then all
    /// that resulted from that one, depth first. Empty if there is no such event.
    ///
    /// The events of one command have the same cause, the command; they are the first ones
    /// together.
    ///
    /// # Errors
    /// [`Error`] if the events cannot be read.
    pub async fn causal_tree(
        &self,
        event: EventId,
        events_max: NonZeroU32,
    ) -> Result<Vec<CausalEvent>, Error> {
        let failed = Error::database_each("read the causes of an event");
        let rows = sqlx::query(self.statements().causal_tree.clone()).bind(event.get());
        let events_max = i32::try_from(events_max.get()).unwrap_or(i32::MAX);
        let rows = rows.bind(events_max).fetch_all(self.pool());
        let rows = self.within_deadline(rows).await.map_err(&failed)?;
        let decoded = decode_rows(self, &rows, &BTreeSet::new()).await?;
        if let Some(error) = decoded.unreadable {
            return Err(error);
        }
        let with_depth = |(row, event): (&sqlx::postgres::PgRow, RecordedEvent)| {
            let depth: i32 = row.try_get("depth").map_err(&failed)?;
            Ok(CausalEvent { depth: depth.unsigned_abs(), event })
        };
        rows.iter().zip(decoded.events).map(with_depth).collect()
    }
}
