//! The topics of an audit: their ends, and reading their records in a thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use annals_store::Store;
use sha2::{Digest as _, Sha256};
use sqlx::Row;
use tokio::sync::mpsc;

use crate::audit::partition::{Anchor, PartitionState, ProvenPartition};
use crate::config::Config;
use crate::kafka::event_scan::{EventHeaders, EventRecord, scan_events};
use crate::kafka::scan::Unread;
use crate::kafka::tail_scan::TailScan;
use crate::kafka::topic_admin::{ByTopic, TopicAdmin};
use crate::model::offsets::{Ends, OffsetRange, RecordOffset, TopicEnds};
use crate::report::failure::Failure;
use crate::report::threads::in_a_thread;
use crate::state::topic_ends::{StartOffset, recorded_ends};

/// The number of records that are compared at once.
const CHUNK_RECORDS: usize = 4_000;
/// The number of chunks that are read in advance.
const CHUNKS_AHEAD: usize = 3;
/// The most partitions that one client reads.
const PARTITIONS_OF_A_READER_MAX: usize = 500;

/// The state of each partition, by topic and number.
pub(super) type PartitionStates = BTreeMap<(Arc<str>, i32), PartitionState>;

/// The topics of a publication, as the broker has them, and as the database knows them.
pub(super) struct AuditedTopics {
    /// Existing topics.
    pub(super) ends: ByTopic<Ends>,
    /// The partition counts when topics were first published to.
    pub(super) partitions: BTreeMap<String, i32>,
    /// The ends that relays have recorded.
    pub(super) recorded: TopicEnds,
}

/// A record, with the hash of its value.
pub(super) struct ScannedRecord {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) offset: RecordOffset,
    pub(super) stream: Option<String>,
    pub(super) hash: Option<[u8; 32]>,
    pub(super) headers: EventHeaders,
}

impl AuditedTopics {
    /// The topics of the store's categories, and others that relays of the publication wrote to.
    pub(super) async fn find(config: &Arc<Config>, store: &Store) -> Result<Self, Failure> {
        let recorded = recorded_ends(store, &config.publication(), StartOffset::Recorded).await?;
        let categories = store.categories().await?;
        let begin = config.topics.prefix.len();
        let is_of_events =
            |topic: &&String| topic.get(begin..).is_some_and(|rest| !rest.contains('-'));
        let mut topics: BTreeSet<String> =
            recorded.keys().map(|(topic, _)| topic).filter(is_of_events).cloned().collect();
        topics.extend(categories.iter().map(|category| config.topic(category.as_str())));
        let of = Arc::clone(config);
        let ends = in_a_thread("topics", move || {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            Ok(TopicAdmin::open(&of)?.ends_of(&topics)?.all()?)
        });
        Ok(Self { ends: ends.await?, partitions: partition_counts(store).await?, recorded })
    }

    pub(super) fn range(&self, topic: &str, partition: i32) -> Option<OffsetRange> {
        let ends = self.ends.get(topic)?;
        ends.iter().find(|(number, _)| i32::from(*number) == partition).map(|(_, range)| *range)
    }

    /// The partition count by which streams are distributed.
    pub(super) fn partition_count(&self, topic: &str) -> Option<i32> {
        let found = || i32::try_from(self.ends.get(topic)?.len()).ok();
        self.partitions.get(topic).copied().or_else(found)
    }

    /// The state of every partition: read on from what an earlier audit proved, or from the
    /// beginning.
    pub(super) fn partition_states(&self, proven: &[ProvenPartition]) -> PartitionStates {
        let proven: BTreeMap<(&str, i32), &ProvenPartition> =
            proven.iter().map(|of| ((of.topic.as_str(), of.partition), of)).collect();
        let mut states = PartitionStates::new();
        for (topic, ends) in &self.ends {
            let name = Arc::<str>::from(topic.as_str());
            for &(partition, OffsetRange { first, end }) in ends {
                let partition = i32::from(partition);
                let state = match proven.get(&(topic.as_str(), partition)) {
                    Some(proven) => PartitionState::after(proven, end),
                    None => PartitionState::from_the_beginning(first, end),
                };
                states.insert((Arc::clone(&name), partition), state);
            }
        }
        states
    }

    /// Why topics are not those that an earlier audit proved; none if they are.
    pub(super) async fn changed_since(
        &self,
        config: &Arc<Config>,
        proven: &[ProvenPartition],
    ) -> Result<Option<String>, Failure> {
        for ProvenPartition { topic, partition, first, end, .. } in proven {
            match self.range(topic, *partition) {
                None => return Ok(Some(format!("{topic}[{partition}] does not exist any more"))),
                Some(range) if range.end < *end => {
                    return Ok(Some(format!("{topic}[{partition}] ends earlier")));
                }
                Some(range) if range.first > *first => {
                    return Ok(Some(format!("{topic}[{partition}] lacks its first records")));
                }
                Some(_) => {}
            }
        }
        let anchors =
            proven.iter().filter_map(|of| Some(((of.topic.clone(), of.partition), of.anchor?)));
        let mut anchors: BTreeMap<(String, i32), Anchor> = anchors.collect();
        let mut tails: BTreeMap<Arc<str>, Vec<(u16, OffsetRange)>> = BTreeMap::new();
        for ((topic, partition), Anchor { offset, .. }) in &anchors {
            let Ok(partition) = u16::try_from(*partition) else { continue };
            let range = OffsetRange { first: *offset, end: offset.next() };
            tails.entry(Arc::from(topic.as_str())).or_default().push((partition, range));
        }
        let config = Arc::clone(config);
        in_a_thread("anchors", move || {
            for part in parts(tails) {
                scan_events(&config, &part, |record| recognize(&mut anchors, &record))?;
            }
            let lost = anchors.into_keys().next();
            Ok(lost.map(|(topic, partition)| format!("{topic}[{partition}] has other records")))
        })
        .await
    }
}

/// Removes the anchor that is this record.
fn recognize(anchors: &mut BTreeMap<(String, i32), Anchor>, record: &EventRecord<'_>) {
    let key = (record.topic.to_string(), record.partition);
    let is_it = |anchor: &Anchor| {
        anchor.offset == record.offset && record.headers.event_id == Some(anchor.event_id)
    };
    if anchors.get(&key).is_some_and(is_it) {
        anchors.remove(&key);
    }
}

/// Begins to read the records of partitions, in a thread. In a shared topic, the records of other
/// sources are left out.
pub(super) fn read(
    config: &Arc<Config>,
    partitions: &PartitionStates,
    topics: &AuditedTopics,
) -> Chunks {
    let mut tails: BTreeMap<Arc<str>, Vec<(u16, OffsetRange)>> = BTreeMap::new();
    for ((topic, partition), state) in partitions {
        let (Some(OffsetRange { end, .. }), Ok(number)) =
            (topics.range(topic, *partition), u16::try_from(*partition))
        else {
            continue;
        };
        let range = OffsetRange { first: state.start(), end };
        tails.entry(Arc::clone(topic)).or_default().push((number, range));
    }
    let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
    let config = Arc::clone(config);
    drop(tokio::task::spawn_blocking(move || {
        if let Err(failure) = read_parts(&config, parts(tails), &chunks) {
            // The audit may have ended.
            drop(chunks.blocking_send(Err(failure)));
        }
    }));
    received
}

/// Records in the order of their partitions.
pub(super) type Chunks = mpsc::Receiver<Result<Vec<ScannedRecord>, Failure>>;

fn read_parts(
    config: &Config,
    parts: Vec<Unread>,
    chunks: &mpsc::Sender<Result<Vec<ScannedRecord>, Failure>>,
) -> Result<(), Failure> {
    let source = config.topics.shared.then_some(config.relay.source.as_str());
    let mut chunk = Vec::with_capacity(CHUNK_RECORDS);
    for part in parts {
        scan_events(config, &part, |record| {
            if source.is_some() && record.headers.source.as_deref() != source {
                return;
            }
            chunk.push(scanned(record));
            if chunk.len() >= CHUNK_RECORDS {
                // If the audit has ended, the rest of this part is read in vain.
                drop(chunks.blocking_send(Ok(std::mem::take(&mut chunk))));
            }
        })?;
        if chunks.is_closed() {
            return Ok(());
        }
    }
    // The audit may have ended.
    drop(chunks.blocking_send(Ok(chunk)));
    Ok(())
}

fn scanned(record: EventRecord<'_>) -> ScannedRecord {
    let EventRecord { topic, partition, offset, stream, datum, headers } = record;
    ScannedRecord {
        topic: Arc::clone(topic),
        partition,
        offset,
        stream: stream.map(str::to_owned),
        hash: datum.map(|datum| Sha256::digest(datum).into()),
        headers,
    }
}

/// Topics in parts, each of which one client reads.
fn parts(topics: BTreeMap<Arc<str>, Vec<(u16, OffsetRange)>>) -> Vec<Unread> {
    let mut parts = vec![Unread::new()];
    let mut partitions = 0;
    for (topic, ends) in topics {
        let count = ends.len();
        let tails = TailScan::between(ends);
        if tails.is_done() {
            continue;
        }
        if partitions + count > PARTITIONS_OF_A_READER_MAX && partitions > 0 {
            parts.push(Unread::new());
            partitions = 0;
        }
        partitions += count;
        if let Some(part) = parts.last_mut() {
            part.insert(topic, tails);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

async fn partition_counts(store: &Store) -> Result<BTreeMap<String, i32>, Failure> {
    let action = "read the partitions of topics";
    let statement = store.schema().statement(include_str!("../../sql/audit_partitions.sql"));
    let rows = sqlx::query(statement).fetch_all(store.pool()).await;
    let rows = rows.map_err(Failure::database(action))?;
    let count =
        |row: &sqlx::postgres::PgRow| Ok((row.try_get("topic")?, row.try_get("partitions")?));
    rows.iter().map(count).collect::<Result<_, _>>().map_err(Failure::database(action))
}
