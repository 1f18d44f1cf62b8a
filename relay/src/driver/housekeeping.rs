//! Housekeeping: copies of committed checkpoints, recorded end offsets, and partitions of the
//! outbox.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annals_relay_machine::Lease;
use annals_store::Store;
use sqlx::types::Json;
use tokio::sync::watch;

use crate::config::{Config, Delivery};
use crate::kafka::topic_admin::TopicAdmin;
use crate::model::batch::SentBatch;
use crate::model::checkpoint::ShardCheckpoint;
use crate::model::offsets::{Partitions, TopicEnds};
use crate::model::shard_number::number;
use crate::report::failure::Failure;
use crate::report::threads::{in_a_thread, locked};
use crate::state::topic_ends::{EndsOrigin, record_ends};

/// The interval at which checkpoints are copied.
const INTERVAL: Duration = Duration::from_secs(1);
/// The deadline of the last copy.
const LAST_DEADLINE: Duration = Duration::from_secs(5);
/// The interval between attempts to drop a partition of the outbox, after one that dropped none: an
/// attempt can delay appends for some milliseconds.
const DROP_INTERVAL: Duration = Duration::from_secs(10);

/// The transactions that this process has committed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Committed {
    /// The incarnation of the database that it was read from.
    incarnation: Arc<str>,
    /// The last checkpoint of each shard.
    checkpoints: BTreeMap<i16, ShardCheckpoint>,
    /// The partitions that were written to since their end offsets were recorded.
    partitions: Partitions,
}

impl Committed {
    pub(crate) fn add(&mut self, sent: SentBatch) {
        let SentBatch { checkpoints, incarnation, partitions, .. } = sent;
        if self.incarnation != incarnation {
            // Checkpoints of an earlier incarnation are not written to this one.
            *self = Self { incarnation, ..Self::default() };
        }
        let shard = |lease: Lease| number(lease.shard);
        self.checkpoints.extend(checkpoints.into_iter().map(|(lease, of)| (shard(lease), of)));
        self.partitions.extend(partitions);
    }
}

/// Copies checkpoints in the background: publishing does not depend on the copies.
pub(crate) struct Housekeeping {
    store: Store,
    /// False in at-least-once delivery, which has its checkpoints in PostgreSQL.
    copies_checkpoints: bool,
    committed: watch::Sender<Committed>,
    config: Arc<Config>,
    /// The connection for end offsets.
    admin: Arc<Mutex<Option<TopicAdmin>>>,
}

impl Housekeeping {
    pub(crate) fn new(
        store: &Store,
        config: &Arc<Config>,
        committed: watch::Sender<Committed>,
    ) -> Self {
        let copies_checkpoints = config.relay.delivery == Delivery::ExactlyOnce;
        let (store, config) = (store.clone(), Arc::clone(config));
        Self { store, copies_checkpoints, committed, config, admin: Arc::default() }
    }

    /// Copies checkpoints after commits, at most once in an interval, and maintains the partitions
    /// of the outbox.
    pub(crate) async fn run(&self) -> Infallible {
        let mut committed = self.committed.subscribe();
        let mut tried = None;
        loop {
            let is_news = match tokio::time::timeout(DROP_INTERVAL, committed.changed()).await {
                Ok(Ok(())) => true,
                Err(_nothing) => false,
                // The driver has ended, and this task ends with it.
                Ok(Err(_ended)) => std::future::pending().await,
            };
            let copied = if is_news { self.once().await } else { Ok(()) };
            let done = match copied {
                Ok(()) => self.maintain_outbox(&mut tried).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = done {
                // Reading pages fails as well, and is logged.
                let error = failure.in_full();
                tracing::debug!(error, "cannot copy the checkpoints");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Copies the last checkpoints. A database that does not answer must not keep the process from
    /// ending.
    pub(crate) async fn last_copy(&self) {
        let copied = tokio::time::timeout(LAST_DEADLINE, self.once()).await;
        let late = |elapsed| Err(Failure::late("copy the checkpoints", elapsed));
        if let Err(failure) = copied.unwrap_or_else(late) {
            let error = failure.in_full();
            tracing::warn!(
                event = "checkpoints_not_copied",
                error,
                "the last checkpoints are in kafka and were not copied"
            );
        }
    }

    /// Creates partitions of the outbox in advance, and drops one that every deployment has
    /// published.
    async fn maintain_outbox(&self, tried: &mut Option<Instant>) -> Result<(), Failure> {
        let connection = self.store.pool().acquire().await;
        let mut connection = connection.map_err(Failure::database("connect"))?;
        self.store.extend_outbox(&mut connection).await?;
        if tried.is_some_and(|tried| tried.elapsed() < DROP_INTERVAL) {
            return Ok(());
        }
        let dropped = self.store.drop_published_outbox(&mut connection).await?;
        *tried = (dropped == 0).then(Instant::now);
        if dropped > 0 {
            tracing::info!(
                event = "outbox_partition_dropped",
                "dropped a partition of the outbox: every event in it is published"
            );
        }
        Ok(())
    }

    async fn once(&self) -> Result<(), Failure> {
        let Committed { incarnation, checkpoints, .. } = self.committed.borrow().clone();
        if !checkpoints.is_empty() && self.copies_checkpoints {
            self.copy(&incarnation, &checkpoints).await?;
        }
        self.record_ends(&incarnation).await
    }

    /// Records the end offsets of the partitions that were written to. The records before an end
    /// offset came from events that were committed before it was read: a database that has the row
    /// has these events.
    async fn record_ends(&self, incarnation: &str) -> Result<(), Failure> {
        let mut partitions = Partitions::new();
        self.committed.send_if_modified(|committed| {
            partitions = std::mem::take(&mut committed.partitions);
            // No receiver needs to know.
            false
        });
        if partitions.is_empty() {
            return Ok(());
        }
        let recorded = self.try_to_record(incarnation, &partitions).await;
        if let Ok(ends) = &recorded {
            partitions.retain(|(topic, number)| !ends.contains_key(&(topic.to_string(), *number)));
        }
        self.committed.send_if_modified(|committed| {
            committed.partitions.extend(partitions.drain());
            false
        });
        recorded.map(drop)
    }

    async fn try_to_record(
        &self,
        incarnation: &str,
        partitions: &Partitions,
    ) -> Result<TopicEnds, Failure> {
        let (admin, config) = (Arc::clone(&self.admin), Arc::clone(&self.config));
        let of = partitions.clone();
        let ends = in_a_thread("ends of topics", move || {
            let mut admin = locked(&admin);
            let open = match admin.take() {
                Some(open) => open,
                None => TopicAdmin::open(&config)?,
            };
            // After a failure, another connection is opened.
            let ends = open.end_offsets(&of)?;
            *admin = Some(open);
            Ok(ends)
        });
        let ends = ends.await?;
        let of = (EndsOrigin::Stored, &ends);
        record_ends(&self.store, &self.config, incarnation, of).await?;
        Ok(ends)
    }

    async fn copy(
        &self,
        incarnation: &str,
        checkpoints: &BTreeMap<i16, ShardCheckpoint>,
    ) -> Result<(), Failure> {
        let positions = checkpoints.values().map(|checkpoint| checkpoint.cursor.position());
        let statement =
            self.store.schema().statement(include_str!("../../sql/checkpoints_copy.sql"));
        sqlx::query(statement)
            .bind(self.config.publication())
            .bind(incarnation)
            .bind(checkpoints.keys().copied().collect::<Vec<_>>())
            .bind(positions.collect::<Vec<_>>())
            .bind(checkpoints.values().map(Json).collect::<Vec<_>>())
            .execute(self.store.pool())
            .await
            .map(drop)
            .map_err(Failure::database("copy the checkpoints"))
    }
}
