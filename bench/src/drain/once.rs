//! A whole backlog, published once by a relay of its own.

use std::time::Duration;

use annals_testkit::Environment;
use anyhow::Context;

use super::records;
use super::watch::Watch;
use crate::event::CATEGORY;
use crate::kafka::{create_topic, delete_topic};
use crate::relay::{self, Log, Relay, Settings};
use crate::report::Report;

/// Lets a deployment publish all that waits for it, so many events, to topics of its own; how long
/// that took, by [`Watch`]. The committed records are counted.
pub(crate) async fn drain(
    database_url: &str,
    deployment: &str,
    (partitions, events): (i32, usize),
    report: &Report,
) -> anyhow::Result<Duration> {
    let topic_prefix = topic_prefix(deployment);
    let topic = format!("{topic_prefix}{CATEGORY}");
    let brokers = &Environment::get().kafka;
    create_topic(brokers, &topic, partitions).await?;
    let watch = Watch::start(brokers, &topic, partitions, events).await?;
    let mut relay = Relay::start(&Settings {
        database_url,
        deployment,
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
    records::check_count(brokers, &topic, partitions, events).await?;
    delete_topic(brokers, &topic).await?;
    Ok(seen.took)
}

/// The prefix of the topics of such a deployment.
pub(crate) fn topic_prefix(deployment: &str) -> String {
    format!("{deployment}-")
}
