//! Senders: two producers, each with a thread of its own, since librdkafka's transactional calls
//! block.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use annals_relay_machine::{Completion, Lease, Operation, Shard, Slot};
use serde::Serialize;

use crate::config::{Config, Delivery};
use crate::kafka::Producer;
use crate::kafka::checkpoint_partition::{CheckpointPartition, CheckpointPointer, CheckpointRoute};
use crate::model::batch::{Batch, SentBatch};
use crate::model::batch_timings::BatchTimings;
use crate::model::checkpoint::CheckpointError;
use crate::model::message::Message;
use crate::publish::sending::{
    AcknowledgedFirst, SendProgress, send_messages, send_or_find_refused,
};
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;
use crate::report::threads::locked;
use crate::report::{Report, Reporter};
use crate::state::TransactionalIds;
use crate::telemetry::metrics::metrics;
use crate::telemetry::spans;

/// The machine orders a commit after the acknowledgement of a send, and the next send after the
/// commit: so a sender has one job at a time. The driver never blocks on a sender.
const JOBS_MAX: usize = 2;

/// How many transactional ids are fenced at once: each takes a producer with threads and
/// connections of its own.
pub(crate) const FENCED_AT_ONCE: usize = 8;

/// Both producers of a session, in one generation. Dropped, they commit no further transaction.
pub(crate) struct Senders {
    a: Sender,
    /// None without transactions.
    b: Option<Sender>,
    partition: Mutex<CheckpointPartition>,
}

/// The thread of one producer. It ends when its channel is closed, or at its first failure: a
/// producer that has failed is not used again.
struct Sender {
    jobs: mpsc::SyncSender<SenderJob>,
    thread: JoinHandle<()>,
}

enum SenderJob {
    Send(Box<Batch>, Option<CheckpointRoute>),
    Commit,
}

impl Senders {
    /// Makes both producers under a pair of these transactional ids, which fences earlier producers
    /// of the pair and aborts their open transactions. Blocks.
    ///
    /// A pair with a busy id is passed over. The caller has destroyed the producers of all pairs,
    /// and reads checkpoints before it publishes, which waits until every transaction in their
    /// topic is decided.
    pub(crate) fn open(
        config: &Arc<Config>,
        transactional_ids: &TransactionalIds,
        reporter: &Reporter,
    ) -> Result<Self, Failure> {
        if config.relay.delivery == Delivery::AtLeastOnce {
            let producer = Producer::without_transactions(config)?;
            let a = Sender::start(Slot::A, producer, None, reporter)?;
            return Ok(Self { a, b: None, partition: Mutex::default() });
        }
        let (a, b) = open_a_pair(config, transactional_ids)?;
        let topic = config.checkpoint_topic();
        Ok(Self {
            a: Sender::start(Slot::A, a, Some(Arc::clone(&topic)), reporter)?,
            b: Some(Sender::start(Slot::B, b, Some(topic), reporter)?),
            partition: Mutex::default(),
        })
    }

    /// Begins a transaction and sends a batch; reported when every record is acknowledged.
    pub(crate) fn send(&self, slot: Slot, batch: Batch) {
        // Routed here, where transactions are in order: after a failure, other senders route the
        // next ones.
        let route = locked(&self.partition).route(&batch.checkpoints);
        self.of(slot).order(SenderJob::Send(Box::new(batch), route));
    }

    /// Commits the transaction; reported when it is committed.
    pub(crate) fn commit(&self, slot: Slot) {
        self.of(slot).order(SenderJob::Commit);
    }

    /// Waits until both threads have ended and their producers are destroyed. Blocks.
    pub(crate) fn close(self) {
        let Self { a, b, partition: _ } = self;
        // Both channels are closed before the first thread is joined.
        let threads: Vec<_> =
            [Some(a), b].into_iter().flatten().map(|Sender { jobs: _, thread }| thread).collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(event = "sender_panicked", "the thread of a sender panicked");
            }
        }
    }

    fn of(&self, slot: Slot) -> &Sender {
        match slot {
            Slot::A => &self.a,
            Slot::B => self.b.as_ref().unwrap_or(&self.a),
        }
    }
}

/// Makes the producers of the first pair of ids that is not busy.
fn open_a_pair(
    config: &Config,
    transactional_ids: &TransactionalIds,
) -> Result<(Producer, Producer), Failure> {
    let mut busy = None;
    for (number, [a, b]) in transactional_ids.pairs() {
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| open(config, b));
            (open(config, a), second.join().unwrap_or(Err(Failure::Panicked("opening"))))
        });
        match first.and_then(|first| Ok((first, second?))) {
            Ok(pair) => {
                transactional_ids.use_pair(number);
                return Ok(pair);
            }
            Err(failure @ Failure::Kafka(KafkaFailure::Busy { .. })) => {
                tracing::warn!(
                    event = "transactional_ids_busy",
                    error = failure.in_full(),
                    "an earlier transaction does not end: going on with other transactional ids"
                );
                busy = Some(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(busy.unwrap_or(Failure::Panicked("opening")))
}

/// Makes a producer, and fences earlier ones of its transactional id. Blocks.
fn open(config: &Config, transactional_id: &str) -> Result<Producer, Failure> {
    let producer = Producer::connect(config, transactional_id)?;
    producer.init()?;
    metrics().clients.producer_opened();
    Ok(producer)
}

/// Fences the producers of these transactional ids, and aborts their open transactions. All of them
/// at once: [`FENCED_AT_ONCE`] at most. Blocks.
pub(crate) fn fence(config: &Config, transactional_ids: &[String]) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let ids = transactional_ids.iter();
        let threads: Vec<_> =
            ids.map(|id| scope.spawn(move || open(config, id).map(drop))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(), Failure>>| {
            thread.join().unwrap_or(Err(Failure::Panicked("fencing")))
        };
        threads.into_iter().try_for_each(join)
    })
}

impl Sender {
    fn start(
        slot: Slot,
        producer: Producer,
        topic: Option<Arc<str>>,
        reporter: &Reporter,
    ) -> Result<Self, Failure> {
        let (jobs, received) = mpsc::sync_channel(JOBS_MAX);
        let reporter = reporter.clone();
        let thread = std::thread::Builder::new()
            .name(format!("sender-{slot:?}").to_lowercase())
            .spawn(move || run(slot, &producer, topic.as_ref(), &received, &reporter))
            .map_err(Failure::Thread)?;
        Ok(Self { jobs, thread })
    }

    /// A thread that has ended has reported why.
    fn order(&self, job: SenderJob) {
        if self.jobs.try_send(job).is_err() {
            tracing::debug!("a sender that has failed gets another job");
        }
    }
}

fn run(
    slot: Slot,
    producer: &Producer,
    topic: Option<&Arc<str>>,
    jobs: &mpsc::Receiver<SenderJob>,
    reporter: &Reporter,
) {
    let (mut under_way, mut timed, mut open) = (SentBatch::default(), None, None);
    while let Ok(job) = jobs.recv() {
        let (operation, done) = match job {
            SenderJob::Send(mut batch, route) => {
                batch.timings.next();
                open = Some(spans::begin(&batch.messages));
                let has_checkpoint_record = route.is_some() && !batch.messages.is_empty();
                let is_one_topic =
                    batch.one_topic_at_a_time || batch.has_one_topic() && !has_checkpoint_record;
                let sent = send(producer, topic.zip(route), *batch);
                let sent = sent.map_err(|failure| match failure {
                    Failure::Kafka(failure) if !is_one_topic => failure.about_some_topic().into(),
                    failure => failure,
                });
                let done = sent.map(|(sent, mut timings)| {
                    timings.next();
                    (under_way, timed) = (sent, Some(timings));
                    Report::Completed(Completion::Acknowledged(slot))
                });
                (Operation::Send, done)
            }
            SenderJob::Commit => {
                let sent = std::mem::take(&mut under_way);
                timed.iter_mut().for_each(BatchTimings::next);
                let committed = producer.commit().map_err(Failure::from);
                if let Some(mut timings) = timed.take().filter(|_| committed.is_ok()) {
                    timings.next();
                    timings.log();
                    metrics().publishing.committed(&timings);
                    spans::finish(open.take());
                }
                (Operation::Commit, committed.map(|()| Report::Committed { slot, sent }))
            }
        };
        match done {
            Ok(report) => reporter.send_blocking(report),
            Err(failure) => {
                metrics().publishing.not_committed();
                return reporter.send_blocking(Report::Failed { operation, failure });
            }
        }
    }
}

/// Sends the records of one Kafka transaction, with its checkpoints if there is a topic of
/// checkpoints.
fn send(
    producer: &Producer,
    route: Option<(&Arc<str>, CheckpointRoute)>,
    batch: Batch,
) -> Result<(SentBatch, BatchTimings), Failure> {
    let size = batch.size();
    let Batch { mut messages, checkpoints, incarnation, one_topic_at_a_time, .. } = batch;
    let Batch { send_in_groups, find_all_refused, timings, .. } = batch;
    let mut sent = SentBatch { size, checkpoints, incarnation, ..SentBatch::default() };
    producer.begin()?;
    sent.partitions =
        messages.iter().filter_map(|of| Some((Arc::clone(&of.topic), of.partition?))).collect();
    if one_topic_at_a_time {
        // The order within a topic, and so within each stream, stays.
        messages.sort_by(|one, other| one.topic.cmp(&other.topic));
    }
    let first = AcknowledgedFirst { groups_of: &send_in_groups, one_topic_at_a_time };
    let progress = if find_all_refused {
        send_or_find_refused(producer, &messages, &first)?
    } else {
        let mut progress = SendProgress::default();
        send_messages(producer, messages, &first, &mut progress)?;
        progress
    };
    sent.sent_in_groups = progress.in_groups;
    if let Some((topic, CheckpointRoute { partition, pointers })) = route {
        if one_topic_at_a_time {
            producer.drain()?;
        }
        for (Lease { shard, .. }, checkpoint) in &sent.checkpoints {
            producer.send(&record(*shard, topic, partition, checkpoint)?)?;
        }
        for shard in pointers {
            producer.send(&record(shard, topic, shard, &CheckpointPointer::to(partition))?)?;
        }
    }
    // Nothing may be in flight at the commit: librdkafka would wait for it in slices of 100 ms.
    producer.drain()?;
    Ok((sent, timings))
}

fn record(
    shard: Shard,
    topic: &Arc<str>,
    partition: Shard,
    what: &impl Serialize,
) -> Result<Message, Failure> {
    Message::about(shard, topic, partition, what).map_err(|source| {
        Failure::Checkpoint(CheckpointError::Malformed { shard: shard.0, source })
    })
}
