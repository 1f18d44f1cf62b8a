//! What is done beside publishing: copies of committed checkpoints in PostgreSQL, for clean-up and for
//! people, and partitions of the outbox made ahead.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annals_relay_core::Lease;
use annals_store::Store;
use sqlx::types::Json;
use tokio::sync::watch;

use crate::checkpoint::Checkpoint;
use crate::config::{Config, Delivery};
use crate::failure::Failure;
use crate::heard::locked;
use crate::kafka::{Desk, Partitions, TopicEnds};
use crate::leases::number;
use crate::sender::Sent;
use crate::shell::in_a_thread;

/// How far the copies may lag behind.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the last copy may take.
const LAST_DEADLINE: Duration = Duration::from_secs(5);
/// When no partition of the outbox could be dropped, it is tried again after so long: a try can hold appends up
/// for some milliseconds.
const DROP_INTERVAL: Duration = Duration::from_secs(10);

/// What this process has committed so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Committed {
    /// The run of the database that all of it is from.
    incarnation: Arc<str>,
    /// The last checkpoint of each shard that had one.
    checkpoints: BTreeMap<i16, Checkpoint>,
    /// The partitions that were written to since their ends were recorded.
    partitions: Partitions,
}

impl Committed {
    pub(crate) fn add(&mut self, sent: Sent) {
        let Sent { checkpoints, incarnation, partitions, .. } = sent;
        if self.incarnation != incarnation {
            // What is of an earlier run is not written into this one.
            *self = Self { incarnation, ..Self::default() };
        }
        let shard = |lease: Lease| number(lease.shard);
        self.checkpoints.extend(checkpoints.into_iter().map(|(lease, of)| (shard(lease), of)));
        self.partitions.extend(partitions);
    }
}

/// Copies checkpoints lazily. Nothing that is published rests on the copies.
pub(crate) struct Copier {
    store: Store,
    /// Unless what would be copied stands there already.
    is_needed: bool,
    committed: watch::Sender<Committed>,
    config: Arc<Config>,
    /// Asks for the ends of topics.
    desk: Arc<Mutex<Option<Desk>>>,
}

impl Copier {
    pub(crate) fn new(
        store: &Store,
        config: &Arc<Config>,
        committed: watch::Sender<Committed>,
    ) -> Self {
        let is_needed = config.relay.delivery == Delivery::ExactlyOnce;
        let (store, config) = (store.clone(), Arc::clone(config));
        Self { store, is_needed, committed, config, desk: Arc::default() }
    }

    /// Copies whenever something was committed, at most once in an interval; also looks after the outbox when nothing is.
    pub(crate) async fn run(&self) -> Infallible {
        let mut committed = self.committed.subscribe();
        let mut tried = None;
        loop {
            let is_news = match tokio::time::timeout(DROP_INTERVAL, committed.changed()).await {
                Ok(Ok(())) => true,
                Err(_nothing) => false,
                // The shell has ended, and this is ended with it.
                Ok(Err(_ended)) => std::future::pending().await,
            };
            if let Err(failure) = self.round(is_news, &mut tried).await {
                // Reading fails as well then, and says so.
                let error = &failure as &dyn std::error::Error;
                tracing::debug!(error, "checkpoints are not copied for the moment");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn round(&self, is_news: bool, tried: &mut Option<Instant>) -> Result<(), Failure> {
        if is_news {
            self.once().await?;
        }
        self.tend_outbox(tried).await
    }

    /// Copies what was committed last. A database that does not answer must not keep the process from ending.
    pub(crate) async fn last(&self) {
        let copied = tokio::time::timeout(LAST_DEADLINE, self.once()).await;
        let late = |elapsed| Err(Failure::late("copy the checkpoints", elapsed));
        if let Err(failure) = copied.unwrap_or_else(late) {
            let error = &failure as &dyn std::error::Error;
            tracing::warn!(
                event = "checkpoints_not_copied",
                error,
                "the last checkpoints stand in kafka and were not copied"
            );
        }
    }

    /// Makes partitions of the outbox ahead, and drops one that everybody has published.
    async fn tend_outbox(&self, tried: &mut Option<Instant>) -> Result<(), Failure> {
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
                "dropped a partition of the outbox: everything in it is published"
            );
        }
        Ok(())
    }

    async fn once(&self) -> Result<(), Failure> {
        let Committed { incarnation, checkpoints, .. } = self.committed.borrow().clone();
        if !checkpoints.is_empty() && self.is_needed {
            self.copy(&incarnation, &checkpoints).await?;
        }
        self.record_ends(&incarnation).await
    }

    /// Records how far the topics are written that were written to. What is below their ends came from events that were committed
    /// before they were asked for: so wherever the record is, these events are.
    async fn record_ends(&self, incarnation: &str) -> Result<(), Failure> {
        let mut partitions = Partitions::new();
        self.committed.send_if_modified(|committed| {
            partitions = std::mem::take(&mut committed.partitions);
            // It is no news.
            false
        });
        if partitions.is_empty() {
            return Ok(());
        }
        let recorded = self.try_to_record(incarnation, &partitions).await;
        if recorded.is_err() {
            self.committed.send_if_modified(|committed| {
                committed.partitions.extend(partitions.drain());
                false
            });
        }
        recorded
    }

    async fn try_to_record(
        &self,
        incarnation: &str,
        partitions: &Partitions,
    ) -> Result<(), Failure> {
        let (desk, config) = (Arc::clone(&self.desk), Arc::clone(&self.config));
        let of = partitions.clone();
        let ends = in_a_thread("ends of topics", move || {
            let mut desk = locked(&desk);
            let open = match desk.take() {
                Some(open) => open,
                None => Desk::open(&config)?,
            };
            // After a failure another one is opened.
            let ends = open.written(&of)?;
            *desk = Some(open);
            Ok(ends)
        });
        let ends = ends.await?;
        record_ends(&self.store, &self.config, incarnation, (Ends::Stored, &ends)).await
    }

    async fn copy(
        &self,
        incarnation: &str,
        checkpoints: &BTreeMap<i16, Checkpoint>,
    ) -> Result<(), Failure> {
        let positions = checkpoints.values().map(|checkpoint| checkpoint.place.position());
        let statement = self.store.schema().statement(include_str!("../sql/checkpoint_copy.sql"));
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

/// Where ends of topics come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Everything before them is passed: a rebase has read it.
    Passed,
    /// Everything before them is in the store; whether the copies of checkpoints cover it is seen later.
    Stored,
}

/// Records how far topics are written, unless the database is another than the one that the events came from.
pub(crate) async fn record_ends(
    store: &Store,
    config: &Config,
    incarnation: &str,
    (origin, ends): (Ends, &TopicEnds),
) -> Result<(), Failure> {
    let covered = |end: &i64| match origin {
        Ends::Passed => Some(*end),
        Ends::Stored => None,
    };
    let statement = store.schema().statement(include_str!("../sql/record_ends.sql"));
    sqlx::query(statement)
        .bind(config.publication())
        .bind(&config.relay.instance)
        .bind(incarnation)
        .bind(ends.keys().map(|(topic, _)| topic.as_str()).collect::<Vec<_>>())
        .bind(ends.keys().map(|(_, partition)| *partition).collect::<Vec<_>>())
        .bind(ends.values().copied().collect::<Vec<_>>())
        .bind(ends.values().map(covered).collect::<Vec<_>>())
        .execute(store.pool())
        .await
        .map(drop)
        .map_err(Failure::database("record how far topics are written"))
}
