//! Stores a projection's offsets and versions in PostgreSQL, beside its read model.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::dead_letter::DeadLetter;
use crate::filter_error::Gap;
use crate::outage::causes;
use crate::position::{Offset, OwnerEpoch, RecordLocation, TopicPartition, Version};
use crate::progress::{IDS_MAX, LastApplied, OffsetUpdate, PartitionProgress};

/// The schema name in the SQL files: replaced by the configured one.
const SCHEMA_IN_FILES: &str = "annals_projections.";
/// The longest name of a schema in PostgreSQL.
const SCHEMA_BYTES_MAX: usize = 63;

/// What a transaction of a batch sets for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransactionSettings<'a> {
    /// PostgreSQL ends it when it is idle for this time.
    pub(crate) deadline: Duration,
    /// The schema whose tables the handler names without it.
    pub(crate) tables: Option<&'a str>,
}

/// The statements of one projection.
#[derive(Debug, Clone)]
pub(crate) struct ProjectionStore {
    projection: Arc<str>,
    schema: Arc<str>,
    prepare: Arc<str>,
    claim_partitions: Arc<str>,
    claim_ownership: Arc<str>,
    offsets: Arc<str>,
    update_offsets: Arc<str>,
    versions: Arc<str>,
    store_versions: Arc<str>,
    replay: Arc<str>,
    forget_versions: Arc<str>,
    accept_gap: Arc<str>,
    accepted_gaps: Arc<str>,
    accept_removal: Arc<str>,
    insert_dead_letter: Arc<str>,
}

impl ProjectionStore {
    /// `schema` replaces the name in the statements: it must need no quotes.
    pub(crate) fn new(projection: &str, schema: &str) -> Self {
        Self {
            projection: Arc::from(projection),
            schema: Arc::from(schema),
            prepare: in_schema(include_str!("../sql/prepare.sql"), schema),
            claim_partitions: in_schema(include_str!("../sql/claim_partitions.sql"), schema),
            claim_ownership: in_schema(include_str!("../sql/claim_ownership.sql"), schema),
            offsets: in_schema(include_str!("../sql/offsets.sql"), schema),
            update_offsets: in_schema(include_str!("../sql/update_offsets.sql"), schema),
            versions: in_schema(include_str!("../sql/versions.sql"), schema),
            store_versions: in_schema(include_str!("../sql/store_versions.sql"), schema),
            replay: in_schema(include_str!("../sql/replay.sql"), schema),
            forget_versions: in_schema(include_str!("../sql/forget_versions.sql"), schema),
            accept_gap: in_schema(include_str!("../sql/accept_gap.sql"), schema),
            accepted_gaps: in_schema(include_str!("../sql/accepted_gaps.sql"), schema),
            accept_removal: in_schema(include_str!("../sql/accept_removal.sql"), schema),
            insert_dead_letter: in_schema(include_str!("../sql/insert_dead_letter.sql"), schema),
        }
    }

    /// The schema of the tables.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) async fn prepare(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(safe(&self.prepare)).execute(connection).await?;
        Ok(())
    }

    /// Starts the partitions of a topic that are not recorded at offset 0; returns how many were
    /// recorded, and this number for a new topic.
    pub(crate) async fn claim(
        &self,
        connection: &mut PgConnection,
        topic: &Arc<str>,
        partitions: i32,
    ) -> Result<i32, sqlx::Error> {
        sqlx::query_scalar(safe(&self.claim_partitions))
            .bind(&*self.projection)
            .bind(&**topic)
            .bind(partitions)
            .fetch_one(connection)
            .await
    }

    /// Makes the caller the owner of partitions, and returns their progress.
    pub(crate) async fn claim_ownership(
        &self,
        connection: &mut PgConnection,
        partitions: &[TopicPartition],
    ) -> Result<Vec<PartitionProgress>, sqlx::Error> {
        let topics: Vec<&str> = partitions.iter().map(|(topic, _)| &**topic).collect();
        let numbers: Vec<i32> = partitions.iter().map(|(_, partition)| *partition).collect();
        let rows: Vec<ProgressRow> = sqlx::query_as(safe(&self.claim_ownership))
            .bind(&*self.projection)
            .bind(topics)
            .bind(numbers)
            .fetch_all(connection)
            .await?;
        Ok(rows.into_iter().filter_map(progress).collect())
    }

    /// The progress in these topics.
    pub(crate) async fn progress(
        &self,
        connection: &mut PgConnection,
        topics: &[Arc<str>],
    ) -> Result<Vec<PartitionProgress>, sqlx::Error> {
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        let rows: Vec<ProgressRow> = sqlx::query_as(safe(&self.offsets))
            .bind(&*self.projection)
            .bind(topics)
            .fetch_all(connection)
            .await?;
        Ok(rows.into_iter().filter_map(progress).collect())
    }

    /// Updates offsets. Returns false if a stored offset or owner differs from the expected one.
    pub(crate) async fn update_offsets(
        &self,
        connection: &mut PgConnection,
        updates: &[OffsetUpdate],
        settings: TransactionSettings<'_>,
    ) -> Result<bool, sqlx::Error> {
        let topics: Vec<&str> = updates.iter().map(|update| &*update.next.topic).collect();
        let partitions: Vec<i32> = updates.iter().map(|update| update.next.partition).collect();
        let expected: Vec<i64> = updates.iter().map(|update| update.expected.get()).collect();
        let next: Vec<i64> = updates.iter().map(|update| update.next.offset.get()).collect();
        let last_events: Vec<Uuid> = updates.iter().map(|update| update.last_event).collect();
        let epochs: Vec<i64> = updates.iter().map(|update| update.owner_epoch.get()).collect();
        let done = sqlx::query(safe(&self.update_offsets))
            .bind(&*self.projection)
            .bind(topics)
            .bind(partitions)
            .bind(expected)
            .bind(next)
            .bind(last_events)
            .bind(epochs)
            .bind(format!(
                "{}ms",
                settings.deadline.as_millis().clamp(1, i32::MAX.unsigned_abs().into())
            ))
            .bind(settings.tables)
            .execute(connection)
            .await?;
        Ok(usize::try_from(done.rows_affected()) == Ok(updates.len()))
    }

    pub(crate) async fn versions(
        &self,
        connection: &mut PgConnection,
        streams: &[&str],
    ) -> Result<Vec<(String, LastApplied)>, sqlx::Error> {
        let rows: Vec<(String, i64, Vec<Uuid>)> = sqlx::query_as(safe(&self.versions))
            .bind(&*self.projection)
            .bind(streams)
            .fetch_all(connection)
            .await?;
        let versions = rows.into_iter().filter_map(|(stream, version, event_ids)| {
            // The table's constraint excludes negative numbers.
            Some((stream, LastApplied::new(Version::new(version)?, &event_ids)))
        });
        Ok(versions.collect())
    }

    pub(crate) async fn store_versions(
        &self,
        connection: &mut PgConnection,
        versions: &HashMap<String, LastApplied>,
    ) -> Result<(), sqlx::Error> {
        let streams: Vec<&str> = versions.keys().map(String::as_str).collect();
        let numbers: Vec<i64> = versions.values().map(|last| last.version().get()).collect();
        let mut event_ids = Vec::with_capacity(streams.len() * IDS_MAX);
        let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
        for last in versions.values() {
            // A batch has fewer streams.
            let place = |index: usize| i32::try_from(index).unwrap_or(i32::MAX);
            firsts.push(place(event_ids.len() + 1));
            event_ids.extend_from_slice(last.event_ids());
            lasts.push(place(event_ids.len()));
        }
        sqlx::query(safe(&self.store_versions))
            .bind(&*self.projection)
            .bind(streams)
            .bind(numbers)
            .bind(event_ids)
            .bind(firsts)
            .bind(lasts)
            .execute(connection)
            .await?;
        Ok(())
    }

    pub(crate) async fn accept_gap(
        &self,
        connection: &mut PgConnection,
        gap: &Gap,
        reason: &str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(safe(&self.accept_gap))
            .bind(&*self.projection)
            .bind(&gap.stream)
            .bind(gap.expected.get())
            .bind(gap.found.get())
            .bind(reason)
            .execute(connection)
            .await?;
        Ok(())
    }

    pub(crate) async fn accept_removal(
        &self,
        connection: &mut PgConnection,
        next: &RecordLocation,
        low: Offset,
        reason: &str,
    ) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(safe(&self.accept_removal))
            .bind(&*self.projection)
            .bind(&*next.topic)
            .bind(next.partition)
            .bind(next.offset.get())
            .bind(low.get())
            .bind(reason)
            .execute(connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn insert_dead_letter(
        &self,
        connection: &mut PgConnection,
        letter: &DeadLetter,
    ) -> Result<(), sqlx::Error> {
        let (location, bytes) = (letter.location(), letter.bytes());
        let (names, values): (Vec<String>, Vec<Option<Vec<u8>>>) =
            bytes.headers.into_iter().unzip();
        let event = letter.event();
        sqlx::query(safe(&self.insert_dead_letter))
            .bind(&*self.projection)
            .bind(&*location.topic)
            .bind(location.partition)
            .bind(location.offset.get())
            .bind(bytes.key)
            .bind(bytes.value)
            .bind(names)
            .bind(values)
            .bind(event.map(|event| event.stream.as_str()))
            .bind(event.map(|event| event.version.get()))
            .bind(event.map(|event| event.event_id))
            .bind(event.map(|event| event.event_type.as_str()))
            .bind(causes(letter.error()))
            .execute(connection)
            .await?;
        Ok(())
    }

    pub(crate) async fn accepted_gaps(
        &self,
        connection: &mut PgConnection,
    ) -> Result<HashSet<Gap>, sqlx::Error> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(safe(&self.accepted_gaps))
            .bind(&*self.projection)
            .fetch_all(connection)
            .await?;
        let gaps = rows.into_iter().filter_map(|(stream, expected, found)| {
            // The table's constraint excludes negative numbers.
            Some(Gap { stream, expected: Version::new(expected)?, found: Version::new(found)? })
        });
        Ok(gaps.collect())
    }

    pub(crate) async fn replay(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(safe(&self.replay)).bind(&*self.projection).execute(connection).await?;
        Ok(())
    }

    pub(crate) async fn forget_versions(
        &self,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(safe(&self.forget_versions))
            .bind(&*self.projection)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// A row of offsets.sql and of claim_ownership.sql.
type ProgressRow = (String, i32, i64, Option<Uuid>, i64);

fn progress(
    (topic, partition, offset, last_event, owner_epoch): ProgressRow,
) -> Option<PartitionProgress> {
    // The table's constraint excludes negative numbers, and epochs only rise.
    let (offset, owner_epoch) = (Offset::new(offset)?, OwnerEpoch::new(owner_epoch)?);
    let next = RecordLocation { topic: Arc::from(topic), partition, offset };
    Some(PartitionProgress { next, last_event, owner_epoch })
}

/// Whether a name of a schema is the same with and without quotes in SQL.
pub(crate) fn needs_no_quotes(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= SCHEMA_BYTES_MAX
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// A statement with the configured schema, which must need no quotes.
pub(crate) fn in_schema(sql: &str, schema: &str) -> Arc<str> {
    let sql = sql.replace(SCHEMA_IN_FILES, &format!("{schema}."));
    let create = "create schema if not exists ";
    Arc::from(sql.replace(&format!("{create}annals_projections"), &format!("{create}{schema}")))
}

/// The text is one of this crate's files; the schema name in it was checked to be a plain name.
pub(crate) fn safe(sql: &Arc<str>) -> AssertSqlSafe<Arc<str>> {
    AssertSqlSafe(Arc::clone(sql))
}
