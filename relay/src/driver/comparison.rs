//! Compares the records that topics have beyond their recorded end offsets with the store.
//!
//! An end offset is recorded after the events before it were read from the same database. A
//! database that has lost the end of its log has also lost the offsets recorded in that time:
//! published events that it has lost are behind the offsets that it still has. Checkpoints are
//! copied a little earlier, by each relay for its own shards: a rebase, which continues from the
//! copies, starts where all of them cover the written records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use annals_store::{Position, Store, Version};
use sqlx::Row;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::config::Config;
use crate::kafka::claims_topic::ClaimsTopic;
use crate::kafka::scan::{KeyedRecord, Unread, scan, unread};
use crate::kafka::tail_scan::TailScan;
use crate::kafka::topic_admin::{ByTopic, FoundEnds, TopicAdmin};
use crate::model::offsets::{Ends, RecordOffset, TopicEnds};
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;
use crate::state::topic_ends::{StartOffset, recorded_ends};

/// The number of records that are looked up at once.
const CHUNK_RECORDS: usize = 1_000;
/// The number of chunks that are read in advance.
const CHUNKS_AHEAD: usize = 2;
/// The number of records between two log entries about the progress.
const PROGRESS_RECORDS: u64 = 100_000;

/// A record in a topic, by the event in its headers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Published {
    pub(crate) stream: String,
    pub(crate) version: Version,
    pub(crate) event_id: Uuid,
    pub(crate) location: RecordLocation,
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordLocation {
    topic: Arc<str>,
    partition: i32,
    offset: RecordOffset,
}

/// Some records, the end offsets of the topics that are read with them, and the topics that cannot
/// be read.
#[derive(Default)]
struct Chunk {
    /// In the first chunk, the number of offsets to read.
    offsets: u64,
    records: Vec<Published>,
    ends: TopicEnds,
    unread: ByTopic<KafkaFailure>,
}

/// The result of comparing some records.
pub(crate) struct Compared {
    /// The positions of the events that the store has.
    pub(crate) positions: Vec<Position>,
    /// The records whose events it does not have, each with the event that has their version
    /// instead.
    pub(crate) diverging: Vec<Diverging>,
    /// The offsets up to which topics are read.
    pub(crate) ends: TopicEnds,
    /// The topics that cannot be read to their ends at the moment, with the reason.
    pub(crate) unread: ByTopic<KafkaFailure>,
}

/// The topics to compare.
#[derive(Debug, Clone)]
pub(crate) enum ComparedTopics {
    /// All topics of the publication.
    All,
    /// Some of them.
    Some(BTreeSet<String>),
}

/// Reads the records beyond the recorded end offsets, and looks their events up in the store.
/// Memory is bounded by a few chunks.
pub(crate) struct Comparison {
    store: Store,
    chunks: mpsc::Receiver<Result<Chunk, Failure>>,
    offsets: u64,
    read: u64,
}

impl Comparison {
    /// Begins to read: the topics with recorded end offsets, and those that the publication claims,
    /// since a category may have begun in the lost part of the log.
    pub(crate) async fn begin(
        config: &Arc<Config>,
        store: &Store,
        (topics, start): (ComparedTopics, StartOffset),
    ) -> Result<Self, Failure> {
        let recorded = recorded_ends(store, &config.publication(), start).await?;
        let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
        let config = Arc::clone(config);
        drop(tokio::task::spawn_blocking(move || {
            if let Err(failure) = read(&config, topics, &recorded, &chunks) {
                // The comparison may have been dropped.
                drop(chunks.blocking_send(Err(failure)));
            }
        }));
        Ok(Self { store: store.clone(), chunks: received, offsets: 0, read: 0 })
    }

    /// The number of records read.
    pub(crate) const fn records(&self) -> u64 {
        self.read
    }

    /// The number of offsets to read, from the first results on: not each has a record.
    pub(crate) const fn offsets(&self) -> u64 {
        self.offsets
    }

    /// The next results; none when all records are compared.
    pub(crate) async fn next(&mut self) -> Result<Option<Compared>, Failure> {
        let Some(chunk) = self.chunks.recv().await else { return Ok(None) };
        let Chunk { offsets, records, ends, unread } = chunk?;
        self.offsets += offsets;
        let before = self.read;
        self.read += records.len() as u64;
        if before / PROGRESS_RECORDS != self.read / PROGRESS_RECORDS {
            let topic = records.last().map(|record| record.location.topic.as_ref());
            tracing::info!(
                event = "comparing",
                topic,
                records = self.read,
                "comparing published events with the store"
            );
        }
        let (positions, diverging) = compare(&self.store, records).await?;
        Ok(Some(Compared { positions, diverging, ends, unread }))
    }
}

/// Reads the topics, chunk by chunk. Blocks.
fn read(
    config: &Arc<Config>,
    of: ComparedTopics,
    recorded: &TopicEnds,
    chunks: &mpsc::Sender<Result<Chunk, Failure>>,
) -> Result<(), Failure> {
    let admin = TopicAdmin::open(config)?;
    let topics = match of {
        ComparedTopics::All => topics_of_events(config, &admin, recorded)?,
        ComparedTopics::Some(topics) => topics,
    };
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let source = config.topics.shared.then_some(config.relay.source.as_str());
    let FoundEnds { known: mut ends, unknown } = admin.ends_of(&topics)?;
    let mut parts = unread(&ends, recorded);
    let offsets = parts.iter().flat_map(BTreeMap::values).map(TailScan::offsets).sum();
    let mut chunk = Chunk { offsets, unread: unknown, ..Chunk::default() };
    while let Some(part) = parts.pop() {
        let scanned = scan(config, &part, |found| {
            chunk.take(source, found);
            if chunk.records.len() >= CHUNK_RECORDS {
                // If the comparison was dropped, the rest of this part is read in vain.
                drop(chunks.blocking_send(Ok(std::mem::take(&mut chunk))));
            }
        });
        let unread: ByTopic<KafkaFailure> = match scanned {
            Ok(unfinished) => unfinished.into_iter().map(unfinished_topic).collect(),
            Err(failure) if failure.is_outage() => return Err(failure.into()),
            // Kafka does not say which topic it refuses. A record that is read again is compared
            // again.
            Err(_) if part.len() > 1 => {
                parts.extend(part.into_iter().map(|topic| Unread::from([topic])));
                continue;
            }
            Err(failure) => part.keys().map(|topic| (topic.to_string(), failure.clone())).collect(),
        };
        if chunks.is_closed() {
            return Ok(());
        }
        ends.retain(|topic, _| !unread.contains_key(topic));
        chunk.end_with(&ends, part.keys());
        chunk.unread.extend(unread);
    }
    chunk.end_with(&ends, ends.keys());
    // The comparison may have been dropped.
    drop(chunks.blocking_send(Ok(chunk)));
    Ok(())
}

/// The topics with recorded end offsets and those that the publication claims, without those of
/// checkpoints.
fn topics_of_events(
    config: &Arc<Config>,
    admin: &TopicAdmin,
    recorded: &TopicEnds,
) -> Result<BTreeSet<String>, Failure> {
    let begin = config.topics.prefix.len();
    // A topic of checkpoints has a `-` behind the prefix, and no category has one.
    let of_events = |topic: &String| topic.get(begin..).is_some_and(|rest| !rest.contains('-'));
    let written = recorded.keys().map(|(topic, _)| topic.clone()).collect();
    let mut topics = ClaimsTopic::new(config).own(admin, written)?;
    topics.retain(of_events);
    Ok(topics)
}

fn unfinished_topic((topic, reason): (String, String)) -> (String, KafkaFailure) {
    (topic.clone(), KafkaFailure::TopicUnavailable { topic, reason })
}

impl Chunk {
    /// Takes a record, unless it is no event. In a shared topic, the source distinguishes the
    /// events of the stores.
    fn take(&mut self, source: Option<&str>, found: KeyedRecord) {
        let KeyedRecord { topic, partition, offset, key: stream, headers } = found;
        let header = |name: &str| headers.get(name).map(String::as_str);
        let event_id = header("ce_id").and_then(|id| id.parse().ok());
        let version =
            header("ce_streamversion").and_then(|version| Version::new(version.parse().ok()?));
        let is_own = source.is_none() || header("ce_source") == source;
        self.ends.insert((topic.to_string(), partition), offset.next());
        if let (Some(event_id), Some(version), true) = (event_id, version, is_own) {
            let location = RecordLocation { topic, partition, offset };
            self.records.push(Published { stream, version, event_id, location });
        }
    }

    /// These topics are read up to their ends.
    fn end_with(&mut self, ends: &ByTopic<Ends>, topics: impl Iterator<Item = impl AsRef<str>>) {
        for topic in topics {
            let topic = topic.as_ref();
            let partitions = ends.get(topic).into_iter().flatten();
            self.ends.extend(
                partitions.map(|(partition, range)| {
                    ((topic.to_owned(), i32::from(*partition)), range.end)
                }),
            );
        }
    }
}

/// A record whose event the store does not have, with the event that has its version instead.
type Diverging = (Published, Option<Uuid>);

/// The positions of the records that the store has, and the records that it does not have.
async fn compare(
    store: &Store,
    records: Vec<Published>,
) -> Result<(Vec<Position>, Vec<Diverging>), Failure> {
    if records.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let known = known(store, &records).await?;
    let (mut positions, mut diverging) = (Vec::new(), Vec::new());
    for record in records {
        match known.get(&record.event_id) {
            Some((stream, version, position))
                if *stream == record.stream && *version == record.version =>
            {
                positions.push(*position);
            }
            Some(_) | None => diverging.push(record),
        }
    }
    let instead = instead(store, &diverging).await?;
    let with = |record: Published| {
        let has = instead.get(&(record.stream.clone(), record.version)).copied();
        (record, has)
    };
    Ok((positions, diverging.into_iter().map(with).collect()))
}

/// Stream, version and position of the events that the store has, or had before they were removed.
async fn known(
    store: &Store,
    records: &[Published],
) -> Result<HashMap<Uuid, (String, Version, Position)>, Failure> {
    let action = "look up published events";
    let ids: Vec<Uuid> = records.iter().map(|record| record.event_id).collect();
    let statement = store.schema().statement(include_str!("../../sql/events_by_id.sql"));
    let rows = sqlx::query(statement).bind(ids).fetch_all(store.pool()).await;
    let known = |row: &sqlx::postgres::PgRow| {
        let event = (row.try_get("stream")?, row.try_get("version")?, row.try_get("position")?);
        Ok::<_, sqlx::Error>((row.try_get("event_id")?, event))
    };
    let rows = rows.map_err(Failure::database(action))?;
    rows.iter().map(known).collect::<Result<_, _>>().map_err(Failure::database(action))
}

/// The events that the store has under the versions of diverging records.
async fn instead(
    store: &Store,
    diverging: &[Published],
) -> Result<BTreeMap<(String, Version), Uuid>, Failure> {
    let action = "look up published events";
    let streams: Vec<&str> = diverging.iter().map(|of| of.stream.as_str()).collect();
    let versions: Vec<Version> = diverging.iter().map(|of| of.version).collect();
    let statement = store.schema().statement(include_str!("../../sql/events_by_version.sql"));
    let rows = sqlx::query(statement).bind(streams).bind(versions).fetch_all(store.pool()).await;
    let place = |row: &sqlx::postgres::PgRow| {
        let version = (row.try_get("stream")?, row.try_get("version")?);
        Ok::<_, sqlx::Error>((version, row.try_get("event_id")?))
    };
    let rows = rows.map_err(Failure::database(action))?;
    rows.iter().map(place).collect::<Result<_, _>>().map_err(Failure::database(action))
}

/// A diverging record, in one line.
pub(crate) fn describe((record, instead): &Diverging) -> String {
    let Published { stream, version, event_id, location } = record;
    let RecordLocation { topic, partition, offset } = location;
    let has = instead.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
    format!(
        "diverges: {stream} version {version}: published {event_id} ({topic} partition {partition} offset {offset}), the store \
         has {has}"
    )
}
