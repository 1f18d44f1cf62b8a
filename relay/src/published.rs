//! What the topics of a deployment have beyond their recorded ends, compared with the store.
//!
//! An end is recorded in the database after the events before it were read from there. A database that has lost the end of its
//! log has lost the recorded ends of that time, too: so what may be published and lost lies behind those that it has. The copies of
//! checkpoints are made a little earlier, by each relay for its own shards: a rebase, which goes on from the copies, begins where all of
//! them cover what was written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use annals_store::Store;
use sqlx::Row;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::claims_topic::Claims;
use crate::config::Config;
use crate::failure::Failure;
use crate::kafka::{ByTopic, Desk, Ends, Found, TopicEnds, scan, unread};

/// Records that are looked up at once.
const CHUNK_RECORDS: usize = 1_000;
/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 2;
/// After so many records the log says how far the reading is.
const PROGRESS_RECORDS: u64 = 100_000;

/// A record in a topic, by the event that it says it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Published {
    pub(crate) stream: String,
    pub(crate) version: i64,
    pub(crate) event_id: Uuid,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// Behind which offsets records are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Behind the recorded ends: what is before them is in the store for certain.
    Recorded,
    /// Behind what the copies of checkpoints cover: what is before that is known to be published.
    Covered,
}

impl Behind {
    const fn column(self) -> &'static str {
        match self {
            Self::Recorded => "end_offset",
            Self::Covered => "covered_offset",
        }
    }
}

/// Some records, and how far the topics are read with them.
#[derive(Default)]
struct Chunk {
    records: Vec<Published>,
    ends: TopicEnds,
}

/// What came of comparing some records.
pub(crate) struct Compared {
    /// The positions of the events that the store has, too.
    pub(crate) positions: Vec<i64>,
    /// The records whose events it does not have, or has as others, each with what it has instead.
    pub(crate) diverging: Vec<(Published, Option<Uuid>)>,
    /// How far topics are read.
    pub(crate) ends: TopicEnds,
}

/// Reads what topics have beyond their recorded ends, and looks it up in the store. Memory is bounded by some chunks of records.
pub(crate) struct Comparison {
    store: Store,
    chunks: mpsc::Receiver<Result<Chunk, Failure>>,
    read: u64,
}

impl Comparison {
    /// Begins to read: the topics that the publication claims, for a category may have begun in a part of the log that is lost, and
    /// those of the recorded ends.
    pub(crate) async fn begin(
        config: &Arc<Config>,
        store: &Store,
        behind: Behind,
    ) -> Result<Self, Failure> {
        let recorded = recorded_ends(store, &config.publication(), behind).await?;
        let topics: BTreeSet<String> = recorded.keys().map(|(topic, _)| topic.clone()).collect();
        let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
        let config = Arc::clone(config);
        drop(tokio::task::spawn_blocking(move || {
            if let Err(failure) = read(&config, topics, &recorded, &chunks) {
                // The other side may have ended.
                drop(chunks.blocking_send(Err(failure)));
            }
        }));
        Ok(Self { store: store.clone(), chunks: received, read: 0 })
    }

    /// How many records were read.
    pub(crate) const fn records(&self) -> u64 {
        self.read
    }

    /// The next records; none when all are compared.
    pub(crate) async fn next(&mut self) -> Result<Option<Compared>, Failure> {
        let Some(chunk) = self.chunks.recv().await else { return Ok(None) };
        let Chunk { records, ends } = chunk?;
        let before = self.read;
        self.read += records.len() as u64;
        if before / PROGRESS_RECORDS != self.read / PROGRESS_RECORDS {
            let topic = records.last().map(|record| record.topic.as_ref());
            tracing::info!(
                event = "comparing",
                topic,
                records = self.read,
                "comparing what is published with the store"
            );
        }
        compare(&self.store, records, ends).await.map(Some)
    }
}

/// Reads the topics, chunk by chunk. Blocks.
fn read(
    config: &Arc<Config>,
    written: BTreeSet<String>,
    recorded: &TopicEnds,
    chunks: &mpsc::Sender<Result<Chunk, Failure>>,
) -> Result<(), Failure> {
    let desk = Desk::open(config)?;
    let begin = config.topics.prefix.len();
    // Those of checkpoints have a `-` behind the prefix, and no category has.
    let of_events = |topic: &String| topic.get(begin..).is_some_and(|rest| !rest.contains('-'));
    let topics = Claims::new(config).own(&desk, written)?;
    let topics: Vec<&str> =
        topics.iter().filter(|topic| of_events(topic)).map(String::as_str).collect();
    let source = config.topics.shared.then_some(config.relay.source.as_str());
    let ends = desk.ends_of(&topics)?;
    let mut chunk = Chunk::default();
    for part in unread(&ends, recorded) {
        scan(config, &part, |found| {
            chunk.take(source, found);
            if chunk.records.len() >= CHUNK_RECORDS {
                // When nobody listens any more, what is left is read for nothing, once.
                drop(chunks.blocking_send(Ok(std::mem::take(&mut chunk))));
            }
        })?;
        if chunks.is_closed() {
            return Ok(());
        }
        chunk.end_with(&ends, part.keys());
    }
    chunk.end_with(&ends, ends.keys());
    // The other side may have ended.
    drop(chunks.blocking_send(Ok(chunk)));
    Ok(())
}

impl Chunk {
    /// Takes a record, unless it says of no event that it is one.
    /// In a topic that stores share, their sources tell their events apart.
    fn take(&mut self, source: Option<&str>, found: Found) {
        let Found { topic, partition, offset, key: stream, headers } = found;
        let header = |name: &str| headers.get(name).map(String::as_str);
        let event_id = header("ce_id").and_then(|id| id.parse().ok());
        let version = header("ce_streamversion").and_then(|version| version.parse().ok());
        let is_own = source.is_none() || header("ce_source") == source;
        self.ends.insert((topic.to_string(), partition), offset + 1);
        if let (Some(event_id), Some(version), true) = (event_id, version, is_own) {
            self.records.push(Published { stream, version, event_id, topic, partition, offset });
        }
    }

    /// These topics are read up to their ends.
    fn end_with(&mut self, ends: &ByTopic<Ends>, topics: impl Iterator<Item = impl AsRef<str>>) {
        for topic in topics {
            let topic = topic.as_ref();
            let partitions = ends.get(topic).into_iter().flatten();
            self.ends
                .extend(partitions.map(|(partition, (_, end))| {
                    ((topic.to_owned(), i32::from(*partition)), *end)
                }));
        }
    }
}

async fn recorded_ends(
    store: &Store,
    deployment: &str,
    behind: Behind,
) -> Result<TopicEnds, Failure> {
    let statement = store.schema().statement(include_str!("../sql/topic_ends.sql"));
    let rows = sqlx::query(statement).bind(deployment).fetch_all(store.pool()).await;
    let rows = rows.map_err(Failure::database("read how far topics are written"))?;
    let end = |row: &sqlx::postgres::PgRow| {
        let partition = (row.try_get("topic")?, row.try_get("partition")?);
        Ok::<_, sqlx::Error>((partition, row.try_get(behind.column())?))
    };
    let ends: Result<TopicEnds, _> = rows.iter().map(end).collect();
    ends.map_err(Failure::database("read how far topics are written"))
}

async fn compare(
    store: &Store,
    records: Vec<Published>,
    ends: TopicEnds,
) -> Result<Compared, Failure> {
    if records.is_empty() {
        return Ok(Compared { positions: Vec::new(), diverging: Vec::new(), ends });
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
    Ok(Compared { positions, diverging: diverging.into_iter().map(with).collect(), ends })
}

/// Stream, version and position of the events that the store has, or had before they were removed.
async fn known(
    store: &Store,
    records: &[Published],
) -> Result<HashMap<Uuid, (String, i64, i64)>, Failure> {
    let action = "look up what is published";
    let ids: Vec<Uuid> = records.iter().map(|record| record.event_id).collect();
    let statement = store.schema().statement(include_str!("../sql/published_known.sql"));
    let rows = sqlx::query(statement).bind(ids).fetch_all(store.pool()).await;
    let known = |row: &sqlx::postgres::PgRow| {
        let place = (row.try_get("stream")?, row.try_get("version")?, row.try_get("position")?);
        Ok::<_, sqlx::Error>((row.try_get("event_id")?, place))
    };
    let rows = rows.map_err(Failure::database(action))?;
    rows.iter().map(known).collect::<Result<_, _>>().map_err(Failure::database(action))
}

/// The events that the store has where others were published.
async fn instead(
    store: &Store,
    diverging: &[Published],
) -> Result<BTreeMap<(String, i64), Uuid>, Failure> {
    let action = "look up what is published";
    let streams: Vec<&str> = diverging.iter().map(|of| of.stream.as_str()).collect();
    let versions: Vec<i64> = diverging.iter().map(|of| of.version).collect();
    let statement = store.schema().statement(include_str!("../sql/published_instead.sql"));
    let rows = sqlx::query(statement).bind(streams).bind(versions).fetch_all(store.pool()).await;
    let place = |row: &sqlx::postgres::PgRow| {
        let place = (row.try_get("stream")?, row.try_get("version")?);
        Ok::<_, sqlx::Error>((place, row.try_get("event_id")?))
    };
    let rows = rows.map_err(Failure::database(action))?;
    rows.iter().map(place).collect::<Result<_, _>>().map_err(Failure::database(action))
}

/// A published version that the store does not have, in one line.
pub(crate) fn line((record, instead): &(Published, Option<Uuid>)) -> String {
    let Published { stream, version, event_id, topic, partition, offset } = record;
    let has = instead.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
    format!(
        "diverges: {stream} version {version}: published {event_id} ({topic} partition {partition} offset {offset}), the store \
         has {has}"
    )
}
