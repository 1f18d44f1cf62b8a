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
    /// The topics whose records are sent individually.
    pub(super) each_of: &'a HashSet<String>,
    /// Whether all records of a topic are acknowledged before those of the next one are sent.
    pub(super) one_topic_at_a_time: bool,
}

/// How far the messages of a batch are sent.
#[derive(Default)]
pub(super) struct SendProgress {
    /// The number of messages from the first one that are acknowledged: not those sent since.
    pub(super) acknowledged: usize,
    /// The topics whose records were sent individually.
    pub(super) individually: HashSet<Arc<str>>,
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
            producer.drain()?;
            progress.acknowledged = index;
            topic_before = Some(Arc::clone(&message.topic));
        }
        producer.send(message)?;
        if !first.each_of.is_empty() && first.each_of.contains(&*message.topic) {
            producer.drain()?;
            progress.acknowledged = index + 1;
            progress.individually.insert(Arc::clone(&message.topic));
        }
    }
    Ok(())
}

/// Sends messages in the producer's transaction, until they are acknowledged. After a refusal it
/// continues in another transaction, without the stream of a refused message, or individually where
/// Kafka refuses one of several, so that all refused messages are found.
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
    let mut individually = first.each_of.clone();
    let mut left: Vec<&Message> = messages.iter().collect();
    loop {
        let mut progress = SendProgress::default();
        let first = AcknowledgedFirst { each_of: &individually, ..*first };
        let sent = send_messages(producer, left.iter().copied(), &first, &mut progress);
        let failure = match sent.and_then(|()| producer.drain()) {
            Ok(()) if refused.is_empty() => return Ok(progress),
            Ok(()) => break,
            Err(failure) => failure,
        };
        let is_over = match failure.refused() {
            Some(Refused::Event(entry)) => {
                refused.push(entry);
                began.elapsed() >= SEARCH_MAX
            }
            Some(Refused::OneOf(topics)) => {
                individually.extend(topics);
                false
            }
            // Without the events that are found so far it is met again.
            None => true,
        };
        if is_over || begin_again(producer).is_err() {
            if refused.is_empty() {
                return Err(failure.into());
            }
            break;
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
