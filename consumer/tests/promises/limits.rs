//! A batch that exceeds a limit is applied in smaller ones; an event that does so alone is named.

use std::time::Duration;

use annals_consumer::{DeliveredEvent, Projection, RunError, RunTotals, TransactionLimit};
use annals_testkit::{TopicBed, in_time};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;
use crate::events::OrderEvent;

/// Far more than the statements of a batch take that are not slowed.
const LIMIT_MS: u64 = 800;

/// The server works for this time on each event.
async fn add_slowly(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<OrderEvent>],
    event_ms: i32,
) -> Result<(), sqlx::Error> {
    let sleep = "select pg_sleep($1 / 1000.0)";
    let all_ms = f64::from(event_ms) * f64::from(u32::try_from(events.len()).unwrap());
    sqlx::query(sleep).bind(all_ms).execute(&mut *connection).await?;
    book::add(connection, events).await
}

async fn run(
    bed: &TopicBed,
    projection: &Projection,
    pool: &PgPool,
    handler: impl AsyncFnMut(
        &mut PgConnection,
        &[DeliveredEvent<OrderEvent>],
    ) -> Result<(), sqlx::Error>,
) -> Result<RunTotals, RunError> {
    let runner = projection.runner(pool, bed.settings(), bed.schemas());
    let shutdown = CancellationToken::new();
    in_time(runner.run_until(&shutdown, book::to_the_end, handler)).await
}

/// Runs with a handler that is too slow for the whole batch, then with one that is too slow for one
/// event.
async fn is_shrunk_and_then_named(
    projection: impl FnOnce(Projection) -> Projection,
    pool: impl AsyncFnOnce(&TopicBed) -> PgPool,
    limit: TransactionLimit,
) {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 10, 0..4)).await;
    let projection = projection(bed.projection(&[&topic]).await);
    let pool = pool(&bed).await;
    let slow = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
        add_slowly(connection, events, 40).await
    };
    let totals = run(&bed, &projection, &pool, slow).await.unwrap();
    assert_eq!(totals.events, 40);
    assert!(totals.batches >= 3, "{totals:?}");
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(10, 4));

    bed.write(&topic, &book::orders(&bed, 10, 4..5)).await;
    let slower = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
        add_slowly(connection, events, 1_600).await
    };
    let error = run(&bed, &projection, &pool, slower).await.unwrap_err();
    let RunError::LimitExceeded { stream, limit: named, tries: 3, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((stream.as_str(), *named), ("order-0", limit));
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(10, 4));
    pool.close().await;
}

#[tokio::test]
async fn batch_beyond_the_deadline_shrinks_and_one_event_beyond_it_is_named() {
    let deadline = Duration::from_millis(LIMIT_MS);
    is_shrunk_and_then_named(
        |projection| projection.batch_deadline(deadline),
        async |bed: &TopicBed| PgPool::connect(&bed.database_url).await.unwrap(),
        TransactionLimit::BatchDeadline(deadline),
    )
    .await;
}

#[tokio::test]
async fn batch_beyond_the_statement_timeout_shrinks_and_one_event_beyond_it_is_named() {
    is_shrunk_and_then_named(
        |projection| projection,
        async |bed: &TopicBed| bed.pool_with("statement_timeout", &LIMIT_MS.to_string()).await,
        TransactionLimit::StatementTimeout,
    )
    .await;
}

#[tokio::test]
async fn handler_that_waits_for_something_else_too_long_is_named() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 10, 0..1)).await;
    let projection = bed.projection(&[&topic]).await;
    let limit = LIMIT_MS.to_string();
    let pool = bed.pool_with("idle_in_transaction_session_timeout", &limit).await;
    let waits = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
        if events.iter().any(|event| event.delivered.stream == "order-4") {
            tokio::time::sleep(Duration::from_millis(LIMIT_MS + LIMIT_MS / 2)).await;
        }
        book::add(connection, events).await
    };
    let error = run(&bed, &projection, &pool, waits).await.unwrap_err();
    let RunError::LimitExceeded { stream, limit, .. } = &error else { panic!("{error:?}") };
    assert_eq!((stream.as_str(), *limit), ("order-4", TransactionLimit::IdleInTransaction));
    pool.close().await;
}

#[tokio::test]
async fn event_that_ends_the_connection_each_time_is_named() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 4, 0..1)).await;
    let projection = bed.projection(&[&topic]).await;
    let ends = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
        book::add(connection, events).await?;
        if events.iter().any(|event| event.delivered.stream == "order-2") {
            let end = "select pg_terminate_backend(pg_backend_pid())";
            sqlx::query(end).execute(connection).await?;
        }
        Ok(())
    };
    let error = run(&bed, &projection, &bed.pool, ends).await.unwrap_err();
    let RunError::LimitExceeded { stream, limit, .. } = &error else { panic!("{error:?}") };
    assert_eq!((stream.as_str(), *limit), ("order-2", TransactionLimit::Connection));
    assert_eq!(book::sums(&bed.pool).await, (2, 2, 1));
}
