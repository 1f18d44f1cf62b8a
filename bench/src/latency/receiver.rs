//! The other end: a consumer, as in a service, in this process and so by the same clock.

use std::time::{Duration, Instant, SystemTime};

use annals_consumer::{Consumer, ConsumerSettings};
use anyhow::Context;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::ARRIVAL_DEADLINE;
use crate::kafka::client;

/// The consumer's times of one event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) event_id: Uuid,
    pub(crate) at: Instant,
    /// Since its recorded time; two clocks, but of one machine. Debezium's records have no recorded
    /// time.
    pub(crate) since_recorded: Option<Duration>,
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
        let consumer =
            Consumer::connect(ConsumerSettings::new(brokers)).assign_from_beginning(&[topic])?;
        let (counted, count) = watch::channel(0);
        let (stop, stopped) = oneshot::channel();
        Ok(Self { count, stop, task: tokio::spawn(receive(consumer, counted, stopped)) })
    }

    /// Starts a consumer of Debezium's records, with the other consumer's settings of librdkafka.
    pub(crate) fn start_bare(brokers: &str, topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let mut config = client(brokers);
        config
            .set("group.id", "annals-bench")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed");
        let consumer: StreamConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let (counted, count) = watch::channel(0);
        let (stop, stopped) = oneshot::channel();
        Ok(Self { count, stop, task: tokio::spawn(receive_bare(consumer, counted, stopped)) })
    }

    /// Counts received events in the background.
    pub(crate) fn counted(&self) -> Counted {
        Counted(self.count.clone())
    }

    /// Waits until so many events have come.
    pub(crate) async fn wait_for(&self, events: usize) -> anyhow::Result<()> {
        self.counted().wait_for(events).await
    }

    /// Ends it, and returns the received events.
    pub(crate) async fn stop(self) -> anyhow::Result<Vec<Received>> {
        drop(self.stop);
        self.task.await.context("stop the consumer")?
    }
}

/// The number of received events.
#[derive(Debug, Clone)]
pub(crate) struct Counted(watch::Receiver<usize>);

impl Counted {
    /// Waits until so many have come.
    pub(crate) async fn wait_for(&self, events: usize) -> anyhow::Result<()> {
        let mut count = self.0.clone();
        let come =
            tokio::time::timeout(ARRIVAL_DEADLINE, count.wait_for(|count| *count >= events)).await;
        let have = *self.0.borrow();
        come.with_context(|| {
            format!("{have} of {events} events came within {ARRIVAL_DEADLINE:?}")
        })?
        .context("the consumer ended")?;
        Ok(())
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
        let since_recorded = Some(since_recorded);
        all.push(Received { event_id: delivered.event_id, at, since_recorded });
        counted.send_replace(all.len());
    }
    consumer.close().await;
    Ok(all)
}

async fn receive_bare(
    consumer: StreamConsumer,
    counted: watch::Sender<usize>,
    mut stopped: oneshot::Receiver<()>,
) -> anyhow::Result<Vec<Received>> {
    let mut all = Vec::new();
    loop {
        let message = tokio::select! {
            message = consumer.recv() => message?,
            _ = &mut stopped => return Ok(all),
        };
        let at = Instant::now();
        let headers = message.headers().context("a record without headers")?;
        let id = headers.iter().find(|header| header.key == "id").and_then(|id| id.value);
        let event_id = Uuid::try_parse_ascii(id.context("a record without id")?)?;
        all.push(Received { event_id, at, since_recorded: None });
        counted.send_replace(all.len());
    }
}
