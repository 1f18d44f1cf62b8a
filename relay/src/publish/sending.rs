//! Sending the messages of a batch.
//!
//! All refused events of a batch are found at once: making the producers again after each of them
//! would keep everything else waiting each time.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::kafka::Producer;
use crate::model::message::Message;
use crate::publish::filter::NewEntries;
use crate::report::Refused;
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;

/// The longest search; the next batch continues it.
const SEARCH_MAX: Duration = Duration::from_secs(5);

/// What is acknowledged before the next record is sent.
pub(super) struct AcknowledgedFirst<'a> {
    /// The topics whose records are sent in groups: Kafka refused one of several.
    pub(super) groups_of: &'a HashSet<String>,
    /// Whether all records of a topic are acknowledged before those of the next one are sent.
    pub(super) one_topic_at_a_time: bool,
}

/// How far the messages of a batch are sent.
#[derive(Default)]
pub(super) struct SendProgress {
    /// The number of messages from the first one that are acknowledged: not those sent since.
    acknowledged: usize,
    /// The number of records that are sent in groups and not yet acknowledged.
    in_group: usize,
    group: GroupSize,
    /// The topics whose records were sent in groups.
    pub(super) in_groups: HashSet<Arc<str>>,
}

/// How many records are sent before they are acknowledged, so that a refused one is found in a
/// number of steps that grows with the logarithm of the records before it: the time of a
/// transaction is limited, and each step takes a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GroupSize {
    records: usize,
    /// The number of next records, one of which was refused together with the others; 0 if unknown.
    suspects: usize,
}

impl Default for GroupSize {
    fn default() -> Self {
        Self { records: 1, suspects: 0 }
    }
}

impl GroupSize {
    fn acknowledged(&mut self, records: usize) {
        self.suspects = self.suspects.saturating_sub(records);
        self.records = match self.suspects {
            0 => self.records.max(records * 2),
            suspects => (suspects / 2).max(1),
        };
    }

    fn refused_one_of(&mut self, records: usize) {
        *self = Self { records: (records / 2).max(1), suspects: records };
    }
}

impl SendProgress {
    /// Waits until the messages before the one of this index are acknowledged.
    fn acknowledge(&mut self, producer: &Producer, index: usize) -> Result<(), KafkaFailure> {
        producer.drain_midway()?;
        self.acknowledged = index;
        let records = std::mem::take(&mut self.in_group);
        // Without transactions a producer sends nothing after a refusal: so the refused record must
        // be alone.
        if producer.is_transactional() {
            self.group.acknowledged(records);
        }
        Ok(())
    }
}

/// Sends messages; each one that is passed by value is freed once librdkafka has a copy.
pub(super) fn send_messages(
    producer: &Producer,
    messages: impl IntoIterator<Item: Borrow<Message>>,
    first: &AcknowledgedFirst<'_>,
    progress: &mut SendProgress,
) -> Result<(), KafkaFailure> {
    let mut topic_before: Option<Arc<str>> = None;
    for (index, message) in messages.into_iter().enumerate() {
        let message = message.borrow();
        if first.one_topic_at_a_time && topic_before.as_ref() != Some(&message.topic) {
            progress.acknowledge(producer, index)?;
            topic_before = Some(Arc::clone(&message.topic));
        }
        if !first.groups_of.is_empty() && first.groups_of.contains(&*message.topic) {
            if progress.in_group >= progress.group.records {
                progress.acknowledge(producer, index)?;
            }
            progress.in_group += 1;
            progress.in_groups.insert(Arc::clone(&message.topic));
        }
        producer.send(message)?;
    }
    Ok(())
}

/// Sends messages in the producer's transaction, until they are acknowledged. After a refusal it
/// continues in another transaction, without the stream of a refused message, or in smaller groups
/// where Kafka refuses one of several, so that all refused messages are found.
///
/// # Errors
/// [`Failure::Quarantine`] with the refused events, and [`Failure::Kafka`]: the transaction is not
/// to be committed.
pub(super) fn send_or_find_refused(
    producer: &Producer,
    messages: &[Message],
    first: &AcknowledgedFirst<'_>,
) -> Result<SendProgress, Failure> {
    let began = Instant::now();
    let mut refused = NewEntries::default();
    let mut topics = first.groups_of.clone();
    let mut left: Vec<&Message> = messages.iter().collect();
    let mut group = GroupSize::default();
    loop {
        let mut progress = SendProgress { group, ..SendProgress::default() };
        let first = AcknowledgedFirst { groups_of: &topics, ..*first };
        let sent = send_messages(producer, left.iter().copied(), &first, &mut progress);
        let failure = match sent.and_then(|()| producer.drain()) {
            Ok(()) if refused.is_empty() => return Ok(progress),
            Ok(()) => break,
            Err(failure) => failure,
        };
        let is_late = began.elapsed() >= SEARCH_MAX;
        group = progress.group;
        let is_over = match failure.refused() {
            Some(Refused::Event(entry)) => {
                refused.push(entry);
                group = GroupSize::default();
                is_late
            }
            Some(Refused::OneOf(several)) => {
                let known = topics.len();
                topics.extend(several);
                group.refused_one_of(progress.in_group);
                is_late || topics.len() == known && progress.in_group <= 1
            }
            // Without the events that are found so far it is met again.
            None => true,
        };
        if is_over || begin_again(producer).is_err() {
            if !refused.is_empty() {
                break;
            }
            let acknowledged = messages.len() - left.len() + progress.acknowledged;
            // Fewer events are searched in less time.
            let slow = KafkaFailure::Slow { acknowledged, after: began.elapsed() };
            return Err(if is_late { slow } else { failure }.into());
        }
        left.drain(..progress.acknowledged);
        left.retain(|message| !refused.include_stream(&message.key));
    }
    Err(Failure::Quarantine(refused.into_entries()))
}

/// Begins another transaction in place of a failed one.
fn begin_again(producer: &Producer) -> Result<(), KafkaFailure> {
    producer.abort()?;
    producer.begin()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The groups that find one refused record of so many, and those that were refused.
    fn search(records: usize, refused: usize) -> (usize, usize) {
        let (mut group, mut acknowledged) = (GroupSize::default(), 0);
        let (mut groups, mut refusals) = (0, 0);
        loop {
            let sent = group.records.min(records - acknowledged);
            assert!(sent > 0, "{refused} of {records} was not found");
            groups += 1;
            if !(acknowledged..acknowledged + sent).contains(&refused) {
                acknowledged += sent;
                group.acknowledged(sent);
                continue;
            }
            refusals += 1;
            if sent == 1 {
                return (groups, refusals);
            }
            group.refused_one_of(sent);
        }
    }

    #[test]
    fn a_refused_record_is_found_in_few_steps_wherever_it_is() {
        for refused in 0..4_096 {
            let (groups, refusals) = search(4_096, refused);
            assert!(groups <= 26 && refusals <= 13, "{refused}: {groups}, {refusals}");
        }
        assert_eq!(search(4_096, 0), (1, 1));
    }

    #[test]
    fn records_that_are_refused_only_together_are_sent_alone_and_then_together_again() {
        let mut group = GroupSize::default();
        group.refused_one_of(8);
        let mut sent = Vec::new();
        for _ in 0..6 {
            sent.push(group.records);
            group.acknowledged(group.records);
        }
        assert_eq!(sent, [4, 2, 1, 1, 2, 4]);
    }
}
