//! The call of the append function: its arguments and its reply.

use jiff::Timestamp;
use serde_json::value::RawValue;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::types::Json;
use sqlx::{Executor, PgConnection, Postgres, Row, SqlStr};

use crate::append::refusal_rows::{self, RefusalRow};
use crate::append::request::{Append, Appended};
use crate::error::AppendError;
use crate::event::NewEvent;
use crate::options::DataPolicy;
use crate::store::Store;
use crate::stream::{Position, Version};
use crate::timestamptz::PgTimestamp;
use crate::trace::{TraceContext, with_trace};

/// An append, and the trace context for its events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traced<'a> {
    pub(crate) append: &'a Append,
    pub(crate) trace: Option<&'a TraceContext>,
}

impl Store {
    /// Executes a statement with the arguments of `annals.append`, or of `annals.append_tagged` if
    /// the append has tags. The inner error is an unreadable reply.
    pub(crate) async fn execute_append(
        &self,
        connection: &mut PgConnection,
        statement: SqlStr,
        append: Traced<'_>,
    ) -> Result<Result<AppendReply, sqlx::Error>, sqlx::Error> {
        let Traced { append, trace } = append;
        let events = || append.events();
        let metadata = events().map(|event| Json(with_trace(&event.metadata, trace)));
        // Arrays of PostgreSQL are 1-based.
        let stream_of =
            |(index, _): &(usize, NewEvent)| i32::try_from(index + 1).unwrap_or(i32::MAX);
        let query = sqlx::query(statement)
            .bind(append.streams.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
            .bind(
                append.streams.iter().map(|(_, expected)| expected.to_store()).collect::<Vec<_>>(),
            )
            .bind(append.events.iter().map(stream_of).collect::<Vec<_>>())
            .bind(events().map(|event| event.id.get()).collect::<Vec<_>>())
            .bind(events().map(|event| event.event_type).collect::<Vec<_>>())
            .bind(events().map(|event| event.schema.fingerprint().get()).collect::<Vec<_>>())
            .bind(events().map(|event| event.payload.as_slice()).collect::<Vec<_>>())
            .bind(events().map(|event| self.data_of(event)).collect::<Vec<_>>())
            .bind(metadata.collect::<Vec<_>>())
            .bind(events().map(|event| Json(&event.headers)).collect::<Vec<_>>())
            .bind(append.conflict_events_max);
        let query = if append.has_tags() { bind_tags(query, append) } else { query };
        let replied = self.within_deadline(connection.fetch_one(query)).await;
        replied.map(|row| AppendReply::read(&row))
    }

    /// The JSON that is recorded beside the payload of an event.
    pub(crate) fn data_of<'a>(&self, event: &'a NewEvent) -> Option<Json<&'a RawValue>> {
        (self.options().data == DataPolicy::Recorded).then_some(Json(&*event.data))
    }

    /// The result of an append with this reply. Loads the schemas of the events in conflicts.
    pub(crate) async fn result_of(
        &self,
        connection: &mut PgConnection,
        append: &Append,
        reply: AppendReply,
    ) -> Result<Appended, AppendError> {
        match reply {
            AppendReply::Recorded(recorded) => Ok(recorded.into_appended(append)),
            AppendReply::Refused(rows) => {
                let refusals = refusal_rows::refusals(self, connection, rows).await?;
                Err(AppendError::Refused(refusals))
            }
        }
    }
}

type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

fn bind_tags<'q>(query: Query<'q>, append: &'q Append) -> Query<'q> {
    let tags = || {
        let numbered = append.events().zip(1_i32..);
        numbered
            .flat_map(|(event, number)| event.tags.iter().map(move |tag| (number, tag.as_str())))
    };
    let conditions = || append.conditions.iter();
    query
        .bind(tags().map(|(number, _)| number).collect::<Vec<_>>())
        .bind(tags().map(|(_, tag)| tag).collect::<Vec<_>>())
        .bind(conditions().map(|condition| condition.tag.as_str()).collect::<Vec<_>>())
        .bind(conditions().map(|condition| condition.after).collect::<Vec<_>>())
        .bind(conditions().map(|condition| condition.types.as_ref().map(Json)).collect::<Vec<_>>())
}

/// The reply of the append function.
pub(crate) enum AppendReply {
    Recorded(RepliedAppend),
    Refused(Vec<RefusalRow>),
}

/// The columns of an append that was written, now or earlier.
pub(crate) struct RepliedAppend {
    pub(crate) repeated: bool,
    pub(crate) versions: Vec<Version>,
    pub(crate) positions: Vec<Position>,
    pub(crate) recorded_at: Option<Timestamp>,
}

impl AppendReply {
    pub(crate) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        if let Some(Json(refusals)) = row.try_get("refusals")? {
            return Ok(Self::Refused(refusals));
        }
        Ok(Self::Recorded(RepliedAppend {
            repeated: row.try_get::<&str, _>("outcome")? == "repeated",
            versions: row.try_get::<Option<_>, _>("versions")?.unwrap_or_default(),
            positions: row.try_get::<Option<_>, _>("positions")?.unwrap_or_default(),
            recorded_at: row.try_get::<Option<PgTimestamp>, _>("recorded_at")?.map(|time| time.0),
        }))
    }
}

impl RepliedAppend {
    pub(crate) fn into_appended(self, append: &Append) -> Appended {
        let events = self.versions.into_iter().zip(self.positions);
        let recorded_at = self.recorded_at.filter(|_| !append.events.is_empty());
        Appended { events: events.collect(), recorded_at, repeated: self.repeated }
    }
}
