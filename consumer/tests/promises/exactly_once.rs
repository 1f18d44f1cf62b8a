//! Each event is applied once, through stops, faults and repetitions.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::Duration;

use annals_consumer::{DeliveredEvent, RunError, RunProgress, RunTotals};
use annals_testkit::FaultyLink;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::book;
use crate::events::{OrderEvent, paid, placed};
use crate::world::{World, patiently};

fn some(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

async fn run_to_the_end(world: &World, topic: &str) -> Result<RunTotals, RunError> {
    let projection = world.projection(&[topic]).await.batch_events_max(some(50));
    let runner = world.runner(&projection);
    let shutdown = CancellationToken::new();
    patiently(runner.run_until(&shutdown, book::to_the_end, book::add)).await
}

#[tokio::test]
async fn read_model_adds_up_over_runs_and_each_run_goes_on_behind_the_last() {
    let world = World::new().await;
    let topic = world.create_topic(4).await;
    book::open(&world.pool).await;

    world.write(&topic, &book::orders(&world, 40, 0..5)).await;
    let first = run_to_the_end(&world, &topic).await.unwrap();
    assert_eq!((first.events, first.duplicates), (200, 0));
    assert_eq!(book::sums(&world.pool).await, book::sums_of(40, 5));

    world.write(&topic, &book::orders(&world, 40, 5..8)).await;
    let second = run_to_the_end(&world, &topic).await.unwrap();
    assert_eq!((second.events, second.duplicates), (120, 0), "resumed behind the first run");
    assert_eq!(book::sums(&world.pool).await, book::sums_of(40, 8));
    world.clean(&[&topic]).await;
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
    let world = World::new().await;
    let topic = world.create_topic(2).await;
    book::open(&world.pool).await;
    world.write(&topic, &book::orders(&world, 20, 0..10)).await;

    let projection = world.projection(&[&topic]).await.batch_events_max(some(30));
    let shutdown = CancellationToken::new();
    let run = world.runner(&projection).run(&shutdown, break_in_the_middle);
    let error = patiently(run).await.unwrap_err();
    let RunError::Handler { stream, version, event_type, location, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((stream.as_str(), version.get()), ("order-7", 4));
    assert_eq!((event_type.as_str(), location.topic.as_ref()), ("OrderPaid", topic.as_str()));
    let (_, applied, _) = book::sums(&world.pool).await;
    let seven = "select events from book where stream = 'order-7'";
    let seven: i64 = sqlx::query_scalar(seven).fetch_one(&world.pool).await.unwrap();
    assert_eq!(seven, 4, "versions 0 to 3 stay, version 4 left no trace");

    let rest = run_to_the_end(&world, &topic).await.unwrap();
    assert_eq!(rest.events + u64::try_from(applied).unwrap(), 200);
    assert_eq!(book::sums(&world.pool).await, book::sums_of(20, 10));
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn planted_duplicates_are_dropped_within_a_batch_over_batches_and_over_runs() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let drafts = book::orders(&world, 10, 0..4);
    let twice: Vec<_> = drafts.iter().flat_map(|draft| [draft.clone(), draft.clone()]).collect();
    world.write(&topic, &twice).await;
    world.write(&topic, &drafts).await;
    let first = run_to_the_end(&world, &topic).await.unwrap();
    assert_eq!((first.events, first.duplicates), (40, 80));

    world.write(&topic, &drafts).await;
    let second = run_to_the_end(&world, &topic).await.unwrap();
    assert_eq!((second.events, second.duplicates), (0, 40));
    assert_eq!(book::sums(&world.pool).await, book::sums_of(10, 4));
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn planted_gap_stops_the_run_behind_what_came_before() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let draft = |version| world.draft("order-1", version, &placed(1));
    let drafts = [draft(0), draft(1), draft(3), world.draft("order-2", 0, &paid(1))];
    world.write(&topic, &drafts).await;
    for _ in 0..2 {
        let error = run_to_the_end(&world, &topic).await.unwrap_err();
        let RunError::Gap { location, gap } = &error else { panic!("{error:?}") };
        assert_eq!((location.partition, location.offset.get()), (0, 2));
        assert_eq!((gap.expected.get(), gap.found.get()), (2, 3));
        assert_eq!(book::sums(&world.pool).await, (1, 2, 2));
    }
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn a_run_goes_on_behind_a_gap_that_was_accepted_with_a_reason_and_behind_no_other() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let draft = |version| world.draft("order-1", version, &placed(1));
    world.write(&topic, &[draft(0), draft(1), draft(4), draft(5), draft(7)]).await;
    let error = run_to_the_end(&world, &topic).await.unwrap_err();
    let RunError::Gap { gap, .. } = &error else { panic!("{error:?}") };
    let projection = world.projection(&[&topic]).await;
    let mut connection = world.pool.acquire().await.unwrap();
    assert!(projection.accept_gap(&mut connection, gap, "").await.is_err(), "without a reason");
    for _ in 0..2 {
        projection.accept_gap(&mut connection, gap, "the topic was truncated").await.unwrap();
    }
    drop(connection);
    let error = run_to_the_end(&world, &topic).await.unwrap_err();
    let RunError::Gap { gap, .. } = &error else { panic!("{error:?}") };
    assert_eq!((gap.expected.get(), gap.found.get()), (6, 7));
    assert_eq!(book::sums(&world.pool).await, (1, 4, 4));
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn events_that_are_never_published_are_no_gap() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let draft = |version| world.draft("order-1", version, &placed(1));
    let behind = |version, previous| draft(version).header("ce_previousversion", previous);
    let drafts = [behind(2, "-1"), draft(3), behind(6, "3"), behind(8, "6"), behind(11, "9")];
    world.write(&topic, &drafts).await;
    for _ in 0..2 {
        let error = run_to_the_end(&world, &topic).await.unwrap_err();
        let RunError::Gap { gap, .. } = &error else { panic!("{error:?}") };
        assert_eq!((gap.expected.get(), gap.found.get()), (9, 11), "version 9 is lost");
        assert_eq!(book::sums(&world.pool).await, (1, 4, 4));
    }
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn runs_killed_at_any_moment_add_up() {
    let world = World::new().await;
    let topic = world.create_topic(3).await;
    book::open(&world.pool).await;
    world.write(&topic, &book::orders(&world, 100, 0..20)).await;
    let projection = world.projection(&[&topic]).await.batch_events_max(some(20));
    // The task is dropped at any point, its connection with it: in the middle of a transaction,
    // mostly.
    for kill_after_ms in 0..40 {
        let shutdown = CancellationToken::new();
        let run = world.runner(&projection).run(&shutdown, book::add);
        let killed = tokio::time::timeout(Duration::from_millis(kill_after_ms * 7), run).await;
        assert!(killed.is_err(), "{killed:?}");
    }
    let rest = run_to_the_end(&world, &topic).await.unwrap();
    assert!(rest.events < 2_000, "no killed run has applied anything");
    assert_eq!(book::sums(&world.pool).await, book::sums_of(100, 20));
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn lost_answers_to_commits_repeat_nothing() {
    let world = World::new().await;
    let topic = world.create_topic(2).await;
    book::open(&world.pool).await;
    world.write(&topic, &book::orders(&world, 30, 0..20)).await;
    let (pool, link) = linked_pool(&world).await;
    link.lose_answers_to_commits(10);

    let projection = world.projection(&[&topic]).await.batch_events_max(some(20));
    let runner = projection.runner(&pool, world.settings(), world.schemas());
    let run = runner.run_until(&CancellationToken::new(), book::to_the_end, book::add).await;
    assert_eq!(run.unwrap().events, 600);
    assert_eq!(link.commits_to_lose(), 0, "the answers were not lost");
    assert_eq!(book::sums(&world.pool).await, book::sums_of(30, 20));
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn database_cut_off_again_and_again_loses_and_repeats_nothing() {
    let world = World::new().await;
    let topic = world.create_topic(2).await;
    book::open(&world.pool).await;
    world.write(&topic, &book::orders(&world, 50, 0..20)).await;
    let (pool, link) = linked_pool(&world).await;

    let projection = world.projection(&[&topic]).await.batch_events_max(some(50));
    let runner = projection.runner(&pool, world.settings(), world.schemas());
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
    assert_eq!(patiently(run).await.unwrap().events, 1_000);
    assert!(batches > 20, "the cuts made no batch come again");
    assert_eq!(book::sums(&world.pool).await, book::sums_of(50, 20));
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn two_runners_of_one_projection_apply_nothing_twice() {
    let world = World::new().await;
    let topic = world.create_topic(2).await;
    book::open(&world.pool).await;
    world.write(&topic, &book::orders(&world, 50, 0..40)).await;
    let projection = world.projection(&[&topic]).await.batch_events_max(some(10));
    let run = || {
        let (runner, shutdown) = (world.runner(&projection), CancellationToken::new());
        tokio::spawn(async move { runner.run_until(&shutdown, book::to_the_end, book::add).await })
    };
    let (one, other) = patiently(async { tokio::join!(run(), run()) }).await;
    for ended in [one.unwrap(), other.unwrap()] {
        if let Err(error) = ended {
            assert!(matches!(error, RunError::Superseded { .. }), "{error:?}");
        }
    }
    run_to_the_end(&world, &topic).await.unwrap();
    assert_eq!(book::sums(&world.pool).await, book::sums_of(50, 40));
    world.clean(&[&topic]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_runner_that_was_overtaken_writes_nothing_more() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    world.write(&topic, &book::orders(&world, 5, 0..1)).await;
    let projection = world.projection(&[&topic]).await.batch_events_max(some(3));
    let (paused, is_paused) = tokio::sync::oneshot::channel();
    let (wake, woken) = std::sync::mpsc::channel();
    let runner = world.runner(&projection);
    let mut pause = Some(move || {
        paused.send(()).unwrap();
        tokio::task::block_in_place(|| woken.recv().unwrap());
    });
    let slow = tokio::spawn(async move {
        let pause_once = move |_progress: &RunProgress<'_>| {
            pause.take().into_iter().for_each(|pause| pause());
            ControlFlow::Continue(())
        };
        let add = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
            book::add(connection, events).await
        };
        runner.run_until(&CancellationToken::new(), pause_once, add).await
    });
    patiently(is_paused).await.unwrap();
    world.write(&topic, &book::orders(&world, 5, 1..3)).await;
    assert_eq!(run_to_the_end(&world, &topic).await.unwrap().events, 12);
    wake.send(()).unwrap();

    let error = patiently(slow).await.unwrap().unwrap_err();
    let RunError::Superseded { expected, found, .. } = &error else { panic!("{error:?}") };
    assert_eq!((expected.get(), found.get()), (3, 15));
    assert_eq!(book::sums(&world.pool).await, book::sums_of(5, 3));
    world.clean(&[&topic]).await;
}

async fn linked_pool(world: &World) -> (sqlx::PgPool, FaultyLink) {
    let (link, url) = FaultyLink::before(&world.database_url).await;
    (sqlx::PgPool::connect(&url).await.unwrap(), link)
}
