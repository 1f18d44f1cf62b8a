//! Batches: the records and checkpoints of one Kafka transaction.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use annals_relay_machine::Lease;
use jiff::Timestamp;

use crate::model::batch_timings::BatchTimings;
use crate::model::checkpoint::ShardCheckpoint;
use crate::model::message::Message;
use crate::model::offsets::Partitions;

/// The records of one Kafka transaction, with the checkpoints of their shards.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Message>,
    /// The bytes of its messages.
    pub(crate) bytes: usize,
    pub(crate) checkpoints: Vec<(Lease, ShardCheckpoint)>,
    /// The incarnation of the database that it was read from.
    pub(crate) incarnation: Arc<str>,
    /// Topics whose records are sent in groups: Kafka refused one of several.
    pub(crate) send_in_groups: Arc<HashSet<String>>,
    /// Whether all refused records are looked for: Kafka refused one.
    pub(crate) find_all_refused: bool,
    /// Whether the records of a topic are acknowledged before those of the next one are sent: Kafka
    /// refused one topic of several.
    pub(crate) one_topic_at_a_time: bool,
    pub(crate) timings: BatchTimings,
}

impl Batch {
    pub(crate) const fn size(&self) -> BatchSize {
        BatchSize { events: self.messages.len(), bytes: self.bytes }
    }

    /// The topics of its records.
    pub(crate) fn topics(&self) -> BTreeSet<Arc<str>> {
        let mut topics = BTreeSet::new();
        let mut last: Option<&Arc<str>> = None;
        for Message { topic, .. } in &self.messages {
            if !last.is_some_and(|last| Arc::ptr_eq(last, topic)) {
                topics.insert(Arc::clone(topic));
            }
            last = Some(topic);
        }
        topics
    }

    /// Whether all of its records go to one topic.
    pub(crate) fn has_one_topic(&self) -> bool {
        let mut topics = self.messages.iter().map(|message| &message.topic);
        let first = topics.next();
        topics.all(|topic| Some(topic) == first)
    }
}

/// The parts of a sent batch, except its messages.
#[derive(Default)]
pub(crate) struct SentBatch {
    pub(crate) size: BatchSize,
    pub(crate) checkpoints: Vec<(Lease, ShardCheckpoint)>,
    /// The incarnation of the database that it was read from.
    pub(crate) incarnation: Arc<str>,
    /// The topics whose records were sent in groups.
    pub(crate) sent_in_groups: HashSet<Arc<str>>,
    /// The partitions that it was written to.
    pub(crate) partitions: Partitions,
}

/// The size of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BatchSize {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// The largest size of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) events_max: NonZeroUsize,
    pub(crate) bytes_max: usize,
}

/// Collects messages until a limit is reached.
#[derive(Debug)]
pub(crate) struct Collector {
    limits: Limits,
    /// The limits of the present share.
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

    /// Limits the next messages to an equal share of the room that is left, of so many shares.
    pub(crate) fn share(&mut self, shares: usize) {
        let Self { limits, messages, bytes, .. } = self;
        let share = |max: usize, used: usize| used + (max.saturating_sub(used) / shares).max(1);
        self.events_stop = share(limits.events_max.get(), messages.len());
        self.bytes_stop = share(limits.bytes_max, *bytes);
    }

    pub(crate) fn push(&mut self, shard: i16, message: Message) {
        self.bytes += message.bytes();
        self.shards.insert(shard);
        self.messages.push(message);
    }

    pub(crate) fn messages_mut(&mut self) -> &mut [Message] {
        &mut self.messages
    }

    /// Has the shard's checkpoint written, also without a message of the shard.
    pub(crate) fn touch(&mut self, shard: i16) {
        self.shards.insert(shard);
    }

    /// Whether there is neither a message nor a checkpoint to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.messages.len() >= self.events_stop || self.bytes >= self.bytes_stop
    }

    /// How many more events of this size there is room for; at least one, so that each page makes
    /// progress.
    pub(crate) fn room(&self, event_bytes: usize) -> NonZeroUsize {
        let events = self.events_stop.saturating_sub(self.messages.len());
        let bytes = self.bytes_stop.saturating_sub(self.bytes);
        let room = events.min(bytes / event_bytes.max(1));
        NonZeroUsize::new(room).unwrap_or(NonZeroUsize::MIN)
    }

    /// The shards whose checkpoints are to be written.
    pub(crate) fn shards(&self) -> &BTreeSet<i16> {
        &self.shards
    }

    /// The collected messages, with these checkpoints.
    pub(crate) fn into_batch(
        self,
        checkpoints: Vec<(Lease, ShardCheckpoint)>,
        incarnation: Arc<str>,
    ) -> Batch {
        let recorded = self.messages.iter().map(|message| message.recorded_at);
        let recorded_ms = recorded.map(Timestamp::as_millisecond).sum();
        let timings = BatchTimings::read(self.messages.len(), recorded_ms);
        let send_in_groups = Arc::default();
        Batch {
            messages: self.messages,
            bytes: self.bytes,
            checkpoints,
            incarnation,
            send_in_groups,
            find_all_refused: false,
            one_topic_at_a_time: false,
            timings,
        }
    }
}

#[cfg(test)]
mod tests {
    use annals_relay_machine::Shard;

    use super::*;

    fn message(bytes: usize) -> Message {
        let topic = Arc::from("topic");
        Message::about(Shard(0), &topic, Shard(0), &"x".repeat(bytes)).unwrap()
    }

    #[test]
    fn there_is_room_for_as_many_events_as_their_bytes_allow() {
        let events_max = NonZeroUsize::new(3_500).unwrap();
        let mut collector = Collector::new(Limits { events_max, bytes_max: 8 << 20 });
        assert_eq!(collector.room(0).get(), 3_500, "their size is not known yet");
        assert_eq!(collector.room(100_000).get(), 83);
        collector.push(0, message(4 << 20));
        assert_eq!(collector.room(100_000).get(), 41);
        collector.share(2);
        assert_eq!(collector.room(100_000).get(), 20);
        collector.push(0, message(4 << 20));
        assert!(collector.is_full());
        assert_eq!(collector.room(100_000).get(), 1, "each page makes progress");
    }
}
