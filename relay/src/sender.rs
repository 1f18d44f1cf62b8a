//! Sending: two producers, each with a thread of its own, since librdkafka's transactional calls block.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use annals_relay_core::{Done, Slot, Work};

use crate::batch::Batch;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::Config;
use crate::failure::Failure;
use crate::hops::Hops;
use crate::kafka::{self, Producer};
use crate::leases::Session;
use crate::message::Message;
use crate::shell::{Report, Reports};

/// Both producers of a session, in one generation. Dropped, they finish no transaction any more.
pub(crate) struct Senders {
    a: Sender,
    b: Sender,
}

/// One producer's thread. It ends when the way to it is closed, or at its first failure: whatever that was, the
/// producer is not used again.
struct Sender {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

enum Job {
    Send(Batch),
    Commit,
}

impl Senders {
    /// Makes both producers under the session's transactional ids, which fences whoever used them before and aborts
    /// what they left open. Blocks.
    pub(crate) fn open(
        config: &Arc<Config>,
        session: &Session,
        reports: &Reports,
    ) -> Result<Self, Failure> {
        let [a, b] = &session.transactional_ids;
        let (a, b) = std::thread::scope(|scope| {
            let other = scope.spawn(|| open(config, b));
            (open(config, a), other.join().unwrap_or(Err(Failure::Panicked("opening"))))
        });
        let topic = config.checkpoint_topic();
        Ok(Self {
            a: Sender::start(Slot::A, a?, &topic, reports)?,
            b: Sender::start(Slot::B, b?, &topic, reports)?,
        })
    }

    /// Begins a transaction and sends everything; reported when all is acknowledged.
    pub(crate) fn send(&self, slot: Slot, batch: Batch) {
        self.of(slot).job(Job::Send(batch));
    }

    /// Commits; reported when that is done.
    pub(crate) fn commit(&self, slot: Slot) {
        self.of(slot).job(Job::Commit);
    }

    /// Waits until both threads have ended and their producers are destroyed. Blocks.
    pub(crate) fn close(self) {
        let Self { a, b } = self;
        let threads = [a, b].map(|Sender { jobs: _, thread }| thread);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a sender's thread panicked");
            }
        }
    }

    fn of(&self, slot: Slot) -> &Sender {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }
}

/// Makes a producer, and makes it the only one of its transactional id. Blocks.
fn open(config: &Config, transactional_id: &str) -> Result<Producer, Failure> {
    let producer = Producer::connect(config, transactional_id)?;
    producer.init()?;
    Ok(producer)
}

/// Keeps whoever uses the transactional ids from publishing anything more, and aborts what they left open. Blocks.
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

/// Makes sure of the topic of checkpoints. Blocks.
pub(crate) fn ensure_checkpoint_topic(config: &Config, shards: u16) -> Result<(), Failure> {
    Ok(kafka::ensure_checkpoint_topic(config, shards)?)
}

impl Sender {
    fn start(
        slot: Slot,
        producer: Producer,
        topic: &Arc<str>,
        reports: &Reports,
    ) -> Result<Self, Failure> {
        let (jobs, received) = mpsc::channel();
        let (topic, reports) = (Arc::clone(topic), reports.clone());
        let thread = std::thread::Builder::new()
            .name(format!("sender-{slot:?}").to_lowercase())
            .spawn(move || work(slot, &producer, &topic, &received, &reports))
            .map_err(Failure::Thread)?;
        Ok(Self { jobs, thread })
    }

    /// A thread that has ended has reported why.
    fn job(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            tracing::debug!("a sender that has failed is given more work");
        }
    }
}

fn work(
    slot: Slot,
    producer: &Producer,
    topic: &Arc<str>,
    jobs: &mpsc::Receiver<Job>,
    reports: &Reports,
) {
    let (mut under_way, mut timed) = (Vec::new(), None);
    while let Ok(job) = jobs.recv() {
        let (work, done) = match job {
            Job::Send(Batch { messages, checkpoints, mut hops }) => {
                hops.next();
                let sent = send(producer, topic, messages, &checkpoints);
                hops.next();
                (under_way, timed) = (checkpoints, Some(hops));
                (Work::Send, sent.map(|()| Report::Done(Done::Acked(slot))))
            }
            Job::Commit => {
                let checkpoints = std::mem::take(&mut under_way);
                timed.iter_mut().for_each(Hops::next);
                let committed = producer.commit().map_err(Failure::from);
                if let Some(mut hops) = timed.take() {
                    hops.next();
                    hops.tell();
                }
                (Work::Commit, committed.map(|()| Report::Committed { slot, checkpoints }))
            }
        };
        match done {
            Ok(report) => reports.send(report),
            Err(failure) => return reports.send(Report::Failed { work, failure }),
        }
    }
}

/// Sends the records of one Kafka transaction. Each message is gone once librdkafka has its own copy.
fn send(
    producer: &Producer,
    topic: &Arc<str>,
    messages: Vec<Message>,
    checkpoints: &[(i16, Checkpoint)],
) -> Result<(), Failure> {
    producer.begin()?;
    for message in messages {
        producer.send(&message)?;
    }
    for (shard, checkpoint) in checkpoints {
        producer.send(&record(topic, *shard, checkpoint)?)?;
    }
    // Nothing may be in flight at the commit: librdkafka would wait for it in slices of 100 ms.
    producer.drain()?;
    Ok(())
}

fn record(topic: &Arc<str>, shard: i16, checkpoint: &Checkpoint) -> Result<Message, Failure> {
    Message::checkpoint(topic, shard, checkpoint).map_err(|source| {
        let shard = shard.unsigned_abs();
        Failure::Checkpoint(CheckpointError::Malformed { shard, source })
    })
}
