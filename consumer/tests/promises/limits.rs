//! A batch that exceeds a limit is applied in smaller ones; an event that does so alone is named.

use std::time::Duration;

use annals_consumer::{DeliveredEvent, Projection, RunError, RunTotals, TransactionLimit};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::book;
use crate::events::OrderEvent;
use crate::world::{World, patiently};

const LIMIT_MS: u64 = 300;

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
    world: &World,
    projection: &Projection,
    pool: &PgPool,
    handler: impl AsyncFnMut(
        &mut PgConnection,
        &[DeliveredEvent<OrderEvent>],
    ) -> Result<(), sqlx::Error>,
) -> Result<RunTotals, RunError> {
    let runner = projection.runner(pool, world.settings(), world.schemas());
    let shutdown = CancellationToken::new();
    patiently(runner.run_until(&shutdown, book::to_the_end, handler)).await
}

/// Runs with a handler that is too slow for the whole batch, then with one that is too slow for one
/// event.
async fn is_shrunk_and_then_named(
    projection: impl FnOnce(Projection) -> Projection,
    pool: impl AsyncFnOnce(&World) -> PgPool,
    limit: TransactionLimit,
) {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    world.write(&topic, &book::orders(&world, 10, 0..4)).await;
    let projection = projection(world.projection(&[&topic]).await);
    let pool = pool(&world).await;
    let slow = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
        add_slowly(connection, events, 20).await
    };
    let totals = run(&world, &projection, &pool, slow).await.unwrap();
    assert_eq!(totals.events, 40);
    assert!(totals.batches >= 3, "{totals:?}");
    assert_eq!(book::sums(&world.pool).await, book::sums_of(10, 4));

    world.write(&topic, &book::orders(&world, 10, 4..5)).await;
    let slower = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
        add_slowly(connection, events, 2_000).await
    };
    let error = run(&world, &projection, &pool, slower).await.unwrap_err();
    let RunError::LimitExceeded { stream, limit: named, tries: 3, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((stream.as_str(), *named), ("order-0", limit));
    assert_eq!(book::sums(&world.pool).await, book::sums_of(10, 4));
    pool.close().await;
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn batch_beyond_the_deadline_shrinks_and_one_event_beyond_it_is_named() {
    let deadline = Duration::from_millis(LIMIT_MS);
    is_shrunk_and_then_named(
        |projection| projection.batch_deadline(deadline),
        async |world: &World| PgPool::connect(&world.database_url).await.unwrap(),
        TransactionLimit::BatchDeadline(deadline),
    )
    .await;
}

#[tokio::test]
async fn batch_beyond_the_statement_timeout_shrinks_and_one_event_beyond_it_is_named() {
    is_shrunk_and_then_named(
        |projection| projection,
        async |world: &World| world.pool_with("statement_timeout", &LIMIT_MS.to_string()).await,
        TransactionLimit::StatementTimeout,
    )
    .await;
}

#[tokio::test]
async fn handler_that_waits_for_something_else_too_long_is_named() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    world.write(&topic, &book::orders(&world, 10, 0..1)).await;
    let projection = world.projection(&[&topic]).await;
    let limit = LIMIT_MS.to_string();
    let pool = world.pool_with("idle_in_transaction_session_timeout", &limit).await;
    let waits = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
        if events.iter().any(|event| event.delivered.stream == "order-4") {
            tokio::time::sleep(Duration::from_millis(3 * LIMIT_MS)).await;
        }
        book::add(connection, events).await
    };
    let error = run(&world, &projection, &pool, waits).await.unwrap_err();
    let RunError::LimitExceeded { stream, limit, .. } = &error else { panic!("{error:?}") };
    assert_eq!((stream.as_str(), *limit), ("order-4", TransactionLimit::IdleInTransaction));
    pool.close().await;
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn event_that_ends_the_connection_each_time_is_named() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    world.write(&topic, &book::orders(&world, 4, 0..1)).await;
    let projection = world.projection(&[&topic]).await;
    let ends = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
        book::add(connection, events).await?;
        if events.iter().any(|event| event.delivered.stream == "order-2") {
            let end = "select pg_terminate_backend(pg_backend_pid())";
            sqlx::query(end).execute(connection).await?;
        }
        Ok(())
    };
    let error = run(&world, &projection, &world.pool, ends).await.unwrap_err();
    let RunError::LimitExceeded { stream, limit, .. } = &error else { panic!("{error:?}") };
    assert_eq!((stream.as_str(), *limit), ("order-2", TransactionLimit::Connection));
    assert_eq!(book::sums(&world.pool).await, (2, 2, 1));
    world.clean(&[&topic]).await;
}
