//! The consumer waits for unavailable components, and recognises recreated topics.

use std::ops::ControlFlow;

use annals_consumer::{Consumer, ConsumerSettings, RunProgress, RunTotals, SchemaRegistry};
use annals_testkit::FaultyLink;
use tokio_util::sync::CancellationToken;

use crate::book;
use crate::events::{OrderEvent, placed};
use crate::logs;
use crate::world::{Draft, World, patiently};

/// The same events, one stream after the other.
fn other_order(first: &[Draft], then: &[Draft]) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = first.iter().chain(then).cloned().collect();
    drafts.sort_by(|a, b| a.key.cmp(&b.key));
    drafts
}

#[tokio::test]
async fn registry_that_is_away_is_waited_for() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    world.write(&topic, &[world.draft("order-1", 0, &placed(7))]).await;
    let records = world.read_all(&topic).await;
    let (_, server) = world.registry_url.split_once("://").unwrap();
    let (server, _) = server.split_once('/').unwrap();
    let link = FaultyLink::to(server).await;
    link.cut();
    let schemas =
        SchemaRegistry::new(&world.registry_url.replace(server, &link.address())).unwrap();

    let record = records[0].clone();
    let decoding = tokio::spawn(async move { record.decode::<OrderEvent>(&schemas).await });
    patiently(link.accepted(3)).await;
    assert!(!decoding.is_finished());
    link.mend();
    assert_eq!(patiently(decoding).await.unwrap().unwrap(), placed(7));
    assert_eq!(logs::count(&["WARN", "waiting for the schema registry", &link.address()]), 1);
    assert_eq!(logs::count(&["the schema registry at", &link.address(), "answers again"]), 1);
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn brokers_that_are_away_at_the_start_are_waited_for() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    world.write(&topic, &[world.draft("order-1", 0, &placed(7))]).await;
    let link = FaultyLink::to(&world.brokers).await;
    link.cut();
    let connect = Consumer::connect(ConsumerSettings::new(link.address()));
    let mut consumer = connect.assign_from_beginning(&[&topic]).unwrap();
    let reading = tokio::spawn(async move { consumer.next().await });
    patiently(link.accepted(3)).await;
    patiently(logs::wait_for(&["WARN", "waiting for Kafka", &link.address()])).await;
    assert!(!reading.is_finished());
    link.mend();
    assert_eq!(patiently(reading).await.unwrap().unwrap().unwrap().stream, "order-1");
    assert_eq!(logs::count(&["waiting for Kafka", &link.address()]), 1);
    assert_eq!(logs::count(&["Kafka at", &link.address(), "answers again"]), 1);
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn waiting_run_ends_when_it_is_told_to() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    world.write(&topic, &[world.draft("order-1", 0, &placed(7))]).await;
    let projection = world.projection(&[&topic]).await;
    let link = FaultyLink::to("127.0.0.1:1").await;
    let schemas = SchemaRegistry::new(&format!("http://{}", link.address())).unwrap();
    let runner = projection.runner(&world.pool, world.settings(), schemas);
    let shutdown = CancellationToken::new();
    let run = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { runner.run(&shutdown, book::add).await }
    });
    patiently(link.accepted(1)).await;
    shutdown.cancel();
    assert_eq!(patiently(run).await.unwrap().unwrap().events, 0);
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn topic_made_anew_between_two_runs_is_read_again_and_applied_once() {
    let world = World::new().await;
    let topic = world.create_topic(2).await;
    book::open(&world.pool).await;
    let drafts = book::orders(&world, 20, 0..10);
    world.write(&topic, &drafts).await;
    let projection = world.projection(&[&topic]).await;
    let shutdown = CancellationToken::new();
    let run = || world.runner(&projection).run_until(&shutdown, book::to_the_end, book::add);
    assert_eq!(patiently(run()).await.unwrap().events, 200);

    world.delete(&topic).await;
    world.create(&topic, 2).await;
    world.write(&topic, &drafts[..100]).await;
    let again = patiently(run()).await.unwrap();
    assert_eq!((again.events, again.duplicates), (0, 100), "offsets behind the end start over");

    let mut connection = world.pool.acquire().await.unwrap();
    projection.replay(&mut connection).await.unwrap();
    world.write(&topic, &drafts[100..]).await;
    world.write(&topic, &book::orders(&world, 20, 10..12)).await;
    let replayed = patiently(run()).await.unwrap();
    assert_eq!((replayed.events, replayed.duplicates), (40, 200));
    assert_eq!(book::sums(&world.pool).await, book::sums_of(20, 12));
    drop(connection);
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn topic_made_anew_in_another_order_is_recognised_by_its_last_event() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let drafts = book::orders(&world, 20, 0..10);
    world.write(&topic, &drafts).await;
    let projection = world.projection(&[&topic]).await;
    let shutdown = CancellationToken::new();
    let run = || world.runner(&projection).run_until(&shutdown, book::to_the_end, book::add);
    assert_eq!(patiently(run()).await.unwrap().events, 200);

    // As long as before, and longer: the offset to continue at exists, but there are new records
    // before it, too.
    world.delete(&topic).await;
    world.create(&topic, 1).await;
    world.write(&topic, &other_order(&drafts, &book::orders(&world, 20, 10..12))).await;
    let again = patiently(run()).await.unwrap();
    assert_eq!((again.events, again.duplicates), (40, 200));
    assert_eq!(book::sums(&world.pool).await, book::sums_of(20, 12));
    assert_eq!(logs::count(&["WARN", "was created again", &topic]), 1);
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn topic_made_anew_under_a_running_projection_is_read_again_and_applied_once() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let drafts = book::orders(&world, 20, 0..10);
    world.write(&topic, &drafts).await;
    let projection = world.projection(&[&topic]).await;
    let runner = world.runner(&projection);
    let shutdown = CancellationToken::new();
    let (tell, mut told) = tokio::sync::watch::channel(RunTotals::default());
    let run = tokio::spawn({
        let shutdown = shutdown.clone();
        let hook = move |progress: &RunProgress<'_>| {
            tell.send_replace(progress.totals);
            ControlFlow::Continue(())
        };
        async move { runner.run_until(&shutdown, hook, book::add).await }
    });
    patiently(told.wait_for(|totals| totals.events == 200)).await.unwrap();

    world.delete(&topic).await;
    patiently(logs::wait_for(&["waiting for a topic that does not exist", &topic])).await;
    world.create(&topic, 1).await;
    let event = book::orders(&world, 20, 10..12);
    world.write(&topic, &other_order(&drafts, &event)).await;
    patiently(told.wait_for(|totals| totals.events == 240)).await.unwrap();
    shutdown.cancel();
    assert_eq!(patiently(run).await.unwrap().unwrap().duplicates, 200);
    assert_eq!(book::sums(&world.pool).await, book::sums_of(20, 12));
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn forgotten_projection_applies_everything_again() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    world.write(&topic, &book::orders(&world, 5, 0..3)).await;
    let projection = world.projection(&[&topic]).await.schema("elsewhere").unwrap();
    projection.prepare(&world.pool).await.unwrap();
    projection.prepare(&world.pool).await.unwrap();
    let shutdown = CancellationToken::new();
    let run = || world.runner(&projection).run_until(&shutdown, book::to_the_end, book::add);
    assert_eq!(patiently(run()).await.unwrap().events, 15);
    let kept = "select count(*) from elsewhere.annals_projection_versions";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&world.pool).await.unwrap();
    assert_eq!(kept, 5);

    let mut transaction = world.pool.begin().await.unwrap();
    sqlx::raw_sql("truncate book").execute(&mut *transaction).await.unwrap();
    projection.forget(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(patiently(run()).await.unwrap().events, 15);
    assert_eq!(book::sums(&world.pool).await, book::sums_of(5, 3));
    world.clean(&[&topic]).await;
}
