//! Pages: the events after the cursors of some shards become a batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_relay_machine::{Page, Shard};
use annals_store::Position;
use annals_store::outbox::{Bound, NextPage, OutboxEvent, PositionRange, Window};

use crate::config::Durability;
use crate::model::batch::{Batch, Collector};
use crate::model::checkpoint::Cursor;
use crate::model::quarantine::{ShardCursor, groups};
use crate::model::shard_number::{number, shard};
use crate::publish::filter::QuarantineFilter;
use crate::publish::operator_requests::{OperatorRequests, QuarantineState};
use crate::publish::page_builder::PageBuilder;
use crate::publish::predecessors::name_previous;
use crate::publish::reader::{Reader, ReaderParts};
use crate::publish::rows::{RowsRead, collect};
use crate::publish::standby;
use crate::publish::step_limit::StepLimit;
use crate::report::failure::Failure;

/// The age from which on a checkpoint is written with the next batch, also if the batch has no
/// event of the shard: otherwise a quiet shard would be read from far back after a restart.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(5);

/// Shards with the same cursor, and the end of the window that they publish.
#[derive(Clone, Copy)]
struct Group<'a> {
    cursor: &'a Cursor,
    until: &'a Bound,
    shards: &'a [i16],
    filter: &'a QuarantineFilter,
}

impl Reader {
    /// The page after these cursors, up to the limits of a batch.
    pub(super) async fn page(
        &mut self,
        cursors: Vec<(Shard, ShardCursor)>,
    ) -> Result<Page<ShardCursor, Batch>, Failure> {
        if let Some(refused) = self.encoder.topics().publication_refused() {
            return Err(refused);
        }
        let mut shards: Vec<ShardCursor> = cursors.into_iter().map(|(_, cursor)| cursor).collect();
        let now = self.page_end(&shards).await?;
        self.read_requests(&mut shards).await?;
        let mut page = PageBuilder::new(self.limits);
        self.retry_quarantined(&mut shards, &mut page).await?;
        self.read_groups(&mut shards, &now, &mut page).await?;
        self.make_ready(&shards, &page).await?;
        let PageBuilder { mut collector, has_more, new_entries, last, .. } = page;
        let new_entries = new_entries.into_entries();
        if !new_entries.is_empty() {
            return Err(Failure::Quarantine(new_entries));
        }
        if !collector.messages_mut().is_empty() {
            let publication = self.publication.clone();
            let ReaderParts { store, connection, .. } = self.parts().await?;
            name_previous(connection, store, &publication, collector.messages_mut()).await?;
        }
        for shard in &mut shards {
            shard.last = last.get(&shard.shard()).copied().or(shard.last);
        }
        self.steps.page_read();
        let batch = (!collector.is_empty()).then(|| self.batch(collector, &shards));
        let cursors = shards.into_iter().map(|cursor| (shard(cursor.shard()), cursor)).collect();
        Ok(Page { batch, cursors, has_more })
    }

    /// The end of the windows that begin with this page: the end of the log, in the same
    /// incarnation of the database.
    async fn page_end(&mut self, shards: &[ShardCursor]) -> Result<Bound, Failure> {
        let end = self.end_of_log().await?;
        if shards.iter().any(|shard| shard.known.incarnation != end.incarnation) {
            return Err(Failure::DatabaseChanged);
        }
        let now = end.bound;
        let is_news = |shard: &ShardCursor| !shard.cursor.since.is_equivalent_to(&now);
        if self.durability == Durability::Standby && shards.iter().any(is_news) {
            let standbys = Arc::clone(&self.standbys);
            let ReaderParts { store, connection, .. } = self.parts().await?;
            standby::until_flushed(connection, store, &standbys).await?;
        }
        Ok(now)
    }

    /// Reads the requests of operators, if that is due, and drops the progress from the cursors
    /// that PostgreSQL has recorded.
    async fn read_requests(&mut self, shards: &mut [ShardCursor]) -> Result<(), Failure> {
        for shard in shards.iter_mut() {
            shard.quarantine.recorded(&self.recorded);
        }
        let state = if shards.iter().any(|shard| !shard.quarantine.is_empty()) {
            QuarantineState::HasEntries
        } else {
            self.recorded.clear();
            QuarantineState::Empty
        };
        if self.requests.is_due(state) {
            let publication = self.publication.clone();
            let ReaderParts { store, connection, .. } = self.parts().await?;
            self.requests = OperatorRequests::read(connection, store, &publication).await?;
            self.skipped.forget();
        }
        Ok(())
    }

    async fn read_groups(
        &mut self,
        shards: &mut [ShardCursor],
        now: &Bound,
        page: &mut PageBuilder,
    ) -> Result<(), Failure> {
        let filter = QuarantineFilter::new(shards);
        let groups = groups(shards);
        let is_read = |(since, until): &(Bound, Bound)| {
            let is_of = |of: &Cursor| of.since == *since && of.until.as_ref() == Some(until);
            groups.iter().any(|(cursor, _)| is_of(cursor))
        };
        self.late.retain(|window, _| is_read(window));
        for (before, (cursor, numbers)) in groups.iter().enumerate() {
            // Groups that are far behind leave room for the others.
            page.share(groups.len() - before);
            let until = cursor.until.as_ref().unwrap_or(now);
            let group = Group { cursor, until, shards: numbers, filter: &filter };
            let after = self.group(&group, page).await?;
            for shard in shards.iter_mut().filter(|shard| numbers.contains(&shard.shard())) {
                shard.cursor = after.clone();
            }
        }
        Ok(())
    }

    /// Reads the window of a group, or as much of it as there is room for; returns the cursor after
    /// it.
    async fn group(
        &mut self,
        group: &Group<'_>,
        page: &mut PageBuilder,
    ) -> Result<Cursor, Failure> {
        let Group { cursor, until, .. } = *group;
        if cursor.until.is_none() && until.is_equivalent_to(&cursor.since) {
            return Ok(cursor.clone());
        }
        let window = Window { since: &cursor.since, until };
        let late = self.late(window).await?;
        let (mut after, mut step) = (cursor.after, 0);
        loop {
            let stretch = window.next_page(late.as_ref(), after);
            if stretch == NextPage::End {
                return Ok(Cursor::done(until));
            }
            let room = page.collector.room(self.event_bytes);
            let room = i64::try_from(room.get()).unwrap_or(i64::MAX);
            step = self.steps.begin(room.max(step));
            let (read, end) = self.stretch(group, stretch, step, page).await?;
            self.steps.ended();
            self.rows_read(&read, usize::try_from(step).unwrap_or(usize::MAX));
            after = match read.last {
                Some(last) if read.is_cut || end < last => last,
                None if read.is_cut => after,
                Some(_) | None => end,
            };
            if read.is_cut || page.is_over() {
                break;
            }
            // If few positions have events for the page, more of them are read at once.
            step = if read.events == 0 { StepLimit::wider(step) } else { room };
        }
        if window.next_page(late.as_ref(), after) == NextPage::End {
            return Ok(Cursor::done(until));
        }
        page.has_more = true;
        Ok(cursor.within(until, after))
    }

    /// Reads one statement's worth of a stretch of a group's window; returns the position up to
    /// which it has read all.
    async fn stretch(
        &mut self,
        group: &Group<'_>,
        stretch: NextPage<'_>,
        step: i64,
        page: &mut PageBuilder,
    ) -> Result<(RowsRead, Position), Failure> {
        let Group { cursor, until, shards, filter } = *group;
        let window = Window { since: &cursor.since, until };
        let events_max = page.collector.room(self.event_bytes);
        let ReaderParts { store, encoder, connection, skipped } = self.parts().await?;
        let is_left_out = |event: &OutboxEvent<'_>| filter.leaves_out(event);
        match stretch {
            NextPage::OfPositions(positions) => {
                let positions = &positions[..positions.len().min(events_max.get())];
                let end = positions.last().copied().unwrap_or(cursor.after);
                let rows = store.outbox_page_of_positions(connection, window, shards, positions);
                Ok((collect(rows, encoder, skipped, page, is_left_out).await?, end))
            }
            NextPage::ByPosition(PositionRange { after, last }) => {
                let last = last.min(after.saturating_add(step));
                let limits = PositionRange { after, last };
                let rows = store.outbox_page_by_position(connection, window, shards, limits);
                Ok((collect(rows, encoder, skipped, page, is_left_out).await?, last))
            }
            NextPage::End => Ok((RowsRead::none(), until.position)),
        }
    }

    /// A batch, with the checkpoints of the shards of its events, and of shards not written
    /// for a while.
    fn batch(&mut self, collector: Collector, shards: &[ShardCursor]) -> Batch {
        let now = Instant::now();
        let is_due = |shard: &i16| {
            collector.shards().contains(shard)
                || self.written.get(shard).is_none_or(|at| now - *at >= CHECKPOINT_AGE_MAX)
        };
        let due = shards.iter().filter(|shard| is_due(&shard.shard()));
        let due: Vec<_> = due.map(|shard| (shard.lease, shard.checkpoint())).collect();
        let incarnation = shards.first().map(|shard| Arc::clone(&shard.known.incarnation));
        self.written.extend(due.iter().map(|(lease, _)| (number(lease.shard), now)));
        collector.into_batch(due, incarnation.unwrap_or_default())
    }
}
