//! Follower and relay, beginning at the same place of the log in both databases.

use std::pin::pin;
use std::time::Instant;

use annals_store::{Checkpoint, Follow, StoreOptions};
use anyhow::Context;
use futures_util::TryStreamExt;

use super::tables::Tables;
use super::work::{Counters, Measured};
use crate::drain::once;
use crate::report::Report;
use crate::settle::settle;
use crate::size::preload_over;

const PARTITIONS: i32 = 8;

/// Events behind everything that the database had, for each round's follower and deployment.
pub(super) struct Tail {
    events: usize,
    checkpoint: Checkpoint,
    label: String,
}

impl Tail {
    /// Appends the events, and creates the deployments, which have published everything before
    /// them. All at once: published partitions stay until the last of them has published.
    pub(super) async fn append(
        tables: &Tables,
        events: usize,
        rounds: usize,
        streams: usize,
    ) -> anyhow::Result<Self> {
        let pool = tables.store.pool();
        let label = format!("bench_large_{}", uuid::Uuid::new_v4().simple());
        let checkpoint = tables.store.end_of_log().await?;
        let origin: String =
            sqlx::query_scalar(include_str!("../../sql/large_origin.sql")).fetch_one(pool).await?;
        for round in 0..=rounds {
            let deployment = deployment(&label, round);
            sqlx::query(include_str!("../../sql/large_deployment.sql"))
                .bind(format!("{deployment}@{}", once::topic_prefix(&deployment)))
                .bind(&origin)
                .execute(pool)
                .await?;
        }
        preload_over(&tables.store, events, streams).await?;
        settle(&tables.url).await?;
        Ok(Self { events, checkpoint, label })
    }

    /// Follows all of them.
    pub(super) async fn follow(&self, tables: &Tables) -> anyhow::Result<Measured> {
        let counters = Counters::begin(&tables.url).await?;
        let store = StoreOptions::default().connect(&tables.url).await?;
        let took = {
            let mut log = pin!(store.follow(Follow::all().after(self.checkpoint.clone())));
            let began = Instant::now();
            for _ in 0..self.events {
                log.try_next().await?.context("follow for ever")?;
            }
            began.elapsed()
        };
        store.pool().close().await;
        counters.end(u32::try_from(self.events)?, took).await
    }

    /// Lets the round's deployment publish all of them.
    pub(super) async fn drain(
        &self,
        tables: &Tables,
        round: usize,
        report: &Report,
    ) -> anyhow::Result<Measured> {
        let counters = Counters::begin(&tables.url).await?;
        let deployment = deployment(&self.label, round);
        let size = (PARTITIONS, self.events);
        let took = once::drain(&tables.url, &deployment, size, report).await?;
        counters.end(u32::try_from(self.events)?, took).await
    }
}

fn deployment(label: &str, round: usize) -> String {
    format!("{label}_{round}")
}
