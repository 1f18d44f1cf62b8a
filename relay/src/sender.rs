//! Sending: a thread of its own for librdkafka's transactional calls, which block.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};

use crate::batch::Batch;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::failure::Failure;
use crate::kafka::Producer;
use crate::message::Message;

/// What the sender has committed so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Committed {
    pub(crate) batches: u64,
    pub(crate) events: u64,
    /// The last checkpoint of each shard that had one.
    pub(crate) checkpoints: BTreeMap<i16, Checkpoint>,
}

/// The sending thread. It ends when the way to it is closed and everything is committed, or at the
/// first failure: whatever the failure was, the producer is not used again.
pub(crate) struct Sender {
    thread: JoinHandle<Result<(), Failure>>,
}

impl Sender {
    pub(crate) fn start(
        producer: Producer,
        checkpoint_topic: Arc<str>,
        batches: mpsc::Receiver<Batch>,
        committed: watch::Sender<Committed>,
    ) -> Result<Self, Failure> {
        let thread = std::thread::Builder::new()
            .name("sender".to_owned())
            .spawn(move || send_all(&producer, &checkpoint_topic, batches, &committed))
            .map_err(Failure::Thread)?;
        Ok(Self { thread })
    }

    /// Waits until the thread has ended, and returns what it ended with.
    pub(crate) async fn join(self) -> Result<(), Failure> {
        match tokio::task::spawn_blocking(move || self.thread.join()).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Failure::Panicked("sender")),
        }
    }
}

fn send_all(
    producer: &Producer,
    checkpoint_topic: &Arc<str>,
    mut batches: mpsc::Receiver<Batch>,
    committed: &watch::Sender<Committed>,
) -> Result<(), Failure> {
    while let Some(batch) = batches.blocking_recv() {
        send(producer, checkpoint_topic, &batch)?;
        committed.send_modify(|so_far| {
            so_far.batches += 1;
            so_far.events += u64::try_from(batch.messages.len()).unwrap_or(u64::MAX);
            so_far.checkpoints.extend(batch.checkpoints);
        });
    }
    Ok(())
}

/// One Kafka transaction.
fn send(producer: &Producer, checkpoint_topic: &Arc<str>, batch: &Batch) -> Result<(), Failure> {
    producer.begin()?;
    for message in &batch.messages {
        producer.send(message)?;
    }
    for (shard, checkpoint) in &batch.checkpoints {
        producer.send(&record(checkpoint_topic, *shard, checkpoint)?)?;
    }
    // Nothing may be in flight at the commit: librdkafka would wait for it in slices of 100 ms.
    producer.drain()?;
    producer.commit()?;
    Ok(())
}

fn record(topic: &Arc<str>, shard: i16, checkpoint: &Checkpoint) -> Result<Message, Failure> {
    Message::checkpoint(topic, shard, checkpoint).map_err(|source| {
        let shard = shard.unsigned_abs();
        Failure::Checkpoint(CheckpointError::Malformed { shard, source })
    })
}
