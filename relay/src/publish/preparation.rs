//! First events: their topics and schemas are prepared beside publishing. Pages wait for these a
//! while; if other events could be published, their categories are left out until they are ready.

use std::pin::pin;
use std::time::{Duration, Instant};

use annals_relay_machine::FailureClass;
use annals_store::outbox::{Bound, PositionRange, Window};
use futures_util::TryStreamExt;

use crate::model::quarantine::ShardCursor;
use crate::publish::filter::QuarantineFilter;
use crate::publish::page_builder::PageBuilder;
use crate::publish::reader::{Reader, ReaderParts};
use crate::report::failure::Failure;

/// The longest that a page waits for topics and schemas: then it ends, and the next one continues.
/// Most are ready before: to leave a category out takes about as long.
const PREPARING_MAX: Duration = Duration::from_secs(1);
/// The most categories that are left out together. Each has an entry in each shard: while thousands
/// begin together, pages wait for them, which takes less time than to release each by itself.
const LEFT_OUT_MAX: usize = 32;
/// The number of positions behind a window that are looked through for events of other categories.
const BEHIND_MAX: usize = 500;
const NOT_READY: &str = "it is being prepared, and other events wait";

impl Reader {
    /// Prepares the topics and schemas that events of this page need. A page with events does not
    /// wait for them.
    pub(super) async fn make_ready(
        &mut self,
        shards: &[ShardCursor],
        page: &PageBuilder,
    ) -> Result<(), Failure> {
        let wanted = self.encoder.take_wanted();
        if !page.waits || !page.collector.is_empty() || !page.new_entries.is_empty() {
            self.encoder.begin_to_prepare(&wanted);
            return Ok(());
        }
        let prepared = self.encoder.prepare(&wanted, Instant::now() + PREPARING_MAX).await;
        let (late, reason) = match &prepared {
            Ok(()) => (self.encoder.unready(wanted), NOT_READY.to_owned()),
            Err(failure) if is_of_topics(failure) => (wanted.of_topics(), failure.in_full()),
            Err(_) => return prepared,
        };
        let is_few = (1..=LEFT_OUT_MAX).contains(&late.categories());
        if is_few && (page.delays_others || self.has_ready_behind(shards, page).await?) {
            // The next page quarantines them.
            self.encoder.are_late(&late, &reason);
            return Ok(());
        }
        prepared
    }

    /// Whether an event that can be published is behind the windows that are being published.
    async fn has_ready_behind(
        &mut self,
        shards: &[ShardCursor],
        page: &PageBuilder,
    ) -> Result<bool, Failure> {
        let now = self.end_of_log().await?.bound;
        let ends = shards.iter().filter_map(|shard| shard.cursor.until.as_ref());
        let Some(since): Option<&Bound> = ends.max_by_key(|until| until.position) else {
            return Ok(false);
        };
        let filter = QuarantineFilter::new(shards);
        let numbers: Vec<i16> = shards.iter().map(ShardCursor::shard).collect();
        let room = page.collector.room(self.event_bytes).get().min(BEHIND_MAX);
        let positions = i64::try_from(room).unwrap_or(i64::MAX);
        let (after, last) = (since.position, since.position.saturating_add(positions));
        let (window, range) = (Window { since, until: &now }, PositionRange { after, last });
        let ReaderParts { store, encoder, connection, .. } = self.parts().await?;
        let rows = store.outbox_page_by_position(connection, window, &numbers, range);
        let (mut rows, mut is_ready) = (pin!(rows), false);
        while let Some(row) = rows.try_next().await? {
            let event = row.event()?;
            is_ready |= !filter.leaves_out(&event) && encoder.is_ready(&event);
        }
        Ok(is_ready)
    }
}

/// Whether a failure of Kafka keeps topics from being prepared. Others may be published.
fn is_of_topics(failure: &Failure) -> bool {
    let is_of_kafka = matches!(failure, Failure::Kafka(_) | Failure::Claims { .. });
    is_of_kafka && failure.class() == FailureClass::Unavailable
}
