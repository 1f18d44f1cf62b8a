//! Sending: two producers, each with a thread of its own, since librdkafka's transactional calls block.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use annals_relay_core::{Done, Lease, Shard, Slot, Work};
use serde::Serialize;

use crate::batch::Batch;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{Config, Delivery};
use crate::failure::Failure;
use crate::heard::locked;
use crate::home::{Home, Placing, Signpost};
use crate::hops::Hops;
use crate::kafka::{self, Partitions, Producer};
use crate::leases::Session;
use crate::message::Message;
use crate::shell::{Report, Reports};

/// Both producers of a session, in one generation. Dropped, they finish no transaction any more.
pub(crate) struct Senders {
    a: Sender,
    /// There is one alone where there are no transactions.
    b: Option<Sender>,
    home: Mutex<Home>,
}

/// One producer's thread. It ends when the way to it is closed, or at its first failure: whatever that was, the
/// producer is not used again.
struct Sender {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

enum Job {
    Send(Box<Batch>, Option<Placing>),
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
        if config.relay.delivery == Delivery::AtLeastOnce {
            let producer = Producer::without_transactions(config)?;
            let a = Sender::start(Slot::A, producer, None, reports)?;
            return Ok(Self { a, b: None, home: Mutex::default() });
        }
        let [a, b] = &session.transactional_ids;
        let (a, b) = std::thread::scope(|scope| {
            let other = scope.spawn(|| open(config, b));
            (open(config, a), other.join().unwrap_or(Err(Failure::Panicked("opening"))))
        });
        let topic = config.checkpoint_topic();
        Ok(Self {
            a: Sender::start(Slot::A, a?, Some(Arc::clone(&topic)), reports)?,
            b: Some(Sender::start(Slot::B, b?, Some(topic), reports)?),
            home: Mutex::default(),
        })
    }

    /// Begins a transaction and sends everything; reported when all is acknowledged.
    pub(crate) fn send(&self, slot: Slot, batch: Batch) {
        // Here, where transactions are in order: whatever comes after a failure goes to another generation.
        let placing = locked(&self.home).place(&batch.checkpoints);
        self.of(slot).job(Job::Send(Box::new(batch), placing));
    }

    /// Commits; reported when that is done.
    pub(crate) fn commit(&self, slot: Slot) {
        self.of(slot).job(Job::Commit);
    }

    /// Waits until both threads have ended and their producers are destroyed. Blocks.
    pub(crate) fn close(self) {
        let Self { a, b, home: _ } = self;
        // First of all, both ways are closed.
        let threads: Vec<_> =
            [Some(a), b].into_iter().flatten().map(|Sender { jobs: _, thread }| thread).collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(event = "sender_panicked", "a sender's thread panicked");
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

/// Makes sure of the topic of checkpoints, where there is one. Blocks.
pub(crate) fn ensure_checkpoint_topic(config: &Config, shards: u16) -> Result<(), Failure> {
    if config.relay.delivery == Delivery::AtLeastOnce {
        return Ok(());
    }
    Ok(kafka::ensure_checkpoint_topic(config, shards)?)
}

impl Sender {
    fn start(
        slot: Slot,
        producer: Producer,
        topic: Option<Arc<str>>,
        reports: &Reports,
    ) -> Result<Self, Failure> {
        let (jobs, received) = mpsc::channel();
        let reports = reports.clone();
        let thread = std::thread::Builder::new()
            .name(format!("sender-{slot:?}").to_lowercase())
            .spawn(move || work(slot, &producer, topic.as_ref(), &received, &reports))
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
    topic: Option<&Arc<str>>,
    jobs: &mpsc::Receiver<Job>,
    reports: &Reports,
) {
    let (mut under_way, mut timed) = (Sent::default(), None);
    while let Ok(job) = jobs.recv() {
        let (work, done) = match job {
            Job::Send(mut batch, placing) => {
                batch.hops.next();
                let sent = send(producer, topic.zip(placing), *batch);
                let done = sent.map(|(sent, mut hops)| {
                    hops.next();
                    (under_way, timed) = (sent, Some(hops));
                    Report::Done(Done::Acked(slot))
                });
                (Work::Send, done)
            }
            Job::Commit => {
                let sent = std::mem::take(&mut under_way);
                timed.iter_mut().for_each(Hops::next);
                let committed = producer.commit().map_err(Failure::from);
                if let Some(mut hops) = timed.take() {
                    hops.next();
                    hops.tell();
                }
                (Work::Commit, committed.map(|()| Report::Committed { slot, sent }))
            }
        };
        match done {
            Ok(report) => reports.send(report),
            Err(failure) => return reports.send(Report::Failed { work, failure }),
        }
    }
}

/// What a transaction has, beside its messages.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) checkpoints: Vec<(Lease, Checkpoint)>,
    /// The run of the database that they are of.
    pub(crate) incarnation: Arc<str>,
    /// The events that were sent each on its own.
    pub(crate) alone: Vec<i64>,
    /// Where the events are.
    pub(crate) partitions: Partitions,
}

/// Sends the records of one Kafka transaction, with its checkpoints where there is a topic of them. Each message is
/// gone once librdkafka has its own copy.
fn send(
    producer: &Producer,
    place: Option<(&Arc<str>, Placing)>,
    batch: Batch,
) -> Result<(Sent, Hops), Failure> {
    let Batch { messages, checkpoints, incarnation, alone, hops } = batch;
    let mut sent = Sent { checkpoints, incarnation, ..Sent::default() };
    producer.begin()?;
    sent.partitions =
        messages.iter().filter_map(|of| Some((Arc::clone(&of.topic), of.partition?))).collect();
    for message in messages {
        let is_alone = !alone.is_empty() && alone.contains(&message.position);
        if is_alone {
            producer.drain()?;
            sent.alone.push(message.position);
        }
        producer.send(&message)?;
        if is_alone {
            producer.drain()?;
        }
    }
    if let Some((topic, Placing { partition, signposts })) = place {
        for (Lease { shard, .. }, checkpoint) in &sent.checkpoints {
            producer.send(&record(*shard, topic, partition, checkpoint)?)?;
        }
        for shard in signposts {
            producer.send(&record(shard, topic, shard, &Signpost::to(partition))?)?;
        }
    }
    // Nothing may be in flight at the commit: librdkafka would wait for it in slices of 100 ms.
    producer.drain()?;
    Ok((sent, hops))
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
