//! Which events count as published: by the checkpoints and the quarantine of the deployment.

use std::collections::HashMap;
use std::sync::Arc;

use annals_store::Store;
use annals_store::outbox::Bound;
use sqlx::Row;

use crate::config::{Config, Delivery};
use crate::kafka::read_checkpoints;
use crate::model::checkpoint::{Cursor, EntryId, ShardCheckpoint};
use crate::replay::plan::{Covered, CoveredEntry};
use crate::replay::{ReplayError, Result};
use crate::report::failure::Failure;
use crate::report::threads::in_a_thread;

/// Every event that was visible at a bound, of so many shards.
pub(super) fn everything(bound: &Bound, shards: i16) -> Result<Covered> {
    let cursor = serde_json::to_value(Cursor::done(bound))?;
    let shards: Vec<i16> = (0..shards).collect();
    Ok(Covered { cursors: vec![cursor; shards.len()], shards, entries: Vec::new() })
}

/// The events that the deployment has published: relays publish all others, from the same cursors
/// on.
pub(super) async fn published(config: &Arc<Config>, store: &Store, shards: i16) -> Result<Covered> {
    let shards: Vec<i16> = (0..shards).collect();
    let entries = entries(store, &config.publication()).await?;
    let checkpoints = checkpoints(config, store, &shards).await?;
    let mut covered = Covered::default();
    let mut progress = HashMap::new();
    for (shard, checkpoint) in shards.into_iter().zip(checkpoints) {
        let Some(checkpoint) = checkpoint else { continue };
        progress.extend(checkpoint.quarantine.iter().map(|of| (of.entry, of.cursor.clone())));
        covered.shards.push(shard);
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

/// The checkpoints of all shards; none for a shard of which nothing is published.
async fn checkpoints(
    config: &Arc<Config>,
    store: &Store,
    shards: &[i16],
) -> Result<Vec<Option<ShardCheckpoint>>> {
    let action = "read checkpoints";
    let statement = store.schema().statement(include_str!("../../sql/checkpoints_read.sql"));
    let rows = sqlx::query(statement).bind(config.publication()).bind(shards);
    let rows = rows.fetch_all(store.pool()).await.map_err(Failure::database(action))?;
    let mut stored = HashMap::new();
    for row in &rows {
        let of = |name: &str| row.try_get::<Option<sqlx::types::Json<ShardCheckpoint>>, _>(name);
        let read = || Ok((row.try_get::<i16, _>("shard")?, of("origin")?, of("copy")?));
        let (shard, origin, copy) = read().map_err(Failure::database(action))?;
        stored.insert(shard, (origin.map(|json| json.0), copy.map(|json| json.0)));
    }
    let mut records = match config.relay.delivery {
        Delivery::AtLeastOnce => None,
        Delivery::ExactlyOnce => {
            let (config, shards) = (Arc::clone(config), shards.to_vec());
            let read = move || {
                let shards: Vec<u16> = shards.iter().map(|shard| shard.unsigned_abs()).collect();
                Ok(read_checkpoints(&config, &shards)?)
            };
            Some(in_a_thread("checkpoints", read).await?)
        }
    };
    let mut checkpoints = Vec::new();
    for shard in shards {
        let (origin, copy) = stored.remove(shard).unwrap_or_default();
        let number = shard.unsigned_abs();
        checkpoints.push(match records.as_mut().map(|records| records.remove(&number)) {
            None => copy,
            Some(Some(record)) => {
                Some(ShardCheckpoint::from_bytes(number, &record).map_err(Failure::from)?)
            }
            Some(None) if copy.is_some() && copy != origin => {
                return Err(ReplayError::CheckpointsLost { shard: number });
            }
            Some(None) => origin,
        });
    }
    Ok(checkpoints)
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
