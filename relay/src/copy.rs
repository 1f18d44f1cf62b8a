//! What is done beside publishing: copies of committed checkpoints in PostgreSQL, for clean-up and for
//! people, and partitions of the outbox made ahead.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use annals_relay_core::Lease;
use annals_store::Store;
use sqlx::types::Json;
use tokio::sync::watch;

use crate::checkpoint::Checkpoint;
use crate::config::{Config, Delivery};
use crate::failure::Failure;
use crate::leases::number;

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
    /// The last checkpoint of each shard that had one.
    checkpoints: BTreeMap<i16, Checkpoint>,
}

impl Committed {
    pub(crate) fn add(&mut self, checkpoints: Vec<(Lease, Checkpoint)>) {
        let shard = |lease: Lease| number(lease.shard);
        self.checkpoints.extend(checkpoints.into_iter().map(|(lease, of)| (shard(lease), of)));
    }
}

/// Copies checkpoints lazily. Nothing that is published rests on the copies.
pub(crate) struct Copier {
    store: Store,
    publication: String,
    /// Unless what would be copied stands there already.
    is_needed: bool,
    committed: watch::Receiver<Committed>,
}

impl Copier {
    pub(crate) fn new(
        store: &Store,
        config: &Config,
        committed: watch::Receiver<Committed>,
    ) -> Self {
        let publication = config.publication();
        let is_needed = config.relay.delivery == Delivery::ExactlyOnce;
        Self { store: store.clone(), publication, is_needed, committed }
    }

    /// Copies whenever something was committed, at most once in an interval; also looks after the outbox when nothing is.
    pub(crate) async fn run(&self) -> Infallible {
        let mut committed = self.committed.clone();
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
            tracing::warn!(error, "the last checkpoints stand in kafka and were not copied");
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
            tracing::info!("dropped a partition of the outbox: everything in it is published");
        }
        Ok(())
    }

    async fn once(&self) -> Result<(), Failure> {
        let checkpoints: Vec<(i16, Checkpoint)> =
            self.committed.borrow().checkpoints.iter().map(|(s, c)| (*s, c.clone())).collect();
        if checkpoints.is_empty() || !self.is_needed {
            return Ok(());
        }
        let statement = self.store.schema().statement(include_str!("../sql/checkpoint_copy.sql"));
        sqlx::query(statement)
            .bind(&self.publication)
            .bind(checkpoints.iter().map(|(shard, _)| *shard).collect::<Vec<_>>())
            .bind(
                checkpoints
                    .iter()
                    .map(|(_, checkpoint)| checkpoint.place.position())
                    .collect::<Vec<_>>(),
            )
            .bind(checkpoints.iter().map(|(_, checkpoint)| Json(checkpoint)).collect::<Vec<_>>())
            .execute(self.store.pool())
            .await
            .map(drop)
            .map_err(Failure::database("copy the checkpoints"))
    }
}
