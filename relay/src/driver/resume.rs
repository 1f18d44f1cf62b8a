//! Where shards go on, once whoever had them before can publish no more: by their checkpoints, and with what is held.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_relay_machine::{Lease, Shard};

use crate::checkpoint::{Checkpoint, Place};
use crate::config::{Config, Delivery};
use crate::evidence::Evidence;
use crate::failure::Failure;
use crate::holds::{self, Refusal, ShardPlace};
use crate::kafka;
use crate::leases::{Known, LeaseTable, Step, number};
use crate::reader::Reads;
use crate::shell::in_a_thread;

/// What it takes to find out.
pub(crate) struct Places {
    pub(crate) config: Arc<Config>,
    pub(crate) reads: Reads,
    pub(crate) leases: LeaseTable,
    pub(crate) evidence: Evidence,
    pub(crate) step: Step,
}

impl Places {
    /// Where the leases' shards go on: after their checkpoints, or from where the deployment's generation began;
    /// with what is held in them, and what is held from now on.
    ///
    /// Before that, once in each run of the database: whether all that is published is in it.
    ///
    /// In this order: how far holds got stands in the checkpoints first; and a hold begins where its shard stands for
    /// certain.
    pub(crate) async fn read(
        &self,
        of: Vec<Lease>,
        refused: Vec<Refusal>,
    ) -> Result<Vec<(Lease, ShardPlace)>, Failure> {
        let end = Arc::new(self.reads.clone().end_of_log().await?);
        self.evidence.verify(&end).await?;
        let known = self.leases.checkpoints(&of).await?;
        let records = match self.config.relay.delivery {
            Delivery::ExactlyOnce => {
                let shards: Vec<u16> = of.iter().map(|lease| lease.shard.0).collect();
                let config = Arc::clone(&self.config);
                let read = move || Ok(kafka::read_checkpoints(&config, &shards)?);
                Some(in_a_thread("checkpoints", read).await?)
            }
            Delivery::AtLeastOnce => None,
        };
        let checkpoint = |lease: &Lease| {
            let known = known.get(&number(lease.shard)).cloned().unwrap_or_default();
            let found = match &records {
                Some(records) => in_kafka(lease.shard, records, known)?,
                None => known.copy,
            };
            let origin = || Checkpoint::new(end.history.clone(), Place::origin(), Vec::new());
            Ok::<_, Failure>(found.unwrap_or_else(origin))
        };
        let checkpoints: Vec<Checkpoint> = of.iter().map(checkpoint).collect::<Result<_, _>>()?;
        self.evidence.verify_ends(&checkpoints, &end).await?;
        let progress: Vec<_> =
            checkpoints.iter().flat_map(|checkpoint| checkpoint.holds.clone()).collect();
        // Also where there is none: what was begun earlier, and comes late, must not be done after this.
        if !self.leases.holds_went_on(self.step, &end.incarnation, &of, &progress).await? {
            return Err(Failure::Fenced);
        }
        if !refused.is_empty() {
            let places: Vec<&Place> =
                checkpoints.iter().map(|checkpoint| &checkpoint.place).collect();
            self.leases.hold(self.step, &of, (&end.incarnation, &places), &refused).await?;
            holds::say(&refused);
        }
        let mut holds = self.leases.holds(&of).await?;
        self.reads.look();
        let place = |(lease, checkpoint): (Lease, Checkpoint)| {
            let holds = holds.remove(&number(lease.shard)).unwrap_or_default();
            let Checkpoint { place, last, .. } = checkpoint;
            (lease, ShardPlace { lease, known: Arc::clone(&end), place, last, holds })
        };
        Ok(of.into_iter().zip(checkpoints).map(place).collect())
    }
}

/// A shard's checkpoint in Kafka, or where its generation began.
fn in_kafka(
    Shard(shard): Shard,
    records: &BTreeMap<u16, Vec<u8>>,
    known: Known,
) -> Result<Option<Checkpoint>, Failure> {
    let Known { origin, copy } = known;
    match (records.get(&shard), copy) {
        (Some(record), _) => Ok(Some(Checkpoint::from_bytes(shard, record)?)),
        // What it is the copy of is gone.
        (None, Some(copy)) if Some(&copy) != origin.as_ref() => {
            Err(Failure::CheckpointsLost { shard, position: copy.place.position() })
        }
        (None, _) => Ok(origin),
    }
}
