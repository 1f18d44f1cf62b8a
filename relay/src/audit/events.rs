//! Goes through the events of the store, and finds out about those without a record.

use annals_store::Position;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::audit::extent::QuarantineEntry;
use crate::audit::finding::{Finding, FoundEvent, LossCause};
use crate::audit::{Auditor, Result};
use crate::model::message::Destination;
use crate::report::failure::Failure;
use crate::report::progress::Progress;

/// The number of positions that are read at once.
const POSITIONS: i64 = 100_000;
/// The number of events without a record that are looked up at once.
const LOOKED_UP: usize = 1_000;

/// An event without a record.
struct Unpublished {
    event: FoundEvent,
    shard: i16,
    xid: String,
    /// Whether its shard's checkpoint covers it.
    is_covered: bool,
    is_skipped: bool,
    reason: Option<String>,
    skipped_by: Option<String>,
}

impl Auditor<'_> {
    /// Goes through every event up to `until` that is not proven.
    pub(super) async fn account_for_events(&mut self, until: Position) -> Result {
        let mut after = self.proven;
        let positions = until.get().saturating_sub(after.get()).unsigned_abs();
        let mut progress = Progress::new("positions of the store", positions);
        loop {
            let page = self.positions(after, until).await?;
            self.summary.events += page.len() as u64;
            let missing: Vec<Position> =
                page.iter().filter(|position| !self.seen.contains(**position)).copied().collect();
            for some in missing.chunks(LOOKED_UP) {
                self.account_for(some).await?;
            }
            let is_last = i64::try_from(page.len()).is_ok_and(|found| found < POSITIONS);
            let Some(last) = page.last().filter(|_| !is_last) else { return Ok(()) };
            progress.advance(last.get().saturating_sub(after.get()).unsigned_abs());
            after = *last;
        }
    }

    async fn positions(&self, after: Position, until: Position) -> Result<Vec<Position>> {
        let statement =
            self.store.schema().statement(include_str!("../../sql/audit_positions.sql"));
        let page = sqlx::query_scalar(statement).bind(after).bind(until).bind(POSITIONS);
        let page = page.fetch_one(self.store.pool()).await;
        Ok(page.map_err(Failure::database("read the positions of events"))?)
    }

    async fn account_for(&mut self, missing: &[Position]) -> Result {
        let unresolved = missing.first().copied();
        let is_waiting = |position: &&Position| **position > self.extent.highest;
        let is_simple = !self.lists_unpublished() && !self.extent.has_entries();
        if is_simple && missing.iter().all(|position| is_waiting(&position)) {
            self.summary.waiting += missing.len() as u64;
            self.unresolved(unresolved);
            return Ok(());
        }
        let events = self.unpublished(missing).await?;
        let entries: Vec<Option<QuarantineEntry>> = events
            .iter()
            .map(|of| self.extent.entry(of.shard, &of.event.category, &of.event.stream).cloned())
            .collect();
        let covered = self.covered_by(&events, &entries).await?;
        for ((event, entry), is_published) in events.into_iter().zip(entries).zip(covered) {
            self.classify(event, entry.filter(|_entry| !is_published))?;
        }
        Ok(())
    }

    /// Reports an event without a record. `entry`: the quarantine entry that has yet to publish it.
    fn classify(&mut self, of: Unpublished, entry: Option<QuarantineEntry>) -> Result {
        let Unpublished { event, is_covered, is_skipped, reason, skipped_by, .. } = of;
        if is_skipped {
            self.summary.skipped += 1;
            return self.listed(&Finding::Skipped { event, reason, skipped_by });
        }
        self.unresolved(Some(event.position));
        match entry {
            Some(QuarantineEntry { kind, name, cause, reason, .. }) => {
                self.summary.quarantined += 1;
                self.listed(&Finding::Quarantined { event, kind, name, cause, reason })
            }
            None if !is_covered => {
                self.summary.waiting += 1;
                self.listed(&Finding::Waiting(event))
            }
            None => self.lost(event),
        }
    }

    fn lost(&mut self, event: FoundEvent) -> Result {
        let topic = self.config.topic(&event.category);
        let partition = self.topics.partition_count(&topic).map(|partitions| {
            let topic = topic.as_str().into();
            let to = Destination { topic, partitions, batch_bytes_max: None };
            to.partition_of(&event.stream)
        });
        let range = partition.and_then(|partition| self.topics.range(&topic, partition));
        let recorded = partition
            .and_then(|partition| self.topics.recorded.get(&(topic.clone(), partition)).copied());
        let cause = match range {
            None => LossCause::TopicMissing,
            Some(range) if recorded.is_some_and(|end| range.end < end) => LossCause::TopicRecreated,
            Some(range) if range.first.get() > 0 => LossCause::RecordsDeleted,
            Some(_) => LossCause::NotInTopic,
        };
        let partition = partition.filter(|_| range.is_some());
        self.found(&Finding::Lost { event, topic, partition, cause })
    }

    fn listed(&mut self, finding: &Finding) -> Result {
        if self.lists_unpublished() { self.found(finding) } else { Ok(()) }
    }

    async fn unpublished(&self, positions: &[Position]) -> Result<Vec<Unpublished>> {
        let action = "look up events without a record";
        let statement =
            self.store.schema().statement(include_str!("../../sql/audit_unpublished.sql"));
        let rows = sqlx::query(statement)
            .bind(positions)
            .bind(&self.extent.shards)
            .bind(&self.extent.checkpoints)
            .bind(self.config.publication())
            .fetch_all(self.store.pool())
            .await
            .map_err(Failure::database(action))?;
        Ok(rows
            .iter()
            .map(unpublished)
            .collect::<Result<_, _>>()
            .map_err(Failure::database(action))?)
    }

    /// Whether the cursors of their quarantine entries cover the events; true without an entry.
    async fn covered_by(
        &self,
        events: &[Unpublished],
        entries: &[Option<QuarantineEntry>],
    ) -> Result<Vec<bool>> {
        let quarantined: Vec<(&Unpublished, &QuarantineEntry)> = events
            .iter()
            .zip(entries)
            .filter_map(|(event, of)| Some((event, of.as_ref()?)))
            .collect();
        if quarantined.is_empty() {
            return Ok(vec![true; events.len()]);
        }
        let statement = self.store.schema().statement(include_str!("../../sql/audit_covered.sql"));
        let covered: Vec<bool> = sqlx::query_scalar(statement)
            .bind(quarantined.iter().map(|(of, _)| of.event.position).collect::<Vec<_>>())
            .bind(quarantined.iter().map(|(of, _)| of.xid.as_str()).collect::<Vec<_>>())
            .bind(quarantined.iter().map(|(_, of)| of.cursor.as_str()).collect::<Vec<_>>())
            .fetch_all(self.store.pool())
            .await
            .map_err(Failure::database("compare events with cursors"))?;
        let mut covered = covered.into_iter();
        Ok(entries.iter().map(|of| of.is_none() || covered.next().unwrap_or(false)).collect())
    }
}

fn unpublished(row: &PgRow) -> Result<Unpublished, sqlx::Error> {
    let recorded_us: i64 = row.try_get("recorded_us")?;
    let event = FoundEvent {
        position: row.try_get("position")?,
        stream: row.try_get("stream")?,
        version: row.try_get("version")?,
        event_id: row.try_get("event_id")?,
        category: row.try_get("category")?,
        recorded_at: Timestamp::from_microsecond(recorded_us).unwrap_or_default(),
    };
    Ok(Unpublished {
        event,
        shard: row.try_get("shard")?,
        xid: row.try_get("xid")?,
        is_covered: row.try_get("is_covered")?,
        is_skipped: row.try_get("is_skipped")?,
        reason: row.try_get("skip_reason")?,
        skipped_by: row.try_get("skipped_by")?,
    })
}
