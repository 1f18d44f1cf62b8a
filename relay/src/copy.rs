//! What is done beside publishing: copies of committed checkpoints in PostgreSQL, for clean-up and for
//! people, and partitions of the outbox made ahead.

use std::time::Duration;

use annals_store::Store;
use sqlx::types::Json;
use tokio::sync::watch;

use crate::checkpoint::Checkpoint;
use crate::failure::Failure;
use crate::sender::Committed;

/// How far the copies may lag behind.
const INTERVAL: Duration = Duration::from_secs(1);

/// Copies checkpoints lazily. Nothing that is published rests on the copies.
pub(crate) struct Copier {
    store: Store,
    deployment: String,
    committed: watch::Receiver<Committed>,
}

impl Copier {
    pub(crate) fn new(
        store: &Store,
        deployment: &str,
        committed: watch::Receiver<Committed>,
    ) -> Self {
        Self { store: store.clone(), deployment: deployment.to_owned(), committed }
    }

    /// Copies whenever something was committed, at most once in an interval; ends with a failure only.
    pub(crate) async fn run(&self) -> Failure {
        let mut committed = self.committed.clone();
        loop {
            if committed.changed().await.is_err() {
                // The sender is gone, and says why itself.
                std::future::pending::<()>().await;
            }
            if let Err(failure) = self.extend().await.and(self.once().await) {
                return failure;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn extend(&self) -> Result<(), Failure> {
        let connection = self.store.pool().acquire().await;
        let mut connection = connection.map_err(Failure::database("connect"))?;
        Ok(self.store.extend_outbox(&mut connection).await?)
    }

    /// Copies what is committed now.
    pub(crate) async fn once(&self) -> Result<(), Failure> {
        let checkpoints: Vec<(i16, Checkpoint)> =
            self.committed.borrow().checkpoints.iter().map(|(s, c)| (*s, c.clone())).collect();
        if checkpoints.is_empty() {
            return Ok(());
        }
        let statement = self.store.schema().statement(include_str!("../sql/checkpoint_copy.sql"));
        sqlx::query(statement)
            .bind(&self.deployment)
            .bind(checkpoints.iter().map(|(shard, _)| *shard).collect::<Vec<_>>())
            .bind(
                checkpoints.iter().map(|(_, checkpoint)| checkpoint.position()).collect::<Vec<_>>(),
            )
            .bind(checkpoints.iter().map(|(_, checkpoint)| Json(checkpoint)).collect::<Vec<_>>())
            .execute(self.store.pool())
            .await
            .map(drop)
            .map_err(Failure::database("copy the checkpoints"))
    }
}
