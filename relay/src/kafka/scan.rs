//! Reads topics up to their present ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{BULK_TIMEOUT, EventContext, REQUEST_TIMEOUT, Result, create};
use crate::config::Config;
use crate::kafka::properties;
use crate::kafka::tail_scan::{LastRecords, TailScan};
use crate::kafka::topic_admin::{ByTopic, TopicAdmin};
use crate::model::offsets::{Ends, OffsetRange, RecordOffset, TopicEnds};
use crate::report::kafka_failure::KafkaFailure;

/// The longest time without a record while a topic is read whole; the broker aborts timed-out
/// transactions every 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The most partitions, or those of one topic, that one client reads: each of its statistics has
/// all of them.
const PARTITIONS_OF_A_READER_MAX: usize = 500;

/// The last committed record of each shard in each partition of a scan, once every partition is
/// fetched up to its end.
pub(crate) fn read_tails(
    config: &Config,
    topic: &str,
    tails: &TailScan,
    deadline: Instant,
) -> Result<LastRecords> {
    let mut last = LastRecords::new();
    let is_late = |_: Poll| Instant::now() >= deadline;
    let unfinished = read(config, &[(topic, tails)], is_late, |message| {
        let shard = message.key().and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
        if let Some(shard) = shard {
            let record = message.payload().map(<[u8]>::to_vec);
            last.insert((message.partition(), shard), record);
        }
    })?;
    finished(unfinished)?;
    Ok(last)
}

/// A record in a topic of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyedRecord {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: RecordOffset,
    /// The stream.
    pub(crate) key: String,
    /// Its headers.
    pub(crate) headers: BTreeMap<String, String>,
}

/// Topics that are read together, each from an offset to its end.
pub(crate) type Unread = BTreeMap<Arc<str>, TailScan>;

/// The records of topics behind recorded end offsets, in parts that are read one after the other:
/// each part by one client, for any number of topics. Fully read topics are left out.
pub(crate) fn unread(ends: &ByTopic<Ends>, recorded: &TopicEnds) -> Vec<Unread> {
    let mut parts = vec![Unread::new()];
    let mut partitions = 0;
    for (topic, ends) in ends {
        let start = |partition: u16| recorded.get(&(topic.clone(), partition.into())).copied();
        let tails =
            TailScan::between(ends.iter().map(|&(partition, OffsetRange { first, end })| {
                // A topic that ends before its recorded offset was created anew: all of it is read.
                let start = start(partition).filter(|start| *start <= end).unwrap_or(first);
                (partition, OffsetRange { first: start.max(first), end })
            }));
        if tails.is_done() {
            continue;
        }
        if partitions >= PARTITIONS_OF_A_READER_MAX {
            parts.push(Unread::new());
            partitions = 0;
        }
        partitions += ends.len();
        if let Some(part) = parts.last_mut() {
            part.insert(Arc::from(topic.as_str()), tails);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Reads every committed record of unread topics, and returns the topics that could not be read to
/// their ends. Blocks.
pub(crate) fn scan(
    config: &Config,
    unread: &Unread,
    mut take: impl FnMut(KeyedRecord),
) -> Result<Unfinished> {
    scan_messages(config, unread, |message| {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let Some((topic, _)) = unread.get_key_value(message.topic()) else { return };
        take(KeyedRecord {
            topic: Arc::clone(topic),
            partition: message.partition(),
            offset: RecordOffset::new(message.offset()),
            key: text(message.key()),
            headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
        });
    })
}

/// The same, with the records as librdkafka has them.
pub(super) fn scan_messages(
    config: &Config,
    unread: &Unread,
    take: impl FnMut(&BorrowedMessage<'_>),
) -> Result<Unfinished> {
    let mut last_record = Instant::now();
    let is_late = move |polled: Poll| {
        if polled == Poll::Record {
            last_record = Instant::now();
        }
        last_record.elapsed() >= SILENCE_MAX
    };
    let of: Vec<(&str, &TailScan)> =
        unread.iter().map(|(topic, tails)| (&**topic, tails)).collect();
    read(config, &of, is_late, take)
}

/// A record of a compacted topic: the last one of each key counts.
pub(crate) struct Keyed {
    pub(crate) offset: RecordOffset,
    pub(crate) key: String,
    /// `None` deletes the key.
    pub(crate) value: Option<Vec<u8>>,
}

/// Reads the first partition of a topic from an offset to its present end, and returns that.
/// Blocks.
pub(crate) fn read_keyed(
    config: &Config,
    admin: &TopicAdmin,
    topic: &str,
    start: RecordOffset,
    mut take: impl FnMut(Keyed),
) -> Result<RecordOffset> {
    let ends = admin.ends(topic, &[0])?;
    let end = ends.first().map_or(start, |(_, range)| range.end);
    // Compaction may have removed the first records.
    let parts = ends.into_iter().map(|(partition, OffsetRange { first, end })| {
        (partition, OffsetRange { first: start.max(first), end })
    });
    let tails = TailScan::between(parts);
    if tails.is_done() {
        return Ok(end);
    }
    let deadline = Instant::now() + BULK_TIMEOUT;
    let unfinished = read(
        config,
        &[(topic, &tails)],
        |_| Instant::now() >= deadline,
        |message| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            take(Keyed {
                offset: RecordOffset::new(message.offset()),
                key: message.key().map(text).unwrap_or_default(),
                value: message.payload().map(<[u8]>::to_vec),
            });
        },
    )?;
    finished(unfinished).map(|()| end)
}

/// The result of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    Record,
    Nothing,
}

/// The topics that a scan could not read to their ends in time, with the reason.
pub(crate) type Unfinished = ByTopic<String>;

/// Every topic is read to its end.
///
/// # Errors
/// [`KafkaFailure::Outage`] with the reason why one is not.
pub(super) fn finished(unfinished: Unfinished) -> Result<()> {
    let reason = unfinished.into_values().next();
    reason.map_or(Ok(()), |reason| Err(KafkaFailure::Outage { action: READ, reason }))
}

/// The action of reading, for failures.
const READ: &str = "read a topic up to its end";

/// Reads every committed record of a scan, until every partition is fetched up to its end, or it is
/// late. `is_late` is asked after each poll.
fn read(
    config: &Config,
    of: &[(&str, &TailScan)],
    is_late: impl FnMut(Poll) -> bool,
    take: impl FnMut(&BorrowedMessage<'_>),
) -> Result<Unfinished> {
    let reader = tail_reader(config, of)?;
    let read = read_by(&reader, of, is_late, take);
    // rdkafka closes a consumer of a group in slices of 100 ms and without a deadline: nothing
    // depends on it.
    let closing = thread::Builder::new().name("reader-close".into()).spawn(move || drop(reader));
    if let Err(error) = closing {
        tracing::debug!(%error, "a reader was closed without a thread of its own");
    }
    read
}

fn read_by(
    reader: &BaseConsumer<EventContext>,
    of: &[(&str, &TailScan)],
    mut is_late: impl FnMut(Poll) -> bool,
    mut take: impl FnMut(&BorrowedMessage<'_>),
) -> Result<Unfinished> {
    let context = reader.context();
    loop {
        let events = context.events.count();
        let found = reader.poll(Duration::from_millis(5));
        let polled = match &found {
            Some(Ok(_)) => Poll::Record,
            Some(Err(_)) | None => Poll::Nothing,
        };
        match found {
            Some(Ok(message)) => take(&message),
            Some(Err(error)) => {
                let topic = of.first().map_or("", |(topic, _)| topic);
                let failure = context.failure(READ, &error).about(topic, Vec::new());
                // An outage may end by itself before the deadline.
                if !failure.is_outage() {
                    return Err(failure);
                }
            }
            // The queue was empty, and it had everything that the statistics before the poll count
            // as fetched.
            None if context.events.count() == events && missing(context, of).next().is_none() => {
                return Ok(Unfinished::new());
            }
            None => {}
        }
        if is_late(polled) {
            return Ok(unfinished(context, of));
        }
    }
}

/// The topics with partitions that are not fetched to their ends, and these, for operators.
fn missing<'a>(
    context: &EventContext,
    of: &'a [(&str, &TailScan)],
) -> impl Iterator<Item = (&'a str, String)> {
    let fetched = context.events.fetched();
    of.iter().filter_map(move |(topic, tails)| {
        let nothing = BTreeMap::new();
        let next = fetched.get(*topic).unwrap_or(&nothing);
        (!tails.are_fetched(next)).then(|| (*topic, tails.missing(next)))
    })
}

/// The topics of which records may be missing when it is late. Those of fetched partitions may
/// still be in the queue.
fn unfinished(context: &EventContext, of: &[(&str, &TailScan)]) -> Unfinished {
    let mut unfinished: Vec<(&str, String)> = missing(context, of).collect();
    if unfinished.is_empty() {
        let reason = "its last records are not taken yet";
        unfinished.extend(of.iter().map(|(topic, _)| (*topic, reason.to_owned())));
    }
    let explained = |(topic, why): (&str, String)| (topic.to_owned(), context.events.explain(why));
    unfinished.into_iter().map(explained).collect()
}

fn tail_reader(config: &Config, of: &[(&str, &TailScan)]) -> Result<BaseConsumer<EventContext>> {
    let topic = of.first().map_or("", |(topic, _)| topic);
    let reader: BaseConsumer<EventContext> =
        create(properties::tail_reader(&config.kafka, topic, of.len()))?;
    // Waits for a connection: without one, an assignment waits for librdkafka's next leader query,
    // a second later.
    let (asked, timeout) =
        if of.len() > 1 { (None, BULK_TIMEOUT) } else { (Some(topic), REQUEST_TIMEOUT) };
    reader
        .fetch_metadata(asked, timeout)
        .map_err(|error| reader.context().failure("look a topic up", &error))?;
    let mut list = TopicPartitionList::new();
    let mut starts = of.iter().flat_map(|(topic, tails)| {
        tails.starts().map(|(partition, start)| (*topic, partition, start))
    });
    let assigned = starts
        .try_for_each(|(topic, partition, start)| {
            list.add_partition_offset(topic, partition, Offset::Offset(start.get()))
        })
        .and_then(|()| reader.assign(&list));
    assigned.map_err(|error| reader.context().failure("read the checkpoints", &error))?;
    Ok(reader)
}
