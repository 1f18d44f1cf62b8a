//! The events of a replay, page by page, in the order of their streams.

use annals_store::Store;
use annals_store::outbox::OutboxRow;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{Postgres, Row, SqlStr};

use crate::replay::Result;
use crate::replay::plan::{Plan, ReplayPart, ReplayProgress};
use crate::report::failure::Failure;

/// How many events a part of a replay has.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct PartCount {
    /// The category or the stream.
    pub(crate) part: ReplayPart,
    pub(crate) events: i64,
    /// The bytes of their values.
    pub(crate) bytes: i64,
    /// The first position.
    pub(crate) first: Option<i64>,
    /// The last position.
    pub(crate) last: Option<i64>,
}

/// The next events behind the progress of a replay; fewer than the limit if its part has no more.
pub(super) async fn page(
    store: &Store,
    publication: &str,
    plan: &Plan,
    progress: &ReplayProgress,
    limit: i64,
) -> Result<Vec<OutboxRow>> {
    let Some(part) = plan.parts.get(progress.part) else { return Ok(Vec::new()) };
    let statement = store.schema().statement(match part {
        ReplayPart::Category(_) => include_str!("../../sql/replay_page_of_category.sql"),
        ReplayPart::Stream(_) => include_str!("../../sql/replay_page_of_stream.sql"),
        ReplayPart::Lost(_) => include_str!("../../sql/replay_page_of_positions.sql"),
    });
    let after = progress.after.max(plan.range.after);
    let query = bind(statement, publication, plan, (part, after)).bind(limit);
    let rows = query.fetch_all(store.pool()).await;
    let rows = rows.map_err(Failure::database("read the events of a replay"))?;
    Ok(rows.into_iter().map(OutboxRow::from).collect())
}

/// Counts the events of each part.
pub(super) async fn count(store: &Store, publication: &str, plan: &Plan) -> Result<Vec<PartCount>> {
    let action = "count the events of a replay";
    let mut counts = Vec::new();
    for part in &plan.parts {
        let statement = store.schema().statement(match part {
            ReplayPart::Category(_) => include_str!("../../sql/replay_count_of_category.sql"),
            ReplayPart::Stream(_) => include_str!("../../sql/replay_count_of_stream.sql"),
            ReplayPart::Lost(_) => include_str!("../../sql/replay_count_of_positions.sql"),
        });
        let query = bind(statement, publication, plan, (part, plan.range.after));
        let row = query.fetch_one(store.pool()).await.map_err(Failure::database(action))?;
        counts.push(counted(&row, part).map_err(Failure::database(action))?);
    }
    Ok(counts)
}

fn counted(row: &PgRow, part: &ReplayPart) -> Result<PartCount, sqlx::Error> {
    Ok(PartCount {
        part: part.clone(),
        events: row.try_get("events")?,
        bytes: row.try_get("bytes")?,
        first: row.try_get("first")?,
        last: row.try_get("last")?,
    })
}

fn bind<'q>(
    statement: SqlStr,
    publication: &str,
    plan: &Plan,
    (part, after): (&ReplayPart, annals_store::Position),
) -> Query<'q, Postgres, PgArguments> {
    let Plan { range, covered, .. } = plan;
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string());
    let entries = &covered.entries;
    let json = |value: &serde_json::Value| Json(value.clone());
    let query = sqlx::query(statement)
        // Planned for these values: a plan for any of them reads the whole log for one stream.
        .persistent(false)
        .bind(publication.to_owned())
        .bind(covered.shards.clone())
        .bind(covered.cursors.iter().map(json).collect::<Vec<_>>())
        .bind(entries.iter().map(|of| of.shard).collect::<Vec<_>>())
        .bind(entries.iter().map(|of| of.kind.clone()).collect::<Vec<_>>())
        .bind(entries.iter().map(|of| of.name.clone()).collect::<Vec<_>>())
        .bind(entries.iter().map(|of| json(&of.cursor)).collect::<Vec<_>>())
        .bind(after)
        .bind(range.until)
        .bind(time(range.first_time))
        .bind(time(range.end_time));
    let query = match part {
        ReplayPart::Category(name) | ReplayPart::Stream(name) => query.bind(name.clone()),
        ReplayPart::Lost(lost) => query.bind(lost.positions.clone()),
    };
    query.bind(range.first_version).bind(range.last_version)
}
