//! Batches: what goes to Kafka in one transaction, records and checkpoints together.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use annals_relay_machine::Lease;

use crate::checkpoint::Checkpoint;
use crate::hops::Hops;
use crate::message::Message;

/// The records of one Kafka transaction, and how far their shards are published with it.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Message>,
    pub(crate) checkpoints: Vec<(Lease, Checkpoint)>,
    /// The run of the database that all of it is from.
    pub(crate) incarnation: Arc<str>,
    /// Events to send each on its own, by position: one of them was refused together with others.
    pub(crate) alone: Arc<HashSet<i64>>,
    pub(crate) hops: Hops,
}

/// How large a batch becomes before it is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) events_max: NonZeroUsize,
    pub(crate) bytes_max: usize,
}

/// Collects messages until a limit is reached.
#[derive(Debug)]
pub(crate) struct Collector {
    limits: Limits,
    /// The limits of whoever collects now.
    events_stop: usize,
    bytes_stop: usize,
    messages: Vec<Message>,
    shards: BTreeSet<i16>,
    bytes: usize,
}

impl Collector {
    pub(crate) fn new(limits: Limits) -> Self {
        let (events_stop, bytes_stop) = (limits.events_max.get(), limits.bytes_max);
        let (messages, shards) = (Vec::new(), BTreeSet::new());
        Self { limits, events_stop, bytes_stop, messages, shards, bytes: 0 }
    }

    /// Gives whoever collects now an equal share of the room that is left, when so many are still to come with it.
    pub(crate) fn share(&mut self, collecting: usize) {
        let Self { limits, messages, bytes, .. } = self;
        let share = |max: usize, used: usize| used + (max.saturating_sub(used) / collecting).max(1);
        self.events_stop = share(limits.events_max.get(), messages.len());
        self.bytes_stop = share(limits.bytes_max, *bytes);
    }

    pub(crate) fn push(&mut self, shard: i16, message: Message) {
        self.bytes += message.bytes();
        self.shards.insert(shard);
        self.messages.push(message);
    }

    /// The shard's checkpoint is to be written, also where there is no message of it.
    pub(crate) fn touch(&mut self, shard: i16) {
        self.shards.insert(shard);
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.messages.len() >= self.events_stop || self.bytes >= self.bytes_stop
    }

    /// How many more events there is room for; one at least, for there is always some progress.
    pub(crate) fn room(&self) -> NonZeroUsize {
        let room = self.events_stop.saturating_sub(self.messages.len());
        NonZeroUsize::new(room).unwrap_or(NonZeroUsize::MIN)
    }

    /// The shards whose checkpoints are to be written.
    pub(crate) fn shards(&self) -> &BTreeSet<i16> {
        &self.shards
    }

    /// What was collected, with these checkpoints.
    pub(crate) fn into_batch(
        self,
        checkpoints: Vec<(Lease, Checkpoint)>,
        incarnation: Arc<str>,
    ) -> Batch {
        let recorded_ms = self.messages.iter().map(|message| message.timestamp_ms).sum();
        let hops = Hops::read(self.messages.len(), recorded_ms);
        Batch { messages: self.messages, checkpoints, incarnation, alone: Arc::default(), hops }
    }
}
