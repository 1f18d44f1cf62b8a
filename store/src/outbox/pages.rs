//! Queries for the pages of a window.

use std::num::NonZeroUsize;

use futures_util::stream::{Stream, TryStreamExt};
use sqlx::PgConnection;

use crate::error::Error;
use crate::outbox::event::OutboxRow;
use crate::outbox::window::{PageLimit, PositionRange, Window};
use crate::store::Store;
use crate::stream::Position;

impl Store {
    /// The events of some shards in a window at some positions, in position order. Rows are read as
    /// the server sends them.
    ///
    /// # Errors
    /// Items are [`Error::Database`]; the stream ends there.
    pub fn outbox_page_of_positions<'c>(
        &self,
        connection: &'c mut PgConnection,
        window: Window<'_>,
        shards: &[i16],
        positions: &[Position],
    ) -> impl Stream<Item = Result<OutboxRow, Error>> + Send + 'c + use<'c> {
        window
            .bind_bounds_to(self.statements().outbox_page_of_positions.clone())
            .bind(positions.to_vec())
            .bind(shards.to_vec())
            .fetch(connection)
            .map_ok(OutboxRow)
            .map_err(Error::database_each("read the late events of a window"))
    }

    /// The events of some shards in a window and in a range of positions, in position order. Rows
    /// are read as the server sends them.
    ///
    /// # Errors
    /// Items are [`Error::Database`]; the stream ends there.
    pub fn outbox_page_by_position<'c>(
        &self,
        connection: &'c mut PgConnection,
        window: Window<'_>,
        shards: &[i16],
        range: PositionRange,
    ) -> impl Stream<Item = Result<OutboxRow, Error>> + Send + 'c + use<'c> {
        let PositionRange { after, last } = range;
        window
            .bind_to(self.statements().outbox_page_by_position.clone(), after)
            .bind(last)
            .bind(shards.to_vec())
            .fetch(connection)
            .map_ok(OutboxRow)
            .map_err(Error::database_each("read a page of the outbox"))
    }

    /// A page of the events of one stream in a window, in version order. A page with fewer events
    /// than its limit is the last one. Rows are read as the server sends them.
    ///
    /// # Errors
    /// Items are [`Error::Database`]; the stream ends there.
    pub fn outbox_page_of_stream<'c>(
        &self,
        connection: &'c mut PgConnection,
        window: Window<'_>,
        stream: &str,
        page: PageLimit,
    ) -> impl Stream<Item = Result<OutboxRow, Error>> + Send + 'c + use<'c> {
        window
            .bind_to(self.statements().outbox_page_of_stream.clone(), page.after)
            .bind(stream.to_owned())
            .bind(page.rows_max())
            .fetch(connection)
            .map_ok(OutboxRow)
            .map_err(Error::database_each("read a stream of the outbox"))
    }

    /// The events of one category and one shard in a window and in a range of positions, in
    /// position order, up to a maximum number. Rows are read as the server sends them.
    ///
    /// # Errors
    /// Items are [`Error::Database`]; the stream ends there.
    pub fn outbox_page_of_category<'c>(
        &self,
        connection: &'c mut PgConnection,
        window: Window<'_>,
        (category, shard): (&str, i16),
        (range, events_max): (PositionRange, NonZeroUsize),
    ) -> impl Stream<Item = Result<OutboxRow, Error>> + Send + 'c + use<'c> {
        let PositionRange { after, last } = range;
        window
            .bind_to(self.statements().outbox_page_of_category.clone(), after)
            .bind(last)
            .bind(category.to_owned())
            .bind(shard)
            .bind(PageLimit { after, events_max }.rows_max())
            .fetch(connection)
            .map_ok(OutboxRow)
            .map_err(Error::database_each("read a category of the outbox"))
    }
}
