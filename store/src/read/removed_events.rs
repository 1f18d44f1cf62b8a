//! The number of removed events between two events that are read in position order.

use std::cmp::Ordering;

use crate::error::Error;
use crate::event::RecordedEvent;
use crate::read::query::Read;
use crate::read::query::sealed::PageKey;
use crate::store::Store;
use crate::stream::Position;

/// Removed events of a page, in its read direction.
pub(crate) struct RemovedEvents {
    positions: Vec<Position>,
    /// The order of two positions in the read direction.
    direction: Ordering,
}

impl RemovedEvents {
    /// `positions` in ascending order.
    pub(crate) const fn forwards(positions: Vec<Position>) -> Self {
        Self { positions, direction: Ordering::Less }
    }

    /// `positions` in ascending order.
    pub(crate) fn backwards(mut positions: Vec<Position>) -> Self {
        positions.reverse();
        Self { positions, direction: Ordering::Greater }
    }

    /// Sets `removed_before` of each event of the page; `before` is the number of removed events
    /// before the page. Returns the number behind the last event.
    pub(crate) fn count<'a>(
        self,
        events: impl IntoIterator<Item = &'a mut RecordedEvent>,
        before: u64,
    ) -> u64 {
        let mut removed = self.positions.into_iter().peekable();
        let mut counted = before;
        for event in events {
            let is_before = |removed: &Position| removed.cmp(&event.position) == self.direction;
            while removed.next_if(is_before).is_some() {
                counted += 1;
            }
            // It was removed after the page was read: it is an event of the page.
            removed.next_if_eq(&event.position);
            event.removed_before = std::mem::take(&mut counted);
        }
        removed.fold(counted, |counted, _| counted + 1)
    }
}

impl Store {
    /// The positions of removed events after a position up to another, which a read passed.
    pub(crate) async fn removed_events<K>(
        &self,
        (after, last): (PageKey, PageKey),
        category: Option<&str>,
        read: &Read<K>,
    ) -> Result<Vec<Position>, Error> {
        let positions = sqlx::query_scalar(self.statements().removed_events.clone())
            .bind(after)
            .bind(last)
            .bind(category)
            .bind(read.has_archived)
            .fetch_all(self.pool());
        self.within_deadline(positions).await.map_err(Error::database("count removed events"))
    }
}
