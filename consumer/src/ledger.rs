//! What a projection keeps about itself in PostgreSQL, beside the read model: offsets and versions.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::filter::LastApplied;
use crate::position::{Place, Version};

/// The schema name that stands in the files, and is replaced by the one chosen.
const SCHEMA_IN_FILES: &str = "annals_projections.";

/// How far a projection has read a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The record to read next.
    pub(crate) next: Place,
    /// The event of the record before it, unless nothing was read.
    pub(crate) last_event: Option<Uuid>,
}

/// A partition's next offset: where it stands in PostgreSQL, and where it is to stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advance {
    pub(crate) expected: i64,
    pub(crate) next: Place,
    pub(crate) last_event: Uuid,
}

/// The statements of one projection.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    projection: Arc<str>,
    prepare: Arc<str>,
    claim_partitions: Arc<str>,
    offsets: Arc<str>,
    advance: Arc<str>,
    versions: Arc<str>,
    store_versions: Arc<str>,
    replay: Arc<str>,
    forget_versions: Arc<str>,
}

impl Ledger {
    /// `schema` is written into the statements: it must be a name that needs no quotes.
    pub(crate) fn new(projection: &str, schema: &str) -> Self {
        let chosen = |sql: &str| -> Arc<str> {
            let sql = sql.replace(SCHEMA_IN_FILES, &format!("{schema}."));
            let create = "create schema if not exists ";
            Arc::from(
                sql.replace(&format!("{create}annals_projections"), &format!("{create}{schema}")),
            )
        };
        Self {
            projection: Arc::from(projection),
            prepare: chosen(include_str!("../sql/prepare.sql")),
            claim_partitions: chosen(include_str!("../sql/claim_partitions.sql")),
            offsets: chosen(include_str!("../sql/offsets.sql")),
            advance: chosen(include_str!("../sql/advance.sql")),
            versions: chosen(include_str!("../sql/versions.sql")),
            store_versions: chosen(include_str!("../sql/store_versions.sql")),
            replay: chosen(include_str!("../sql/replay.sql")),
            forget_versions: chosen(include_str!("../sql/forget_versions.sql")),
        }
    }

    pub(crate) async fn prepare(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(safe(&self.prepare)).execute(connection).await?;
        Ok(())
    }

    /// Where to go on reading a topic: one entry for each partition that the projection knows.
    pub(crate) async fn starts(
        &self,
        connection: &mut PgConnection,
        topic: &Arc<str>,
        partitions: i32,
    ) -> Result<Vec<Standing>, sqlx::Error> {
        sqlx::query(safe(&self.claim_partitions))
            .bind(&*self.projection)
            .bind(&**topic)
            .bind(partitions)
            .execute(&mut *connection)
            .await?;
        self.offsets(connection, std::slice::from_ref(topic)).await
    }

    /// Where the projection stands in these topics.
    pub(crate) async fn offsets(
        &self,
        connection: &mut PgConnection,
        topics: &[Arc<str>],
    ) -> Result<Vec<Standing>, sqlx::Error> {
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        let rows: Vec<(String, i32, i64, Option<Uuid>)> = sqlx::query_as(safe(&self.offsets))
            .bind(&*self.projection)
            .bind(topics)
            .fetch_all(connection)
            .await?;
        let standings = rows.into_iter().map(|(topic, partition, offset, last_event)| {
            let next = Place { topic: Arc::from(topic), partition, offset };
            Standing { next, last_event }
        });
        Ok(standings.collect())
    }

    /// Moves partitions on, and says whether all of them stood where they were expected.
    pub(crate) async fn advance(
        &self,
        connection: &mut PgConnection,
        advances: &[Advance],
    ) -> Result<bool, sqlx::Error> {
        let topics: Vec<&str> = advances.iter().map(|advance| &*advance.next.topic).collect();
        let partitions: Vec<i32> = advances.iter().map(|advance| advance.next.partition).collect();
        let expected: Vec<i64> = advances.iter().map(|advance| advance.expected).collect();
        let next: Vec<i64> = advances.iter().map(|advance| advance.next.offset).collect();
        let last_events: Vec<Uuid> = advances.iter().map(|advance| advance.last_event).collect();
        let done = sqlx::query(safe(&self.advance))
            .bind(&*self.projection)
            .bind(topics)
            .bind(partitions)
            .bind(expected)
            .bind(next)
            .bind(last_events)
            .execute(connection)
            .await?;
        Ok(usize::try_from(done.rows_affected()) == Ok(advances.len()))
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
            // The table's constraint keeps negative numbers out.
            Some((stream, LastApplied { version: Version::new(version)?, event_ids }))
        });
        Ok(versions.collect())
    }

    pub(crate) async fn store_versions(
        &self,
        connection: &mut PgConnection,
        lasts: &HashMap<String, LastApplied>,
    ) -> Result<(), sqlx::Error> {
        let streams: Vec<&str> = lasts.keys().map(String::as_str).collect();
        let numbers: Vec<i64> = lasts.values().map(|last| last.version.get()).collect();
        let event_ids: Vec<String> = lasts.values().map(array_text).collect();
        sqlx::query(safe(&self.store_versions))
            .bind(&*self.projection)
            .bind(streams)
            .bind(numbers)
            .bind(event_ids)
            .execute(connection)
            .await?;
        Ok(())
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

/// Event ids as the text of an array: PostgreSQL has no arrays of arrays of different lengths.
fn array_text(last: &LastApplied) -> String {
    let event_ids: Vec<String> = last.event_ids.iter().map(Uuid::to_string).collect();
    format!("{{{}}}", event_ids.join(","))
}

/// The text is one of this crate's files; the schema name in it was checked to be a plain name.
fn safe(sql: &Arc<str>) -> AssertSqlSafe<Arc<str>> {
    AssertSqlSafe(Arc::clone(sql))
}
