//! A new version of a read model is built beside the one that readers see, and one switch shows it.

use std::num::NonZeroUsize;
use std::time::Duration;

use annals_consumer::{DeliveredEvent, IfBehind, Projection, ProjectionError, RunError, RunTotals};
use annals_testkit::{TopicBed, in_time, until};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;
use crate::events::{OrderEvent, placed};

const BOOK: &str = "create table book (stream text primary key, events bigint, amount bigint)";
const DOUBLE_BOOK: &str =
    "create table book (stream text primary key, events bigint, amount bigint, note text)";
const NOW: IfBehind = IfBehind::WaitFor(Duration::ZERO);

fn version(topic: &str, version: u32, tables: &'static str) -> Projection {
    let three = NonZeroUsize::new(3).unwrap();
    let projection = Projection::new("totals", &[topic]).unwrap().batch_events_max(three);
    projection.version(version, tables).unwrap()
}

async fn run_to_the_end(bed: &TopicBed, projection: &Projection) -> Result<RunTotals, RunError> {
    let run = bed.runner(projection);
    in_time(run.run_until(&CancellationToken::new(), book::to_the_end, book::add)).await
}

/// Writes each amount twice: what the second version does otherwise than the first.
async fn add_double(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<OrderEvent>],
) -> Result<(), sqlx::Error> {
    book::add(connection, events).await?;
    let streams: Vec<&str> = events.iter().map(|event| event.delivered.stream.as_str()).collect();
    let amounts: Vec<i64> = events.iter().map(|event| event.data.amount()).collect();
    let add = "update book set amount = book.amount + e.amount from (select stream, sum(amount) \
               as amount from unnest($1::text[], $2::bigint[]) e (stream, amount) group by stream) \
               e where e.stream = book.stream";
    sqlx::query(add).bind(streams).bind(amounts).execute(connection).await?;
    Ok(())
}

async fn run_double_to_the_end(bed: &TopicBed, projection: &Projection) -> RunTotals {
    let run = bed.runner(projection);
    in_time(run.run_until(&CancellationToken::new(), book::to_the_end, add_double)).await.unwrap()
}

/// Events and amounts that readers see.
async fn seen(pool: &PgPool) -> (i64, i64) {
    let sums = "select coalesce(sum(events), 0)::bigint, coalesce(sum(amount), 0)::bigint \
                from totals.book";
    sqlx::query_as(sums).fetch_one(pool).await.unwrap()
}

fn sums_of(streams: i64, versions: i64, factor: i64) -> (i64, i64) {
    let (_, events, amount) = book::sums_of(streams, versions);
    (events, factor * amount)
}

/// Each version, whether readers see it, and the records that it is behind.
async fn versions(of: &Projection, pool: &PgPool) -> Vec<(u32, bool, u64)> {
    let versions = of.versions(pool).await.unwrap().into_iter();
    versions.map(|of| (of.version, of.is_shown, of.records_behind)).collect()
}

fn behind(switched: Result<(), ProjectionError>) -> u64 {
    match switched {
        Err(ProjectionError::Behind { behind, .. }) => behind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn new_version_is_built_beside_the_one_shown_and_one_switch_shows_it_and_back() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    let (first, second) = (version(&topic, 1, BOOK), version(&topic, 2, DOUBLE_BOOK));
    bed.write(&topic, &book::orders(&bed, 5, 0..3)).await;
    first.prepare(&bed.pool).await.unwrap();
    run_to_the_end(&bed, &first).await.unwrap();
    assert_eq!(seen(&bed.pool).await, sums_of(5, 3, 1));

    for _ in 0..2 {
        second.prepare(&bed.pool).await.unwrap();
    }
    assert_eq!(versions(&second, &bed.pool).await, [(1, true, 0), (2, false, 15)]);
    assert!(behind(second.switch(&bed.pool, NOW).await) > 0);
    assert_eq!(run_double_to_the_end(&bed, &second).await.events, 15);
    assert_eq!(seen(&bed.pool).await, sums_of(5, 3, 1), "still the first version");
    second.switch(&bed.pool, NOW).await.unwrap();
    assert_eq!(seen(&bed.pool).await, sums_of(5, 3, 2));

    bed.write(&topic, &book::orders(&bed, 5, 3..4)).await;
    run_double_to_the_end(&bed, &second).await;
    assert_eq!(behind(first.switch(&bed.pool, NOW).await), 5);
    assert_eq!(versions(&first, &bed.pool).await, [(1, false, 5), (2, true, 0)]);
    let patient = IfBehind::WaitFor(annals_testkit::DEADLINE);
    let (switched, run) =
        tokio::join!(first.switch(&bed.pool, patient), run_to_the_end(&bed, &first));
    switched.unwrap();
    assert_eq!(run.unwrap().events, 5);
    assert_eq!(seen(&bed.pool).await, sums_of(5, 4, 1));

    assert!(first.drop_version(&bed.pool).await.is_err(), "readers see it");
    second.drop_version(&bed.pool).await.unwrap();
    assert_eq!(versions(&first, &bed.pool).await, [(1, true, 0)]);
    let switched = second.switch(&bed.pool, IfBehind::Switch).await;
    assert!(matches!(switched, Err(ProjectionError::NotRegistered { .. })), "{switched:?}");
    let gone = "select to_regnamespace('totals_v2') is null";
    assert!(sqlx::query_scalar::<_, bool>(gone).fetch_one(&bed.pool).await.unwrap());
    // Deleted with its progress: it is built anew.
    second.prepare(&bed.pool).await.unwrap();
    assert_eq!(run_double_to_the_end(&bed, &second).await.events, 20);
}

/// A reader's transaction makes the switch wait for the view, after the comparison of the versions.
#[tokio::test]
async fn no_version_advances_between_the_comparison_and_the_switch() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    let (first, second) = (version(&topic, 1, BOOK), version(&topic, 2, DOUBLE_BOOK));
    bed.write(&topic, &book::orders(&bed, 5, 0..3)).await;
    first.prepare(&bed.pool).await.unwrap();
    second.prepare(&bed.pool).await.unwrap();
    run_to_the_end(&bed, &first).await.unwrap();
    run_double_to_the_end(&bed, &second).await;
    bed.write(&topic, &book::orders(&bed, 5, 3..4)).await;

    let mut reader = bed.pool.begin().await.unwrap();
    sqlx::raw_sql("select from totals.book").execute(&mut *reader).await.unwrap();
    let waiting = async |sessions: i64| {
        let waiting = "select count(*) from pg_stat_activity \
                       where datname = current_database() and wait_event_type = 'Lock'";
        let is_so = async || {
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&bed.pool).await.unwrap() >= sessions
        };
        until("sessions wait for locks", is_so).await;
    };
    let released = async {
        waiting(1).await;
        // The switch waits for the reader, and then a batch for the switch.
        waiting(2).await;
        reader.rollback().await.unwrap();
    };
    let run_first = async {
        waiting(1).await;
        run_to_the_end(&bed, &first).await
    };
    let (switched, (), run) = tokio::join!(second.switch(&bed.pool, NOW), released, run_first);
    switched.unwrap();
    assert_eq!(run.unwrap().events, 5);
    assert_eq!(seen(&bed.pool).await, sums_of(5, 3, 2));
}

#[tokio::test]
async fn version_on_another_topic_is_behind_until_it_has_the_versions_of_all_streams() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    let other = bed.topic("order-again");
    bed.create(&other, 3).await;
    let (first, second) = (version(&topic, 1, BOOK), version(&other, 2, BOOK));
    let orders = book::orders(&bed, 5, 0..3);
    bed.write(&topic, &orders).await;
    bed.write(&other, &orders[..14]).await;
    for projection in [&first, &second] {
        projection.prepare(&bed.pool).await.unwrap();
        run_to_the_end(&bed, projection).await.unwrap();
    }
    assert_eq!(behind(second.switch(&bed.pool, NOW).await), 1);
    bed.write(&other, &orders[14..]).await;
    run_to_the_end(&bed, &second).await.unwrap();
    second.switch(&bed.pool, NOW).await.unwrap();
    assert_eq!(seen(&bed.pool).await, sums_of(5, 3, 1));
}

#[tokio::test]
async fn version_continues_behind_gaps_that_were_accepted_for_the_one_shown() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    let (first, second) = (version(&topic, 1, BOOK), version(&topic, 2, BOOK));
    let draft = |number| bed.draft("order-1", number, &placed(1));
    bed.write(&topic, &[draft(0), draft(2)]).await;
    first.prepare(&bed.pool).await.unwrap();
    let error = run_to_the_end(&bed, &first).await.unwrap_err();
    let RunError::Gap { gap, .. } = &error else { panic!("{error:?}") };
    let mut connection = bed.pool.acquire().await.unwrap();
    first.accept_gap(&mut connection, gap, "the record was removed").await.unwrap();
    second.prepare(&bed.pool).await.unwrap();
    assert_eq!(run_to_the_end(&bed, &second).await.unwrap().events, 2);
}

#[tokio::test]
async fn other_tables_under_a_version_are_refused() {
    let bed = bed().await;
    version("orders", 1, BOOK).prepare(&bed.pool).await.unwrap();
    let refused = version("orders", 1, DOUBLE_BOOK).prepare(&bed.pool).await;
    assert!(matches!(refused, Err(ProjectionError::OtherTables { .. })), "{refused:?}");
    let missing = version("orders", 2, BOOK).switch(&bed.pool, IfBehind::Switch).await;
    assert!(matches!(missing, Err(ProjectionError::NotRegistered { .. })), "{missing:?}");
}
