//! The consumer waits for unavailable components, and recognises recreated topics.

use std::ops::ControlFlow;

use annals_consumer::{Consumer, ConsumerSettings, RunProgress, RunTotals, SchemaRegistry};
use annals_testkit::{Draft, FaultyLink, FaultyRegistry, Garbage, in_time};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;
use crate::events::{OrderEvent, placed};
use crate::logs;

/// The same events, one stream after the other.
fn other_order(first: &[Draft], then: &[Draft]) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = first.iter().chain(then).cloned().collect();
    drafts.sort_by(|a, b| a.key.cmp(&b.key));
    drafts
}

#[tokio::test]
async fn registry_that_is_away_is_waited_for() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    bed.write(&topic, &[bed.draft("order-1", 0, &placed(7))]).await;
    let records = bed.read_all(&topic).await;
    let (_, server) = bed.registry_url.split_once("://").unwrap();
    let (server, _) = server.split_once('/').unwrap();
    let link = FaultyLink::to(server).await;
    link.cut();
    let schemas = SchemaRegistry::new(&bed.registry_url.replace(server, &link.address())).unwrap();

    let record = records[0].clone();
    let decoding = tokio::spawn(async move { record.decode::<OrderEvent>(&schemas).await });
    in_time(link.accepted(3)).await;
    assert!(!decoding.is_finished());
    link.mend();
    assert_eq!(in_time(decoding).await.unwrap().unwrap(), placed(7));
    assert_eq!(logs::count(&["WARN", "waiting for the schema registry", &link.address()]), 1);
    assert_eq!(logs::count(&["the schema registry at", &link.address(), "answers again"]), 1);
}

#[tokio::test]
async fn a_registry_that_refuses_the_login_after_an_outage_is_named_and_waited_for() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    bed.write(&topic, &[bed.draft("order-1", 0, &placed(7))]).await;
    let records = bed.read_all(&topic).await;
    let registry = FaultyRegistry::start(&bed.registry_url).await;
    registry.talks(Garbage::ServerError);
    let schemas = SchemaRegistry::new(registry.url()).unwrap();
    let record = records[0].clone();
    let decoding = tokio::spawn(async move { record.decode::<OrderEvent>(&schemas).await });
    let waits = ["WARN", "waiting for the schema registry", registry.url()];
    in_time(logs::wait_for(&[&waits[..], &["out of memory"]].concat())).await;
    registry.talks(Garbage::Unauthorized);
    in_time(logs::wait_for(&[&waits[..], &["401", "refuses the login"]].concat())).await;
    registry.talks(Garbage::Forbidden);
    assert!(!decoding.is_finished());
    registry.is_well();
    assert_eq!(in_time(decoding).await.unwrap().unwrap(), placed(7));
    assert_eq!(logs::count(&waits), 2);
    assert_eq!(logs::count(&["answers again", registry.url()]), 1);
}

#[tokio::test]
async fn brokers_that_are_away_at_the_start_are_waited_for() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    bed.write(&topic, &[bed.draft("order-1", 0, &placed(7))]).await;
    let link = FaultyLink::to(&bed.brokers).await;
    link.cut();
    let connect = Consumer::connect(ConsumerSettings::new(link.address()));
    let mut consumer = connect.assign_from_beginning(&[&topic]).unwrap();
    let reading = tokio::spawn(async move { consumer.next().await });
    in_time(link.accepted(3)).await;
    in_time(logs::wait_for(&["WARN", "waiting for Kafka", &link.address()])).await;
    assert!(!reading.is_finished());
    link.mend();
    assert_eq!(in_time(reading).await.unwrap().unwrap().unwrap().stream, "order-1");
    assert_eq!(logs::count(&["waiting for Kafka", &link.address()]), 1);
    assert_eq!(logs::count(&["Kafka at", &link.address(), "answers again"]), 1);
}

#[tokio::test]
async fn a_listener_with_another_security_protocol_is_named() {
    logs::collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // As a listener that expects TLS does with a request that has none.
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            assert!(client.read(&mut [0; 1024]).await.unwrap() > 0);
        }
    });
    let connect = Consumer::connect(ConsumerSettings::new(&address));
    let mut consumer = connect.assign_from_beginning(&["a_topic"]).unwrap();
    let reading = tokio::spawn(async move { consumer.next().await });
    let named = ["WARN", "waiting for Kafka", &address, "security.protocol"];
    in_time(logs::wait_for(&named)).await;
    assert!(!reading.is_finished());
    reading.abort();
}

#[tokio::test]
async fn waiting_run_ends_when_it_is_told_to() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    bed.write(&topic, &[bed.draft("order-1", 0, &placed(7))]).await;
    let projection = bed.projection(&[&topic]).await;
    let link = FaultyLink::to("127.0.0.1:1").await;
    let schemas = SchemaRegistry::new(&format!("http://{}", link.address())).unwrap();
    let runner = projection.runner(&bed.pool, bed.settings(), schemas);
    let shutdown = CancellationToken::new();
    let run = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { runner.run(&shutdown, book::add).await }
    });
    in_time(link.accepted(1)).await;
    shutdown.cancel();
    assert_eq!(in_time(run).await.unwrap().unwrap().events, 0);
}

#[tokio::test]
async fn topic_made_anew_between_two_runs_is_read_again_and_applied_once() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    book::open(&bed.pool).await;
    let drafts = book::orders(&bed, 20, 0..10);
    bed.write(&topic, &drafts).await;
    let projection = bed.projection(&[&topic]).await;
    let shutdown = CancellationToken::new();
    let run = || bed.runner(&projection).run_until(&shutdown, book::to_the_end, book::add);
    assert_eq!(in_time(run()).await.unwrap().events, 200);

    bed.delete(&topic).await;
    bed.create(&topic, 2).await;
    bed.write(&topic, &drafts[..100]).await;
    let again = in_time(run()).await.unwrap();
    assert_eq!((again.events, again.duplicates), (0, 100), "offsets behind the end start over");

    let mut connection = bed.pool.acquire().await.unwrap();
    projection.replay(&mut connection).await.unwrap();
    bed.write(&topic, &drafts[100..]).await;
    bed.write(&topic, &book::orders(&bed, 20, 10..12)).await;
    let replayed = in_time(run()).await.unwrap();
    assert_eq!((replayed.events, replayed.duplicates), (40, 200));
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(20, 12));
    drop(connection);
}

#[tokio::test]
async fn topic_made_anew_in_another_order_is_recognised_by_its_last_event() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let drafts = book::orders(&bed, 20, 0..10);
    bed.write(&topic, &drafts).await;
    let projection = bed.projection(&[&topic]).await;
    let shutdown = CancellationToken::new();
    let run = || bed.runner(&projection).run_until(&shutdown, book::to_the_end, book::add);
    assert_eq!(in_time(run()).await.unwrap().events, 200);

    // As long as before, and longer: the offset to continue at exists, but there are new records
    // before it, too.
    bed.delete(&topic).await;
    bed.create(&topic, 1).await;
    bed.write(&topic, &other_order(&drafts, &book::orders(&bed, 20, 10..12))).await;
    let again = in_time(run()).await.unwrap();
    assert_eq!((again.events, again.duplicates), (40, 200));
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(20, 12));
    assert_eq!(logs::count(&["WARN", "was created again", &topic]), 1);
}

#[tokio::test]
async fn topic_made_anew_under_a_running_projection_is_read_again_and_applied_once() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let drafts = book::orders(&bed, 20, 0..10);
    bed.write(&topic, &drafts).await;
    let projection = bed.projection(&[&topic]).await;
    let runner = bed.runner(&projection);
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
    in_time(told.wait_for(|totals| totals.events == 200)).await.unwrap();

    bed.delete(&topic).await;
    in_time(logs::wait_for(&["waiting for a topic that does not exist", &topic])).await;
    bed.create(&topic, 1).await;
    let event = book::orders(&bed, 20, 10..12);
    bed.write(&topic, &other_order(&drafts, &event)).await;
    in_time(told.wait_for(|totals| totals.events == 240)).await.unwrap();
    shutdown.cancel();
    assert_eq!(in_time(run).await.unwrap().unwrap().duplicates, 200);
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(20, 12));
}

#[tokio::test]
async fn forgotten_projection_applies_everything_again() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 5, 0..3)).await;
    let projection = bed.projection(&[&topic]).await.schema("elsewhere").unwrap();
    projection.prepare(&bed.pool).await.unwrap();
    projection.prepare(&bed.pool).await.unwrap();
    let shutdown = CancellationToken::new();
    let run = || bed.runner(&projection).run_until(&shutdown, book::to_the_end, book::add);
    assert_eq!(in_time(run()).await.unwrap().events, 15);
    let kept = "select count(*) from elsewhere.annals_projection_versions";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&bed.pool).await.unwrap();
    assert_eq!(kept, 5);

    let mut transaction = bed.pool.begin().await.unwrap();
    sqlx::raw_sql("truncate book").execute(&mut *transaction).await.unwrap();
    projection.forget(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(in_time(run()).await.unwrap().events, 15);
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(5, 3));
}
