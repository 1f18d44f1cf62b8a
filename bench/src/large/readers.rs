//! Follower and relay, beginning at the same place of the log in both databases.

use std::pin::pin;
use std::time::Instant;

use annals_store::{Checkpoint, Follow, StoreOptions};
use annals_testkit::Environment;
use anyhow::Context;
use futures_util::TryStreamExt;

use super::tables::Tables;
use super::work::{Counters, Measured};
use crate::drain::{records, watch::Watch};
use crate::event::CATEGORY;
use crate::kafka::{create_topic, delete_topic};
use crate::relay::{self, Log, Relay};
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
                .bind(format!("{deployment}@{}", topic_prefix(&deployment)))
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
        let topic_prefix = topic_prefix(&deployment);
        let topic = format!("{topic_prefix}{CATEGORY}");
        let brokers = &Environment::get().kafka;
        create_topic(brokers, &topic, PARTITIONS).await?;
        let watch = Watch::start(brokers, &topic, PARTITIONS, self.events).await?;
        let mut relay = Relay::start(&relay::Settings {
            database_url: &tables.url,
            deployment: &deployment,
            instance: "a",
            topic_prefix: &topic_prefix,
            directory: report.directory(),
            log: Log::Usual,
            http: relay::Http::Served,
            delivery: relay::Delivery::ExactlyOnce,
        })?;
        let seen = tokio::select! {
            seen = watch.end() => seen.with_context(|| relay.where_log_is())?,
            ended = relay.ended() => return Err(ended),
        };
        relay.stop().await?;
        records::check_count(brokers, &topic, PARTITIONS, self.events).await?;
        delete_topic(brokers, &topic).await?;
        counters.end(u32::try_from(self.events)?, seen.took).await
    }
}

fn deployment(label: &str, round: usize) -> String {
    format!("{label}_{round}")
}

fn topic_prefix(deployment: &str) -> String {
    format!("{deployment}-")
}
