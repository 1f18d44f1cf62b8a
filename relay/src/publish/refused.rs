//! All refused events of a batch are found at once: making the producers again after each of them
//! would keep everything else waiting each time.

use std::time::{Duration, Instant};

use crate::kafka::Producer;
use crate::model::message::Message;
use crate::publish::filter::NewEntries;
use crate::publish::senders::{AcknowledgedFirst, SendProgress, send_messages};
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;

/// The longest search; the next batch continues it.
const SEARCH_MAX: Duration = Duration::from_secs(5);

/// Sends messages in the producer's transaction, until they are acknowledged. After a refused
/// message it continues in another transaction without that message's stream, so that all of them
/// are found.
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
    let mut left: Vec<&Message> = messages.iter().collect();
    loop {
        let mut progress = SendProgress::default();
        let sent = send_messages(producer, left.iter().copied(), first, &mut progress);
        let failure = match sent.and_then(|()| producer.drain()) {
            Ok(()) if refused.is_empty() => return Ok(progress),
            Ok(()) => break,
            Err(failure) => failure,
        };
        match failure.refused_event() {
            Some(entry) => refused.push(entry),
            None if refused.is_empty() => return Err(failure.into()),
            // Without the events that are found so far it is met again.
            None => break,
        }
        if began.elapsed() >= SEARCH_MAX || begin_again(producer).is_err() {
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
