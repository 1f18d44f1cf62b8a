//! The other end: a consumer, as a service has it, in this process and so by the same clock.

use std::time::{Duration, Instant, SystemTime};

use annals_consumer::{Consumer, Settings};
use anyhow::Context;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::ARRIVAL_DEADLINE;

/// What the consumer noted of one event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) event_id: Uuid,
    pub(crate) at: Instant,
    /// Since its recorded time; two clocks, but of one machine.
    pub(crate) since_recorded: Duration,
}

/// A consumer of committed records in the background.
#[derive(Debug)]
pub(crate) struct Receiver {
    count: watch::Receiver<usize>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<Vec<Received>>>,
}

impl Receiver {
    /// Starts it; the topic need not exist yet.
    pub(crate) fn start(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        let consumer = Consumer::connect(Settings::new(brokers)).assign_from_beginning(&[topic])?;
        let (counted, count) = watch::channel(0);
        let (stop, stopped) = oneshot::channel();
        Ok(Self { count, stop, task: tokio::spawn(receive(consumer, counted, stopped)) })
    }

    /// Waits until so many events have come.
    pub(crate) async fn wait_for(&self, events: usize) -> anyhow::Result<()> {
        let mut count = self.count.clone();
        let come =
            tokio::time::timeout(ARRIVAL_DEADLINE, count.wait_for(|count| *count >= events)).await;
        let have = *self.count.borrow();
        come.with_context(|| {
            format!("{have} of {events} events came within {ARRIVAL_DEADLINE:?}")
        })?
        .context("the consumer ended")?;
        Ok(())
    }

    /// Ends it, and returns what came.
    pub(crate) async fn stop(self) -> anyhow::Result<Vec<Received>> {
        drop(self.stop);
        self.task.await.context("stop the consumer")?
    }
}

async fn receive(
    mut consumer: Consumer,
    counted: watch::Sender<usize>,
    mut stopped: oneshot::Receiver<()>,
) -> anyhow::Result<Vec<Received>> {
    let mut all = Vec::new();
    loop {
        let delivered = tokio::select! {
            delivered = consumer.next() => delivered?,
            _ = &mut stopped => break,
        };
        let Some(delivered) = delivered else { break };
        let (at, now) = (Instant::now(), SystemTime::now());
        let since_recorded = now.duration_since(delivered.recorded_at.into()).unwrap_or_default();
        all.push(Received { event_id: delivered.event_id, at, since_recorded });
        counted.send_replace(all.len());
    }
    consumer.close().await;
    Ok(all)
}
