//! Going on after the database has lost a part of its history (a standby was promoted that had not got everything), or
//! Kafka its checkpoints: what is published is found out from the topics themselves.
//!
//! The copies of checkpoints in PostgreSQL are of the history that the database has, and everything before them is
//! in it: the log is sequential, and a copy is written after what it covers. What was published after the copies is read from
//! the topics. What the store has of it is not published again; what it does not have diverges, and is listed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use annals_store::Store;
use sqlx::Row;
use uuid::Uuid;

use crate::config::{Config, Delivery};
use crate::failure::Failure;
use crate::kafka::{Desk, Found, scan};
use crate::sender;

/// Topics are read from so long before the last copies on: an append can be open for a while, and its events have the
/// time of the append.
const MARGIN_MS: i64 = 24 * 60 * 60 * 1000;
/// So many events are looked up at once.
const LOOK_UP: usize = 1_000;

/// Why a deployment is not begun anew.
#[derive(Debug, thiserror::Error)]
pub enum RebaseError {
    /// Relays run.
    #[error(
        "relays of deployment {deployment} run: {running}. Stop them, and start them again afterwards"
    )]
    Running {
        /// The deployment.
        deployment: String,
        /// Their instances.
        running: String,
    },
    /// A reason is empty.
    #[error("say what happened: --reason must not be empty")]
    NoReason,
}

/// A record in a topic whose event the store does not have, or has as another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Diverging {
    stream: String,
    version: i64,
    published: Uuid,
    topic: String,
    partition: i32,
    offset: i64,
}

/// What the topics have.
#[derive(Default)]
struct Published {
    /// Where the event of each record is said to be.
    records: HashMap<Uuid, Diverging>,
    read: u64,
}

impl Published {
    fn take(&mut self, topic: &str, source: &str, found: Found) {
        self.read += 1;
        if self.read.is_multiple_of(1_000_000) {
            tracing::info!(topic, records = self.read, "reading what is published");
        }
        let header = |name: &str| found.headers.get(name).map(String::as_str);
        let id = header("ce_id").and_then(|id| id.parse().ok());
        let version = header("ce_streamversion").and_then(|version| version.parse().ok());
        // Anything else in the topic is not this store's.
        if let (Some(published), Some(version), true) =
            (id, version, header("ce_source") == Some(source))
        {
            let Found { partition, offset, key, .. } = found;
            let topic = topic.to_owned();
            let record = Diverging { stream: key, version, published, topic, partition, offset };
            self.records.insert(published, record);
        }
    }
}

/// Finds out what is published and the store does not have, says it, and lets the deployment go on from there; with
/// `dry_run`, it only says it. No relay of the deployment may run, neither on this database nor on the one before.
///
/// # Errors
/// [`RebaseError`], a [`Failure`] of Kafka, or what the database says.
pub async fn execute(
    config: Config,
    store: &Store,
    dry_run: bool,
    reason: &str,
) -> Result<String, Box<dyn std::error::Error>> {
    if reason.trim().is_empty() {
        return Err(RebaseError::NoReason.into());
    }
    let config = Arc::new(config);
    let deployment = config.publication();
    let begin = store.schema().statement(include_str!("../sql/rebase_begin.sql"));
    let begin = sqlx::query(begin).bind(&deployment).fetch_one(store.pool()).await?;
    let running: Vec<String> = begin.try_get("running")?;
    if !running.is_empty() {
        return Err(RebaseError::Running { deployment, running: running.join(", ") }.into());
    }
    let ids: Vec<String> = begin.try_get("transactional_ids")?;
    let copied_ms: Option<i64> = begin.try_get("copied_ms")?;
    let categories: Vec<String> = begin.try_get("categories")?;
    let since_ms = copied_ms.map_or(0, |copied| (copied - MARGIN_MS).max(0));
    let read = move || published(&config, dry_run, &ids, since_ms, &categories);
    let mut published = tokio::task::spawn_blocking(read).await??;
    let read = published.read;
    let positions = strike(store, &mut published.records).await?;
    let mut diverging: Vec<Diverging> = published.records.into_values().collect();
    diverging.sort();
    let mut text = listed(store, &diverging).await?;
    writeln!(
        text,
        "{read} records read; the store has {} of these events, and {} published versions diverge",
        positions.len(),
        diverging.len()
    )?;
    if dry_run {
        writeln!(text, "nothing was changed")?;
        return Ok(text);
    }
    let rebase = store.schema().statement(include_str!("../sql/rebase.sql"));
    let rebase = sqlx::query(rebase).bind(&deployment).bind(&positions).bind(reason);
    rebase.execute(store.pool()).await?;
    writeln!(text, "deployment {deployment} begins anew from here: start its relays")?;
    Ok(text)
}

/// Keeps earlier relays from publishing anything more, and reads what they published. Blocks.
fn published(
    config: &Config,
    dry_run: bool,
    ids: &[String],
    since_ms: i64,
    categories: &[String],
) -> Result<Published, Failure> {
    if !dry_run && config.relay.delivery == Delivery::ExactlyOnce {
        sender::fence(config, ids)?;
    }
    let mut topics: HashSet<String> =
        categories.iter().map(|category| config.topic(category)).collect();
    // A category may have begun in the part that is lost.
    let prefix = &config.topics.prefix;
    if !prefix.is_empty() {
        let found = Desk::open(config)?.topics(prefix)?;
        topics.extend(found.into_iter().filter(|name| !name[prefix.len()..].contains('-')));
    }
    let mut published = Published::default();
    for topic in topics {
        tracing::info!(topic, "reading what is published");
        scan(config, &topic, since_ms, |found| {
            published.take(&topic, &config.relay.source, found);
        })?;
    }
    Ok(published)
}

/// Strikes out what the store has as it is published; the positions of that.
async fn strike(
    store: &Store,
    records: &mut HashMap<Uuid, Diverging>,
) -> Result<Vec<i64>, sqlx::Error> {
    let ids: Vec<Uuid> = records.keys().copied().collect();
    let mut positions = Vec::new();
    for some in ids.chunks(LOOK_UP) {
        let known = store.schema().statement(include_str!("../sql/rebase_known.sql"));
        for row in sqlx::query(known).bind(some).fetch_all(store.pool()).await? {
            let (id, version): (Uuid, i64) = (row.try_get("event_id")?, row.try_get("version")?);
            let stream: String = row.try_get("stream")?;
            let is_same = |record: &Diverging| record.stream == stream && record.version == version;
            if records.get(&id).is_some_and(is_same) {
                records.remove(&id);
                positions.push(row.try_get("position")?);
            }
        }
    }
    positions.sort_unstable();
    Ok(positions)
}

/// Each diverging version, with what the store has in its place.
async fn listed(
    store: &Store,
    diverging: &[Diverging],
) -> Result<String, Box<dyn std::error::Error>> {
    let mut instead: BTreeMap<(String, i64), Uuid> = BTreeMap::new();
    for some in diverging.chunks(LOOK_UP) {
        let streams: Vec<&str> = some.iter().map(|of| of.stream.as_str()).collect();
        let versions: Vec<i64> = some.iter().map(|of| of.version).collect();
        let statement = store.schema().statement(include_str!("../sql/rebase_instead.sql"));
        let query = sqlx::query(statement).bind(streams).bind(versions);
        for row in query.fetch_all(store.pool()).await? {
            let place = (row.try_get("stream")?, row.try_get("version")?);
            instead.insert(place, row.try_get("event_id")?);
        }
    }
    let mut text = String::new();
    for Diverging { stream, version, published, topic, partition, offset } in diverging {
        let has = instead.get(&(stream.clone(), *version));
        let has = has.map_or_else(|| "nothing".to_owned(), Uuid::to_string);
        writeln!(
            text,
            "diverges: {stream} version {version}: published {published} ({topic} partition {partition} offset {offset}), \
             the store has {has}"
        )?;
    }
    Ok(text)
}
