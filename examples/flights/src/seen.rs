//! Watches the topics as any consumer of committed records sees them.

use std::time::Instant;

use annals_consumer::{Consumer, ConsumerSettings};
use anyhow::{Context, Result};
use tokio::sync::watch;

use crate::run::Run;

/// The events that have come out of the topics so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) events: u64,
    pub(crate) last_at: Option<Instant>,
}

/// Counts the records of both topics as they come, until it is dropped.
pub(crate) async fn watch(run: &Run, topics: &[&str], seen: &watch::Sender<Seen>) -> Result<()> {
    let consumer = Consumer::connect(settings(run, "watch"));
    let mut consumer = consumer.assign_from_beginning(topics).context("watch the topics")?;
    while consumer.next().await.context("watch the topics")?.is_some() {
        seen.send_modify(|seen| {
            seen.events += 1;
            seen.last_at = Some(Instant::now());
        });
    }
    Ok(())
}

/// How the demo reaches Kafka.
pub(crate) fn settings(run: &Run, client: &str) -> ConsumerSettings {
    // The topics come into being while they are already waited for.
    let interval = std::time::Duration::from_millis(100);
    let client_id = format!("annals-flights-{client}");
    ConsumerSettings::new(run.kafka.as_str()).client_id(client_id).topic_check_interval(interval)
}
