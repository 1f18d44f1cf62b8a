//! Which events count as published: by the checkpoints and the quarantine of the deployment.

use std::collections::HashMap;
use std::sync::Arc;

use annals_relay_machine::Shard;
use annals_store::Store;
use annals_store::outbox::Bound;
use sqlx::Row;

use crate::config::Config;
use crate::driver::checkpoints;
use crate::model::checkpoint::{Cursor, EntryId};
use crate::model::shard_number::{number, shard};
use crate::replay::Result;
use crate::replay::plan::{Covered, CoveredEntry};
use crate::report::failure::Failure;
use crate::state::RelayTables;

/// Every event that was visible at a bound, of so many shards.
pub(super) fn everything(bound: &Bound, shards: i16) -> Result<Covered> {
    let cursor = serde_json::to_value(Cursor::done(bound))?;
    let shards: Vec<i16> = (0..shards).collect();
    Ok(Covered { cursors: vec![cursor; shards.len()], shards, entries: Vec::new() })
}

/// The events that the deployment has published: relays publish all others, from the same cursors
/// on.
pub(super) async fn published(config: &Arc<Config>, store: &Store, shards: i16) -> Result<Covered> {
    let shards: Vec<Shard> = (0..shards).map(shard).collect();
    let entries = entries(store, &config.publication()).await?;
    let checkpoints = checkpoints(config, &RelayTables::new(config, store), &shards).await?;
    let mut covered = Covered::default();
    let mut progress = HashMap::new();
    for (shard, checkpoint) in shards.into_iter().zip(checkpoints) {
        let Some(checkpoint) = checkpoint else { continue };
        progress.extend(checkpoint.quarantine.iter().map(|of| (of.entry, of.cursor.clone())));
        covered.shards.push(number(shard));
        covered.cursors.push(serde_json::to_value(&checkpoint.cursor)?);
    }
    // The checkpoints have the progress of entries before PostgreSQL has.
    for (id, entry) in entries {
        let entry = match progress.remove(&id) {
            None => entry,
            Some(None) => continue,
            Some(Some(cursor)) => CoveredEntry { cursor: serde_json::to_value(cursor)?, ..entry },
        };
        covered.entries.push(entry);
    }
    Ok(covered)
}

async fn entries(store: &Store, publication: &str) -> Result<Vec<(EntryId, CoveredEntry)>> {
    let action = "read the quarantine";
    let statement = store.schema().statement(include_str!("../../sql/replay_quarantine.sql"));
    let rows = sqlx::query(statement).bind(publication).fetch_all(store.pool()).await;
    let rows = rows.map_err(Failure::database(action))?;
    let entry = |row: &sqlx::postgres::PgRow| {
        let cursor: sqlx::types::Json<serde_json::Value> = row.try_get("cursor")?;
        let (shard, kind, name) =
            (row.try_get("shard")?, row.try_get("kind")?, row.try_get("name")?);
        let entry = CoveredEntry { shard, kind, name, cursor: cursor.0 };
        Ok::<_, sqlx::Error>((EntryId::new(row.try_get("entry")?), entry))
    };
    let entries: Result<_, sqlx::Error> = rows.iter().map(entry).collect();
    Ok(entries.map_err(Failure::database(action))?)
}
