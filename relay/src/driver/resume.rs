//! Where shards are resumed, once their earlier owners can publish no more: their checkpoints, with
//! their quarantine.

use annals_store::Position;
use std::collections::BTreeMap;
use std::sync::Arc;

use annals_relay_machine::{Lease, Shard};

use crate::config::{Config, Delivery};
use crate::driver::evidence::EvidenceCheck;
use crate::kafka::read_checkpoints;
use crate::model::checkpoint::{Cursor, ShardCheckpoint};
use crate::model::quarantine::{Cause, Kind, NewEntry, ShardCursor, with_categories};
use crate::model::shard_number::number;
use crate::publish::ReaderHandle;
use crate::report::Reporter;
use crate::report::failure::Failure;
use crate::report::threads::in_a_thread;
use crate::state::{RelayTables, StoredCheckpoints, WriteNumber};

/// The most new entries that are logged.
const LOGGED_MAX: usize = 20;

/// The inputs of reading the cursors.
pub(crate) struct Resume {
    pub(crate) config: Arc<Config>,
    pub(crate) reader: ReaderHandle,
    pub(crate) tables: RelayTables,
    pub(crate) evidence: EvidenceCheck,
    pub(crate) write: WriteNumber,
    pub(crate) reporter: Reporter,
}

impl Resume {
    /// The cursors of the leases' shards: after their checkpoints, or from the origin of the
    /// deployment's generation; with their quarantine, to which `new_entries` are added.
    ///
    /// First, once for each incarnation of the database, it fences the sessions that the database
    /// does not know, and verifies that the database has all published events.
    ///
    /// The order matters: the progress of quarantine entries is in the checkpoints first, and a new
    /// entry begins at the committed cursor of its shard.
    pub(crate) async fn cursors(
        &self,
        leases: Vec<Lease>,
        new_entries: Vec<NewEntry>,
    ) -> Result<Vec<(Lease, ShardCursor)>, Failure> {
        let end = Arc::new(self.reader.clone().end_of_log().await?);
        self.evidence.verify(&self.tables, &end, (&self.reader, &self.reporter)).await?;
        let origin = || ShardCheckpoint::new(end.history.clone(), Cursor::origin(), Vec::new());
        let shards: Vec<Shard> = leases.iter().map(|lease| lease.shard).collect();
        let checkpoints = checkpoints(&self.config, &self.tables, &shards).await?;
        let checkpoints: Vec<ShardCheckpoint> =
            checkpoints.into_iter().map(|found| found.unwrap_or_else(origin)).collect();
        self.evidence.verify_ends(&checkpoints, &end).await?;
        self.update_quarantine(&leases, &end.incarnation, &checkpoints, new_entries).await?;
        let mut quarantine = self.tables.quarantine_of(&leases).await?;
        self.reader.forget_requests();
        let resumed = |(lease, checkpoint): (Lease, ShardCheckpoint)| {
            let quarantine = quarantine.remove(&number(lease.shard)).unwrap_or_default();
            let ShardCheckpoint { cursor, last, open_entries, .. } = checkpoint;
            if open_entries.is_some_and(|open| !open.are_among(quarantine.ids())) {
                return Err(Failure::QuarantineLost { shard: lease.shard.0 });
            }
            Ok((lease, ShardCursor { lease, known: Arc::clone(&end), cursor, last, quarantine }))
        };
        leases.into_iter().zip(checkpoints).map(resumed).collect()
    }

    /// Records the progress in the checkpoints, and adds the new entries.
    async fn update_quarantine(
        &self,
        leases: &[Lease],
        incarnation: &str,
        checkpoints: &[ShardCheckpoint],
        new_entries: Vec<NewEntry>,
    ) -> Result<(), Failure> {
        let progress: Vec<_> = checkpoints.iter().flat_map(|of| of.quarantine.clone()).collect();
        // Also without progress: this write keeps earlier ones that come late from being admitted.
        let write = self.tables.advance_quarantine(self.write, incarnation, leases, &progress);
        if !write.await? {
            return Err(Failure::Fenced);
        }
        if !new_entries.is_empty() {
            let cursors: Vec<&Cursor> = checkpoints.iter().map(|of| &of.cursor).collect();
            let from = (incarnation, &cursors[..]);
            let known = self.tables.quarantine_of(leases).await?;
            let new_entries = with_categories(known.values(), new_entries);
            self.tables.quarantine(self.write, leases, from, &new_entries).await?;
            log(&new_entries);
        }
        Ok(())
    }
}

/// The checkpoints of shards, as far as there are any.
pub(crate) async fn checkpoints(
    config: &Arc<Config>,
    tables: &RelayTables,
    shards: &[Shard],
) -> Result<Vec<Option<ShardCheckpoint>>, Failure> {
    let mut stored = tables.checkpoints(shards).await?;
    let records = match config.relay.delivery {
        Delivery::ExactlyOnce => {
            let numbers: Vec<u16> = shards.iter().map(|shard| shard.0).collect();
            let config = Arc::clone(config);
            let read = move || Ok(read_checkpoints(&config, &numbers)?);
            Some(in_a_thread("checkpoints", read).await?)
        }
        Delivery::AtLeastOnce => None,
    };
    let checkpoint = |shard: &Shard| {
        let stored = stored.remove(&number(*shard)).unwrap_or_default();
        match &records {
            Some(records) => in_kafka(*shard, records, stored),
            None => Ok(stored.copy.map(without_evidence)),
        }
    };
    shards.iter().map(checkpoint).collect()
}

/// A shard's checkpoint in Kafka, or the origin of its generation.
fn in_kafka(
    Shard(shard): Shard,
    records: &BTreeMap<u16, Vec<u8>>,
    stored: StoredCheckpoints,
) -> Result<Option<ShardCheckpoint>, Failure> {
    let StoredCheckpoints { origin, copy } = stored;
    match (records.get(&shard), copy) {
        (Some(record), copy) => {
            let found = ShardCheckpoint::from_bytes(shard, record)?;
            // A copy is written after its original is committed: it is never ahead.
            let is_later = |copy: &ShardCheckpoint| {
                copy.history == found.history && found.cursor.is_behind(&copy.cursor)
            };
            match copy.filter(is_later) {
                Some(copy) => Err(Failure::CheckpointsOlder {
                    shard,
                    found: found.cursor.position(),
                    copied: copy.cursor.position(),
                }),
                None => Ok(Some(found)),
            }
        }
        // There is a copy, and Kafka has lost the checkpoint.
        (None, Some(copy)) if Some(&copy) != origin.as_ref() => {
            Err(Failure::CheckpointsLost { shard, position: copy.cursor.position() })
        }
        (None, _) => Ok(origin.map(without_evidence)),
    }
}

/// A checkpoint from PostgreSQL: the database cannot have lost an older entry than its checkpoint,
/// and later ones can have ended since.
fn without_evidence(checkpoint: ShardCheckpoint) -> ShardCheckpoint {
    checkpoint.with_open_entries(None)
}

/// Logs new entries of the quarantine, with the operations on them.
fn log(entries: &[NewEntry]) {
    for NewEntry { kind, name, cause, reason, position } in entries.iter().take(LOGGED_MAX) {
        let hint = match (kind, cause) {
            (Kind::Category, Cause::Topic) => "it is retried once its topic can be written to",
            (Kind::Category, Cause::Registry) => "it is retried once the registry has answered",
            (Kind::Category, Cause::Record | Cause::Schema | Cause::Event) => {
                "see `annals-relay quarantine show`, then retry"
            }
            (Kind::Stream, _) => "see `annals-relay quarantine show`, then retry or skip",
        };
        let position = position.map(Position::get);
        tracing::warn!(
            event = "quarantined", %kind, name, cause = cause.id(), position, reason,
            "quarantined {kind} {name}: {hint}"
        );
    }
    if entries.len() > LOGGED_MAX {
        let more = entries.len() - LOGGED_MAX;
        tracing::warn!(
            event = "quarantined_more",
            more,
            "quarantined more streams or categories: see `annals-relay quarantine list`"
        );
    }
}
