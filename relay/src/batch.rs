//! Batches: what goes to Kafka in one transaction, records and checkpoints together.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use crate::checkpoint::Checkpoint;
use crate::message::Message;

/// The records of one Kafka transaction, and how far their shards are published with it.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Message>,
    pub(crate) checkpoints: Vec<(i16, Checkpoint)>,
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
    messages: Vec<Message>,
    shards: BTreeSet<i16>,
    bytes: usize,
}

impl Collector {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, messages: Vec::new(), shards: BTreeSet::new(), bytes: 0 }
    }

    pub(crate) fn push(&mut self, shard: i16, message: Message) {
        self.bytes += message.bytes();
        self.shards.insert(shard);
        self.messages.push(message);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.messages.len() >= self.limits.events_max.get() || self.bytes >= self.limits.bytes_max
    }

    /// The shards of the messages collected so far.
    pub(crate) fn shards(&self) -> &BTreeSet<i16> {
        &self.shards
    }

    /// What was collected, with the checkpoints of these shards; the collector is empty again.
    pub(crate) fn take(&mut self, shards: &[i16], checkpoint: &Checkpoint) -> Batch {
        let next = Self::new(self.limits);
        let full = std::mem::replace(self, next);
        let checkpoints = shards.iter().map(|shard| (*shard, checkpoint.clone())).collect();
        Batch { messages: full.messages, checkpoints }
    }
}
