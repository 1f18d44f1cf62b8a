//! Records that are sent and not yet acknowledged, for topics that take smaller batches than the
//! producer makes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::message::Message;

/// The bytes of a batch of records that are none of its records.
const BATCH_OVERHEAD: usize = 61;
/// The most bytes of a record that are neither key, nor value, nor header; lengths and numbers have
/// up to ten bytes. A schema id in a header is one of them.
const RECORD_OVERHEAD: usize = 100;
/// The most bytes of the lengths of a header.
const HEADER_OVERHEAD: usize = 8;

/// The bytes in each partition since everything was last acknowledged: the producer can make one
/// batch of them.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged(HashMap<(Arc<str>, Option<i32>), usize>);

impl Unacknowledged {
    /// Whether a batch with a message would have more bytes than its topic takes: what was sent
    /// before has to be acknowledged first.
    pub(super) fn is_full(&self, message: &Message, max: usize) -> bool {
        let before = self.0.get(&partition(message));
        before.is_some_and(|before| before + bytes(message) > max)
    }

    /// A message is sent.
    pub(super) fn sent(&mut self, message: &Message) {
        *self.0.entry(partition(message)).or_insert(BATCH_OVERHEAD) += bytes(message);
    }

    /// Everything is acknowledged.
    pub(super) fn acknowledged(&mut self) {
        self.0.clear();
    }
}

fn partition(message: &Message) -> (Arc<str>, Option<i32>) {
    (Arc::clone(&message.topic), message.partition)
}

fn bytes(message: &Message) -> usize {
    message.bytes() + RECORD_OVERHEAD + HEADER_OVERHEAD * message.headers.iter().count()
}

#[cfg(test)]
mod tests {
    use annals_relay_machine::Shard;

    use super::*;

    fn message(partition: u16) -> Message {
        let topic = Arc::from("topic");
        Message::about(Shard(0), &topic, Shard(partition), &"x".repeat(400)).unwrap()
    }

    #[test]
    fn the_batches_of_each_partition_stay_below_a_limit() {
        let mut unacknowledged = Unacknowledged::default();
        let (one, other) = (message(1), message(2));
        let mut batch = 0;
        while !unacknowledged.is_full(&one, 2_000) {
            unacknowledged.sent(&one);
            unacknowledged.sent(&other);
            batch += 1;
        }
        assert_eq!(batch, 3);
        assert!(unacknowledged.is_full(&other, 2_000));
        unacknowledged.acknowledged();
        assert!(!unacknowledged.is_full(&one, 2_000));
    }

    /// So Kafka refuses it, and nothing else with it.
    #[test]
    fn a_message_above_the_limit_is_a_batch_of_its_own() {
        let mut unacknowledged = Unacknowledged::default();
        assert!(!unacknowledged.is_full(&message(1), 300));
        unacknowledged.sent(&message(1));
        assert!(unacknowledged.is_full(&message(1), 300));
    }
}
