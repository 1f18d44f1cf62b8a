//! Compares records with the events of the store, chunk by chunk, in the order of the partitions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use annals_store::{Position, Version};
use sqlx::Row;
use uuid::Uuid;

use crate::audit::finding::{Finding, FoundRecord};
use crate::audit::partition::{Anchor, RecordOrder};
use crate::audit::topics::ScannedRecord;
use crate::audit::{Auditor, Result};
use crate::config::Delivery;
use crate::model::message::Destination;
use crate::report::failure::Failure;

/// How many later versions of a stream are looked for before a late record.
const SUCCESSORS_MAX: i64 = 8;

/// A record that has everything by which it is compared.
struct Comparable {
    record: ScannedRecord,
    stream: String,
    version: Version,
    event_id: Uuid,
    position: Position,
    hash: [u8; 32],
    is_misplaced: bool,
    is_late: bool,
}

/// The result of comparing a record with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecordDifference {
    /// The event at its position is another version of it.
    Changed,
    /// Its event was removed.
    Removed,
    /// The store never had its event.
    Unknown,
}

impl Auditor<'_> {
    /// Takes the next records.
    pub(super) async fn compare(&mut self, chunk: Vec<ScannedRecord>) -> Result {
        self.summary.records += chunk.len() as u64;
        let mut comparable = Vec::with_capacity(chunk.len());
        for record in chunk {
            if let Some(record) = self.place(record)? {
                comparable.push(record);
            }
        }
        let differences = self.differences(&comparable).await?;
        let successors = self.successors(&comparable, &differences).await?;
        for (index, record) in comparable.into_iter().enumerate() {
            match differences.get(&index) {
                None => {
                    let later = successors.get(&index).map_or(&[][..], Vec::as_slice);
                    self.count(&record, later)?;
                }
                Some(RecordDifference::Removed) => self.summary.removed += 1,
                Some(RecordDifference::Unknown) => self.found(&Finding::Unknown(record.found()))?,
                Some(RecordDifference::Changed) => {
                    // Its event is not lost.
                    self.seen.insert(record.position);
                    self.found(&Finding::Changed(record.found()))?;
                }
            }
        }
        self.memory_is_bounded()
    }

    /// Finds the place of a record in its partition; none if it is not compared any more.
    fn place(&mut self, record: ScannedRecord) -> Result<Option<Comparable>> {
        let headers = &record.headers;
        let (Some(stream), Some(event_id), Some(version), Some(position), Some(hash)) = (
            record.stream.clone(),
            headers.event_id,
            headers.version,
            headers.position,
            record.hash,
        ) else {
            self.found(&Finding::Unknown(found(&record)))?;
            return Ok(None);
        };
        let key = (Arc::clone(&record.topic), record.partition);
        let anchor = Anchor { offset: record.offset, event_id };
        let place = self.partitions.get_mut(&key).map(|of| of.take(anchor, position, self.proven));
        let is_late = match place {
            None | Some(RecordOrder::Counted) => return Ok(None),
            Some(RecordOrder::InOrder) => false,
            Some(RecordOrder::Late) => true,
        };
        let expected = self.partition_of(&record.topic, &stream);
        let expected = expected.filter(|expected| *expected != record.partition);
        if let Some(expected_partition) = expected {
            self.found(&Finding::Misplaced { record: found(&record), expected_partition })?;
        }
        Ok(Some(Comparable {
            stream,
            version,
            event_id,
            position,
            hash,
            is_misplaced: expected.is_some(),
            is_late,
            record,
        }))
    }

    fn partition_of(&self, topic: &Arc<str>, stream: &str) -> Option<i32> {
        let partitions = self.topics.partition_count(topic)?;
        let topic = Arc::clone(topic);
        let to = Destination { topic, partitions, batch_bytes_max: None };
        Some(to.partition_of(stream))
    }

    /// The records that differ from their events, by index.
    async fn differences(
        &self,
        records: &[Comparable],
    ) -> Result<BTreeMap<usize, RecordDifference>> {
        let action = "compare records with events";
        let statement = self.store.schema().statement(include_str!("../../sql/audit_compare.sql"));
        let rows = sqlx::query(statement)
            .bind(records.iter().map(|of| of.position).collect::<Vec<_>>())
            .bind(records.iter().map(|of| of.event_id).collect::<Vec<_>>())
            .bind(records.iter().map(|of| of.stream.as_str()).collect::<Vec<_>>())
            .bind(records.iter().map(|of| of.version).collect::<Vec<_>>())
            .bind(records.iter().map(|of| &of.hash[..]).collect::<Vec<_>>())
            .fetch_all(self.store.pool())
            .await
            .map_err(Failure::database(action))?;
        let mut differences = BTreeMap::new();
        let mut unknown = Vec::new();
        for row in &rows {
            let index: i64 = row.try_get("index").map_err(Failure::database(action))?;
            let index = usize::try_from(index - 1).unwrap_or(usize::MAX);
            if row.try_get("is_known").map_err(Failure::database(action))? {
                differences.insert(index, RecordDifference::Changed);
            } else {
                unknown.push(index);
            }
        }
        let ids: Vec<Uuid> =
            unknown.iter().filter_map(|i| Some(records.get(*i)?.event_id)).collect();
        let known = self.known(ids).await?;
        for index in unknown {
            let known = records.get(index).and_then(|record| known.get(&record.event_id));
            let difference = match known {
                None => RecordDifference::Unknown,
                Some(true) => RecordDifference::Removed,
                Some(false) => RecordDifference::Changed,
            };
            differences.insert(index, difference);
        }
        Ok(differences)
    }

    /// The events that the store has or had, and whether they were removed.
    async fn known(&self, ids: Vec<Uuid>) -> Result<HashMap<Uuid, bool>> {
        let action = "look up the events of records";
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let statement = self.store.schema().statement(include_str!("../../sql/audit_removed.sql"));
        let rows = sqlx::query(statement).bind(ids).fetch_all(self.store.pool()).await;
        let rows = rows.map_err(Failure::database(action))?;
        let known = |row: &sqlx::postgres::PgRow| {
            Ok((row.try_get("event_id")?, row.try_get("is_removed")?))
        };
        Ok(rows.iter().map(known).collect::<Result<_, _>>().map_err(Failure::database(action))?)
    }

    /// The positions of the later versions of late records, by index.
    async fn successors(
        &self,
        records: &[Comparable],
        differences: &BTreeMap<usize, RecordDifference>,
    ) -> Result<HashMap<usize, Vec<Position>>> {
        let late = records.iter().enumerate();
        let late = late
            .filter(|(index, record)| record.can_be_inverted() && !differences.contains_key(index));
        let (indexes, late): (Vec<usize>, Vec<&Comparable>) = late.unzip();
        if late.is_empty() {
            return Ok(HashMap::new());
        }
        let statement =
            self.store.schema().statement(include_str!("../../sql/audit_successors.sql"));
        let positions: Vec<Vec<Position>> = sqlx::query_scalar(statement)
            .bind(late.iter().map(|of| of.stream.as_str()).collect::<Vec<_>>())
            .bind(late.iter().map(|of| of.version).collect::<Vec<_>>())
            .bind(SUCCESSORS_MAX)
            .fetch_all(self.store.pool())
            .await
            .map_err(Failure::database("read later versions of streams"))?;
        Ok(indexes.into_iter().zip(positions).collect())
    }

    /// Counts a record that is as its event. `later` are the positions of later versions, if the
    /// record may be behind one of them.
    fn count(&mut self, record: &Comparable, later: &[Position]) -> Result {
        let is_replayed = record.record.headers.is_replayed;
        let is_first = record.position > self.proven && self.seen.insert(record.position);
        if !is_first {
            if is_replayed {
                self.summary.replayed += 1;
            } else if self.config.relay.delivery == Delivery::AtLeastOnce {
                self.summary.repeated += 1;
            } else {
                self.found(&Finding::Duplicate(record.found()))?;
            }
            return Ok(());
        }
        self.summary.published += 1;
        if record.is_misplaced {
            self.misplaced.insert(record.position);
        }
        // Partitions are read in any order: a record in another one is neither before nor after.
        let is_before = |later: &&Position| {
            (**later <= self.proven || self.seen.contains(**later))
                && !self.misplaced.contains(**later)
        };
        match later.iter().find(is_before) {
            Some(_) if is_replayed => self.summary.restored += 1,
            Some(&later_position) => {
                self.found(&Finding::Inversion { record: record.found(), later_position })?;
            }
            None => {}
        }
        if self.lists_everything() {
            self.found(&Finding::Published(record.found()))?;
        }
        Ok(())
    }
}

impl Comparable {
    /// Whether a later version of its stream may be before it in its partition.
    const fn can_be_inverted(&self) -> bool {
        self.is_late && !self.is_misplaced
    }

    fn found(&self) -> FoundRecord {
        found(&self.record)
    }
}

fn found(record: &ScannedRecord) -> FoundRecord {
    FoundRecord {
        topic: record.topic.to_string(),
        partition: record.partition,
        offset: record.offset.get(),
        stream: record.stream.clone(),
        version: record.headers.version,
        event_id: record.headers.event_id,
        position: record.headers.position,
        is_replayed: record.headers.is_replayed,
    }
}
