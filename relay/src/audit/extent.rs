//! How far a deployment is published, by its checkpoints, and its quarantine. Read before the
//! ends of the topics: everything that it covers is in them.

use std::collections::HashMap;

use annals_store::{Position, Store};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::model::checkpoint::ShardCheckpoint;
use crate::report::failure::Failure;

/// The checkpoints and the quarantine of a deployment at one moment.
pub(super) struct Extent {
    pub(super) shards: Vec<i16>,
    /// The checkpoints of these shards, as JSON.
    pub(super) checkpoints: Vec<String>,
    /// No checkpoint covers an event above this position.
    pub(super) highest: Position,
    entries: HashMap<(i16, String, String), QuarantineEntry>,
}

/// A quarantined stream or category of one shard.
#[derive(Debug, Clone)]
pub(super) struct QuarantineEntry {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) cursor: String,
    pub(super) cause: String,
    pub(super) reason: String,
}

impl Extent {
    pub(super) async fn read(store: &Store, publication: &str) -> Result<Self, Failure> {
        let action = "read the checkpoints and the quarantine";
        let statement = store.schema().statement(include_str!("../../sql/audit_checkpoints.sql"));
        let rows = sqlx::query(statement).bind(publication).fetch_all(store.pool()).await;
        let rows = rows.map_err(Failure::database(action))?;
        let mut extent = Self {
            shards: Vec::new(),
            checkpoints: Vec::new(),
            highest: Position::ORIGIN,
            entries: HashMap::new(),
        };
        for row in &rows {
            let shard: i16 = row.try_get("shard").map_err(Failure::database(action))?;
            let kind: Option<String> = row.try_get("kind").map_err(Failure::database(action))?;
            match kind {
                Some(kind) => {
                    let entry = entry(row, kind).map_err(Failure::database(action))?;
                    let key = (shard, entry.kind.clone(), entry.name.clone());
                    extent.entries.insert(key, entry);
                }
                None => {
                    let text: String = row.try_get("cursor").map_err(Failure::database(action))?;
                    let number = shard.unsigned_abs();
                    let checkpoint = ShardCheckpoint::from_bytes(number, text.as_bytes())?;
                    extent.cover(shard, text, &checkpoint);
                }
            }
        }
        Ok(extent)
    }

    fn cover(&mut self, shard: i16, text: String, checkpoint: &ShardCheckpoint) {
        let cursor = &checkpoint.cursor;
        let until = cursor.until.as_ref().map(|bound| bound.position);
        let covered = cursor.since.position.max(until.unwrap_or(Position::ORIGIN));
        self.highest = self.highest.max(covered);
        self.shards.push(shard);
        self.checkpoints.push(text);
    }

    /// Whether something is quarantined.
    pub(super) fn has_entries(&self) -> bool {
        !self.entries.is_empty()
    }

    /// The entry that makes an event wait.
    pub(super) fn entry(
        &self,
        shard: i16,
        category: &str,
        stream: &str,
    ) -> Option<&QuarantineEntry> {
        if self.entries.is_empty() {
            return None;
        }
        let of =
            |kind: &str, name: &str| self.entries.get(&(shard, kind.to_owned(), name.to_owned()));
        // A stream with an entry of its own has its own cursor, also in a quarantined category.
        of("stream", stream).or_else(|| of("category", category))
    }
}

fn entry(row: &PgRow, kind: String) -> Result<QuarantineEntry, sqlx::Error> {
    Ok(QuarantineEntry {
        kind,
        name: row.try_get("name")?,
        cursor: row.try_get("cursor")?,
        cause: row.try_get("cause")?,
        reason: row.try_get("reason")?,
    })
}
