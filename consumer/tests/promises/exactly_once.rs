//! Each event is applied once, through stops, faults and repetitions.

use std::num::NonZeroUsize;
use std::time::Duration;

use annals_consumer::{DeliveredEvent, FirstVersion, RunError, RunTotals, VersionFilter};
use annals_testkit::{FaultyLink, TopicBed, in_time};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;
use crate::events::{OrderEvent, paid, placed};
use crate::logs;

fn some(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

async fn run_to_the_end(bed: &TopicBed, topic: &str) -> Result<RunTotals, RunError> {
    let projection = bed.projection(&[topic]).await.batch_events_max(some(50));
    let runner = bed.runner(&projection);
    let shutdown = CancellationToken::new();
    in_time(runner.run_until(&shutdown, book::to_the_end, book::add)).await
}

#[tokio::test]
async fn read_model_adds_up_over_runs_and_each_run_goes_on_behind_the_last() {
    let bed = bed().await;
    let topic = bed.create_topic(4).await;
    book::open(&bed.pool).await;

    bed.write(&topic, &book::orders(&bed, 40, 0..5)).await;
    let first = run_to_the_end(&bed, &topic).await.unwrap();
    assert_eq!((first.events, first.duplicates), (200, 0));
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(40, 5));

    bed.write(&topic, &book::orders(&bed, 40, 5..8)).await;
    let second = run_to_the_end(&bed, &topic).await.unwrap();
    assert_eq!((second.events, second.duplicates), (120, 0), "resumed behind the first run");
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(40, 8));
}

/// A commit ends sooner than the reading of the next batch, which goes on where it was.
#[tokio::test]
async fn records_that_are_read_while_a_batch_is_committed_are_applied_once() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 40, 0..150)).await;
    let projection = bed.projection(&[&topic]).await.batch_events_max(some(1_500));
    let shutdown = CancellationToken::new();
    let run = bed.runner(&projection).run_until(&shutdown, book::to_the_end, book::add_at_once);
    let totals = in_time(run).await.unwrap();
    assert_eq!((totals.events, totals.duplicates), (6_000, 0));
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(40, 150));
}

/// Writes a part of the batch, the refused event included, and then fails.
async fn break_in_the_middle(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<OrderEvent>],
) -> Result<(), sqlx::Error> {
    for event in events {
        book::add_one(connection, event).await?;
        if event.delivered.stream == "order-7" && event.delivered.version.get() == 4 {
            return Err(sqlx::Error::RowNotFound);
        }
    }
    Ok(())
}

#[tokio::test]
async fn failing_handler_keeps_nothing_of_its_event_and_the_next_run_adds_up() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 20, 0..10)).await;

    let projection = bed.projection(&[&topic]).await.batch_events_max(some(30));
    let shutdown = CancellationToken::new();
    let run = bed.runner(&projection).run(&shutdown, break_in_the_middle);
    let error = in_time(run).await.unwrap_err();
    let RunError::Handler { stream, version, event_type, location, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((stream.as_str(), version.get()), ("order-7", 4));
    assert_eq!((event_type.as_str(), location.topic.as_ref()), ("OrderPaid", topic.as_str()));
    let (_, applied, _) = book::sums(&bed.pool).await;
    let seven = "select events from book where stream = 'order-7'";
    let seven: i64 = sqlx::query_scalar(seven).fetch_one(&bed.pool).await.unwrap();
    assert_eq!(seven, 4, "versions 0 to 3 stay, version 4 left no trace");

    let rest = run_to_the_end(&bed, &topic).await.unwrap();
    assert_eq!(rest.events + u64::try_from(applied).unwrap(), 200);
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(20, 10));
}

#[tokio::test]
async fn planted_duplicates_are_dropped_within_a_batch_over_batches_and_over_runs() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let drafts = book::orders(&bed, 10, 0..4);
    let twice: Vec<_> = drafts.iter().flat_map(|draft| [draft.clone(), draft.clone()]).collect();
    bed.write(&topic, &twice).await;
    bed.write(&topic, &drafts).await;
    let first = run_to_the_end(&bed, &topic).await.unwrap();
    assert_eq!((first.events, first.duplicates), (40, 80));

    bed.write(&topic, &drafts).await;
    let second = run_to_the_end(&bed, &topic).await.unwrap();
    assert_eq!((second.events, second.duplicates), (0, 40));
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(10, 4));
}

#[tokio::test]
async fn planted_gap_stops_the_run_behind_what_came_before() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let draft = |version| bed.draft("order-1", version, &placed(1));
    let drafts = [draft(0), draft(1), draft(3), bed.draft("order-2", 0, &paid(1))];
    bed.write(&topic, &drafts).await;
    for _ in 0..2 {
        let error = run_to_the_end(&bed, &topic).await.unwrap_err();
        let RunError::Gap { location, gap } = &error else { panic!("{error:?}") };
        assert_eq!((location.partition, location.offset.get()), (0, 2));
        assert_eq!((gap.expected.get(), gap.found.get()), (2, 3));
        assert_eq!(book::sums(&bed.pool).await, (1, 2, 2));
    }
}

#[tokio::test]
async fn a_run_goes_on_behind_a_gap_that_was_accepted_with_a_reason_and_behind_no_other() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    // The log of all tests is one.
    let draft = |version| bed.draft(&format!("{topic}-1"), version, &placed(1));
    bed.write(&topic, &[draft(0), draft(1), draft(4), draft(5), draft(7)]).await;
    let error = run_to_the_end(&bed, &topic).await.unwrap_err();
    let RunError::Gap { gap, .. } = &error else { panic!("{error:?}") };
    let projection = bed.projection(&[&topic]).await;
    let mut connection = bed.pool.acquire().await.unwrap();
    assert!(projection.accept_gap(&mut connection, gap, "").await.is_err(), "without a reason");
    for _ in 0..2 {
        projection.accept_gap(&mut connection, gap, "the topic was truncated").await.unwrap();
    }
    let accepted = "select stream, expected, found, reason, accepted_by = session_user, \
                    accepted_at between now() - interval '1 hour' and clock_timestamp() \
                    from annals_projections.annals_projection_gaps";
    let accepted: (String, i64, i64, String, bool, bool) =
        sqlx::query_as(accepted).fetch_one(&mut *connection).await.unwrap();
    let stream = format!("{topic}-1");
    assert_eq!(accepted, (stream.clone(), 2, 4, "the topic was truncated".to_owned(), true, true));
    drop(connection);
    let error = run_to_the_end(&bed, &topic).await.unwrap_err();
    let RunError::Gap { gap, .. } = &error else { panic!("{error:?}") };
    assert_eq!((gap.expected.get(), gap.found.get()), (6, 7));
    assert_eq!(book::sums(&bed.pool).await, (1, 4, 4));
    let logged = |stream: &str, reason: &str| logs::count(&[stream, &format!("reason={reason:?}")]);
    assert_eq!(logged(&stream, "the topic was truncated"), 2);
    VersionFilter::new(FirstVersion::Zero).accept(gap.clone(), "seven came alone");
    assert_eq!(logged(&stream, "seven came alone"), 1);
}

#[tokio::test]
async fn events_that_are_never_published_are_no_gap() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let draft = |version| bed.draft("order-1", version, &placed(1));
    let behind = |version, previous| draft(version).header("ce_previousversion", previous);
    let drafts = [behind(2, "-1"), draft(3), behind(6, "3"), behind(8, "6"), behind(11, "9")];
    bed.write(&topic, &drafts).await;
    for _ in 0..2 {
        let error = run_to_the_end(&bed, &topic).await.unwrap_err();
        let RunError::Gap { gap, .. } = &error else { panic!("{error:?}") };
        assert_eq!((gap.expected.get(), gap.found.get()), (9, 11), "version 9 is lost");
        assert_eq!(book::sums(&bed.pool).await, (1, 4, 4));
    }
}

#[tokio::test]
async fn runs_killed_at_any_moment_add_up() {
    let bed = bed().await;
    let topic = bed.create_topic(3).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 100, 0..20)).await;
    let projection = bed.projection(&[&topic]).await.batch_events_max(some(20));
    // The task is dropped at any point, its connection with it: in the middle of a transaction,
    // mostly; later and later, until the killed runs have got half-way.
    let mut kills = 0;
    while kills < 40 || book::sums(&bed.pool).await.1 < 1_000 {
        let shutdown = CancellationToken::new();
        let run = bed.runner(&projection).run(&shutdown, book::add);
        let killed = tokio::time::timeout(Duration::from_millis(kills * 7), run).await;
        assert!(killed.is_err(), "{killed:?}");
        kills += 1;
    }
    run_to_the_end(&bed, &topic).await.unwrap();
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(100, 20));
}

#[tokio::test]
async fn lost_answers_to_commits_repeat_nothing() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 30, 0..20)).await;
    let (pool, link) = linked_pool(&bed).await;
    link.lose_answers_to_commits(10);

    let projection = bed.projection(&[&topic]).await.batch_events_max(some(20));
    let runner = projection.runner(&pool, bed.settings(), bed.schemas());
    let run = runner.run_until(&CancellationToken::new(), book::to_the_end, book::add).await;
    assert_eq!(run.unwrap().events, 600);
    assert_eq!(link.commits_to_lose(), 0, "the answers were not lost");
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(30, 20));
}

#[tokio::test]
async fn database_cut_off_again_and_again_loses_and_repeats_nothing() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 50, 0..20)).await;
    let (pool, link) = linked_pool(&bed).await;

    let projection = bed.projection(&[&topic]).await.batch_events_max(some(50));
    let runner = projection.runner(&pool, bed.settings(), bed.schemas());
    let mut batches = 0;
    let shutdown = CancellationToken::new();
    let run = runner.run_until(
        &shutdown,
        book::to_the_end,
        async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
            batches += 1;
            let (before, after) = events.split_at(events.len() / 2);
            book::add(connection, before).await?;
            if batches % 3 == 0 {
                link.cut();
                link.mend();
            }
            book::add(connection, after).await
        },
    );
    assert_eq!(in_time(run).await.unwrap().events, 1_000);
    assert!(batches > 20, "the cuts made no batch come again");
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(50, 20));
}

#[tokio::test]
async fn two_runners_of_one_projection_apply_nothing_twice() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 50, 0..40)).await;
    let projection = bed.projection(&[&topic]).await.batch_events_max(some(10));
    let run = || {
        let (runner, shutdown) = (bed.runner(&projection), CancellationToken::new());
        tokio::spawn(async move { runner.run_until(&shutdown, book::to_the_end, book::add).await })
    };
    let (one, other) = in_time(async { tokio::join!(run(), run()) }).await;
    for ended in [one.unwrap(), other.unwrap()] {
        if let Err(error) = ended {
            assert!(matches!(error, RunError::Superseded { .. }), "{error:?}");
        }
    }
    run_to_the_end(&bed, &topic).await.unwrap();
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(50, 40));
}

async fn linked_pool(bed: &TopicBed) -> (sqlx::PgPool, FaultyLink) {
    let (link, url) = FaultyLink::before(&bed.database_url).await;
    (sqlx::PgPool::connect(&url).await.unwrap(), link)
}
