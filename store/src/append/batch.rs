//! The call of the function that makes several appends: its arguments and its reply.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Executor, PgConnection, Row, SqlStr};

use crate::append::call::{AppendReply, RepliedAppend};
use crate::append::queued::QueuedAppend;
use crate::append::refusal_rows::RefusalRow;
use crate::connections::reuse::ReusableConnection;
use crate::event::NewEvent;
use crate::store::Store;
use crate::stream::{Position, Version};
use crate::timestamptz::PgTimestamp;
use crate::trace::with_trace;

/// The reply to one append of a call.
pub(crate) enum BatchReply {
    Replied(AppendReply),
    /// Another transaction has locked the stream.
    Skipped,
}

impl Store {
    /// Makes the appends by a plain statement if the connection is known to be outside a
    /// transaction block, and else by the procedure that commits. The inner error is an unreadable
    /// reply.
    pub(crate) async fn append_each(
        &self,
        reusable: &mut ReusableConnection,
        appends: &[QueuedAppend],
    ) -> Result<Result<Vec<BatchReply>, sqlx::Error>, sqlx::Error> {
        let statements = self.statements();
        if reusable.is_outside_a_transaction() {
            let plain = statements.append_each_outside_a_transaction.clone();
            match self.execute_append_each(&mut reusable.connection, plain, appends).await {
                // The session has another isolation level.
                Err(sqlx::Error::RowNotFound) => {}
                replied => return replied,
            }
        }
        let call = statements.append_each.clone();
        self.execute_append_each(&mut reusable.connection, call, appends).await
    }

    /// Executes a statement with the arguments of `annals.append_each`.
    async fn execute_append_each(
        &self,
        connection: &mut PgConnection,
        statement: SqlStr,
        appends: &[QueuedAppend],
    ) -> Result<Result<Vec<BatchReply>, sqlx::Error>, sqlx::Error> {
        let mut streams: BTreeMap<&str, i32> =
            appends.iter().map(|queued| (queued.stream.as_str(), 0)).collect();
        // Arrays of PostgreSQL are 1-based; the map has the order of C collation.
        for (index, number) in streams.values_mut().zip(1..) {
            *index = number;
        }
        let events = || appends.iter().flat_map(|queued| queued.append.events());
        let append_of = appends
            .iter()
            .zip(1_i32..)
            .flat_map(|(queued, number)| std::iter::repeat_n(number, queued.append.events.len()));
        let metadata = appends.iter().flat_map(|queued| {
            let trace = queued.trace.as_ref();
            queued.append.events().map(move |event| Json(with_trace(&event.metadata, trace)))
        });
        let expected = appends.iter().flat_map(|queued| &queued.append.streams);
        let query = sqlx::query(statement)
            .bind(streams.keys().copied().collect::<Vec<_>>())
            .bind(appends.iter().map(|queued| streams[queued.stream.as_str()]).collect::<Vec<_>>())
            .bind(expected.map(|(_, expected)| expected.to_store()).collect::<Vec<_>>())
            .bind(append_of.collect::<Vec<_>>())
            .bind(events().map(|event: &NewEvent| event.id.get()).collect::<Vec<_>>())
            .bind(events().map(|event| event.event_type).collect::<Vec<_>>())
            .bind(events().map(|event| event.schema.fingerprint().get()).collect::<Vec<_>>())
            .bind(events().map(|event| event.payload.as_slice()).collect::<Vec<_>>())
            .bind(events().map(|event| self.data_of(event)).collect::<Vec<_>>())
            .bind(metadata.collect::<Vec<_>>())
            .bind(events().map(|event| Json(&event.headers)).collect::<Vec<_>>())
            .bind(
                appends.iter().map(|queued| queued.append.conflict_events_max).collect::<Vec<_>>(),
            );
        let replied = self.within_deadline(connection.fetch_one(query)).await;
        replied.map(|row| read_replies(&row, appends))
    }
}

/// The columns of the reply.
struct Columns {
    outcomes: Vec<String>,
    versions: Vec<Option<Version>>,
    positions: Vec<Option<Position>>,
    recorded_at: Vec<Option<PgTimestamp>>,
    refusals: Vec<Option<Vec<RefusalRow>>>,
}

fn read_replies(row: &PgRow, appends: &[QueuedAppend]) -> Result<Vec<BatchReply>, sqlx::Error> {
    let refusals: Option<Json<Vec<Option<Vec<RefusalRow>>>>> = row.try_get("refusals")?;
    let columns = Columns {
        outcomes: row.try_get("outcomes")?,
        versions: row.try_get::<Option<_>, _>("versions")?.unwrap_or_default(),
        positions: row.try_get::<Option<_>, _>("positions")?.unwrap_or_default(),
        recorded_at: row.try_get("recorded_at")?,
        refusals: refusals.map(|Json(refusals)| refusals).unwrap_or_default(),
    };
    columns.split(appends)
}

impl Columns {
    fn split(self, appends: &[QueuedAppend]) -> Result<Vec<BatchReply>, sqlx::Error> {
        let unreadable = |what: &str| sqlx::Error::Decode(format!("the reply has {what}").into());
        if self.outcomes.len() != appends.len() || self.recorded_at.len() != appends.len() {
            return Err(unreadable("another number of outcomes than the call has appends"));
        }
        let mut versions = self.versions.into_iter();
        let mut positions = self.positions.into_iter();
        let mut refusals = self.refusals.into_iter();
        let rows = self.outcomes.iter().zip(self.recorded_at).zip(appends);
        let replies = rows.map(|((outcome, recorded_at), queued)| {
            let events = queued.append.events.len();
            let versions: Vec<Version> = versions.by_ref().take(events).flatten().collect();
            let positions: Vec<Position> = positions.by_ref().take(events).flatten().collect();
            let refusals = refusals.next().flatten();
            let recorded_at = recorded_at.map(|time| time.0);
            let is_complete = versions.len() == events && positions.len() == events;
            match (outcome.as_str(), refusals) {
                ("skipped", _) => Ok(BatchReply::Skipped),
                ("refused", Some(refusals)) => {
                    Ok(BatchReply::Replied(AppendReply::Refused(refusals)))
                }
                ("appended" | "repeated", _) if is_complete => {
                    let repeated = outcome == "repeated";
                    let recorded = RepliedAppend { repeated, versions, positions, recorded_at };
                    Ok(BatchReply::Replied(AppendReply::Recorded(recorded)))
                }
                (other, _) => Err(unreadable(&format!("outcome {other:?} without its facts"))),
            }
        });
        replies.collect()
    }
}
