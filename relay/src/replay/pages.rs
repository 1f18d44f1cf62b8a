//! The events of a replay, page by page, in the order of their streams.

use annals_store::Store;
use annals_store::outbox::OutboxRow;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{Postgres, Row, SqlStr};

use crate::model::batch::Limits;
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

/// The next events of a part.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) rows: Vec<OutboxRow>,
    /// Whether the part has no more.
    pub(super) is_last: bool,
}

/// The next events behind the progress of a replay: at least one, if its part has more, and at most
/// one beyond the limit of bytes.
pub(super) async fn page(
    store: &Store,
    publication: &str,
    plan: &Plan,
    progress: &ReplayProgress,
    limits: Limits,
) -> Result<Page> {
    let Some(part) = plan.parts.get(progress.part) else {
        return Ok(Page { rows: Vec::new(), is_last: true });
    };
    let statement = store.schema().statement(match part {
        ReplayPart::Category(_) => include_str!("../../sql/replay_page_of_category.sql"),
        ReplayPart::Stream(_) => include_str!("../../sql/replay_page_of_stream.sql"),
        ReplayPart::Lost(_) => include_str!("../../sql/replay_page_of_positions.sql"),
    });
    let after = progress.after.max(plan.range.after);
    let number = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    let (events_max, bytes_max) = (number(limits.events_max.get()), number(limits.bytes_max));
    let query = bind(statement, publication, plan, (part, after)).bind(events_max).bind(bytes_max);
    let action = "read the events of a replay";
    let rows = query.fetch_all(store.pool()).await.map_err(Failure::database(action))?;
    let bytes = rows.last().map(|last| last.try_get::<i64, _>("bytes")).transpose();
    let bytes = bytes.map_err(Failure::database(action))?.unwrap_or_default();
    let is_last = rows.len() < limits.events_max.get() && bytes < bytes_max;
    Ok(Page { rows: rows.into_iter().map(OutboxRow::from).collect(), is_last })
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
