//! A read model that shows every event applied twice or not at all: it only adds up.

use std::ops::ControlFlow;

use annals_consumer::{DeliveredEvent, RunProgress};
use annals_testkit::{Draft, TopicBed};
use sqlx::{PgConnection, PgPool};

use crate::events::{OrderEvent, paid, placed};

pub(crate) async fn open(pool: &PgPool) {
    let create = "create table book (stream text primary key, events bigint, amount bigint)";
    sqlx::raw_sql(create).execute(pool).await.unwrap();
}

pub(crate) async fn add(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<OrderEvent>],
) -> Result<(), sqlx::Error> {
    for event in events {
        add_one(connection, event).await?;
    }
    Ok(())
}

/// In one statement.
pub(crate) async fn add_at_once(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<OrderEvent>],
) -> Result<(), sqlx::Error> {
    let streams: Vec<&str> = events.iter().map(|event| event.delivered.stream.as_str()).collect();
    let amounts: Vec<i64> = events.iter().map(|event| event.data.amount()).collect();
    let add = "insert into book select stream, count(*), sum(amount)::bigint \
               from unnest($1::text[], $2::bigint[]) as e (stream, amount) group by stream \
               on conflict (stream) do update set events = book.events + excluded.events, \
               amount = book.amount + excluded.amount";
    sqlx::query(add).bind(streams).bind(amounts).execute(connection).await?;
    Ok(())
}

pub(crate) async fn add_one(
    connection: &mut PgConnection,
    event: &DeliveredEvent<OrderEvent>,
) -> Result<(), sqlx::Error> {
    add_amount(connection, &event.delivered.stream, event.data.amount()).await
}

pub(crate) async fn add_amount(
    connection: &mut PgConnection,
    stream: &str,
    amount: i64,
) -> Result<(), sqlx::Error> {
    let add = "insert into book values ($1, 1, $2) on conflict (stream) \
               do update set events = book.events + 1, amount = book.amount + excluded.amount";
    sqlx::query(add).bind(stream).bind(amount).execute(connection).await?;
    Ok(())
}

/// Streams, events and the sum of their amounts.
pub(crate) async fn sums(pool: &PgPool) -> (i64, i64, i64) {
    let sums = "select count(*), coalesce(sum(events), 0)::bigint, \
                coalesce(sum(amount), 0)::bigint from book";
    sqlx::query_as(sums).fetch_one(pool).await.unwrap()
}

/// Some orders with some events each, all streams mixed.
pub(crate) fn orders(bed: &TopicBed, streams: i64, versions: std::ops::Range<i64>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for version in versions {
        for stream in 0..streams {
            let amount = stream + version;
            let event = if version == 0 { placed(amount) } else { paid(amount) };
            drafts.push(bed.draft(&format!("order-{stream}"), version, &event));
        }
    }
    drafts
}

/// The result of [`sums`] after [`orders`].
pub(crate) fn sums_of(streams: i64, versions: i64) -> (i64, i64, i64) {
    let amounts = (0..streams).map(|stream| (0..versions).map(|v| stream + v).sum::<i64>());
    (streams, streams * versions, amounts.sum())
}

/// Ends the run when everything in the topics is applied.
pub(crate) fn to_the_end(progress: &RunProgress<'_>) -> ControlFlow<()> {
    if progress.caught_up { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
