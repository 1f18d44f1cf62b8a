//! Recorded end offsets of topics: every record before them came from an event that the database
//! has.

use annals_store::{SchemaName, Store};
use sqlx::{PgPool, Row};

use crate::config::Config;
use crate::model::offsets::{RecordOffset, TopicEnds};
use crate::report::failure::Failure;

/// How end offsets were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndsOrigin {
    /// Every event before them is skipped: a rebase has read it.
    Skipped,
    /// Every event before them is in the store; the copied checkpoints cover them later.
    Stored,
}

/// The recorded offset from which records are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartOffset {
    /// The end offset: every event before it is in the store.
    Recorded,
    /// The offset up to which the copied checkpoints cover all records.
    Covered,
}

impl StartOffset {
    const fn column(self) -> &'static str {
        match self {
            Self::Recorded => "end_offset",
            Self::Covered => "covered_offset",
        }
    }
}

/// Records end offsets, unless the database is not the one that the events came from.
pub(crate) async fn record_ends(
    store: &Store,
    config: &Config,
    incarnation: &str,
    (origin, ends): (EndsOrigin, &TopicEnds),
) -> Result<(), Failure> {
    let covered = |end: &RecordOffset| match origin {
        EndsOrigin::Skipped => Some(end.get()),
        EndsOrigin::Stored => None,
    };
    let statement = store.schema().statement(include_str!("../../sql/record_ends.sql"));
    sqlx::query(statement)
        .bind(config.publication())
        .bind(&config.relay.instance)
        .bind(incarnation)
        .bind(ends.keys().map(|(topic, _)| topic.as_str()).collect::<Vec<_>>())
        .bind(ends.keys().map(|(_, partition)| *partition).collect::<Vec<_>>())
        .bind(ends.values().map(|end| end.get()).collect::<Vec<_>>())
        .bind(ends.values().map(covered).collect::<Vec<_>>())
        .execute(store.pool())
        .await
        .map(drop)
        .map_err(Failure::database("record the end offsets of topics"))
}

/// Reads the recorded ends of those of these topics that were published to.
pub(crate) async fn records_of(
    pool: &PgPool,
    schema: &SchemaName,
    (deployment, topics): (&str, &[String]),
) -> Result<TopicEnds, Failure> {
    let action = "read the end offsets of topics";
    let statement = schema.statement(include_str!("../../sql/topic_records.sql"));
    let rows = sqlx::query(statement).bind(deployment).bind(topics).fetch_all(pool).await;
    let rows = rows.map_err(Failure::database(action))?;
    let end = |row: &sqlx::postgres::PgRow| {
        let partition = (row.try_get("topic")?, row.try_get("partition")?);
        Ok::<_, sqlx::Error>((partition, RecordOffset::new(row.try_get("end_offset")?)))
    };
    rows.iter().map(end).collect::<Result<_, _>>().map_err(Failure::database(action))
}

/// Reads the recorded offsets of a deployment's topics.
pub(crate) async fn recorded_ends(
    store: &Store,
    deployment: &str,
    start: StartOffset,
) -> Result<TopicEnds, Failure> {
    let action = "read the end offsets of topics";
    let statement = store.schema().statement(include_str!("../../sql/topic_ends.sql"));
    let rows = sqlx::query(statement).bind(deployment).fetch_all(store.pool()).await;
    let rows = rows.map_err(Failure::database(action))?;
    let end = |row: &sqlx::postgres::PgRow| {
        let partition = (row.try_get("topic")?, row.try_get("partition")?);
        Ok::<_, sqlx::Error>((partition, RecordOffset::new(row.try_get(start.column())?)))
    };
    let ends: Result<TopicEnds, _> = rows.iter().map(end).collect();
    ends.map_err(Failure::database(action))
}
