//! An event that cannot be applied is named, and the earlier ones stay applied.

use std::time::Duration;

use annals_consumer::{
    ConsumeError, Consumer, DecodeRecordError, DeliveredEvent, EnvelopeProblem, FirstVersion,
    RunError, SchemaLookupError, UnknownEvents,
};
use annals_schemas::{DecodeError, SchemaId, to_wire_format};
use annals_testkit::{Draft, TopicBed, in_time};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;
use crate::events::placed_only::PlacedOnly;
use crate::events::{OrderEvent, paid, placed};
use crate::logs;

/// Runs until something is refused.
async fn refusal(bed: &TopicBed, topic: &str) -> RunError {
    let projection = bed.projection(&[topic]).await;
    let shutdown = CancellationToken::new();
    let run = Box::pin(bed.runner(&projection).run(&shutdown, book::add));
    in_time(run).await.unwrap_err()
}

/// Two good events, then the bad one, then a good one.
async fn written_with(bed: &TopicBed, topic: &str, bad: Draft) {
    let draft = |stream, version| bed.draft(stream, version, &placed(1));
    let drafts = [draft("order-1", 0), draft("order-2", 0), bad, draft("order-3", 0)];
    bed.write(topic, &drafts).await;
}

#[tokio::test]
async fn garbage_is_named_by_its_place_and_what_came_before_is_applied() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let garbage = bed.draft("order-1", 1, &paid(1)).value(b"\x7fELF garbage");
    written_with(&bed, &topic, garbage).await;

    let error = refusal(&bed, &topic).await;
    let RunError::Consume(ConsumeError::Envelope(envelope)) = &error else { panic!("{error:?}") };
    assert_eq!(envelope.location.to_string(), format!("{topic}[0]@2"));
    assert!(matches!(envelope.problem, EnvelopeProblem::Frame(_)), "{error}");
    assert_eq!(book::sums(&bed.pool).await, (2, 2, 2));

    let connect = Consumer::connect(bed.settings());
    let mut consumer = connect.read_to_end(&[&topic]).await.unwrap();
    let mut seen = Vec::new();
    loop {
        match in_time(consumer.next()).await {
            Ok(Some(record)) => seen.push(record.offset.get()),
            Ok(None) => break,
            Err(error) => assert!(error.to_string().contains("[0]@2"), "{error}"),
        }
    }
    assert_eq!(seen, [0, 1, 3], "a consumer can go on behind a record that is no event");
}

#[tokio::test]
async fn missing_header_is_named_with_the_place() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let mut headless = bed.draft("order-1", 1, &paid(1));
    headless.headers.retain(|(name, _)| name != "ce_streamversion");
    written_with(&bed, &topic, headless).await;
    let error = refusal(&bed, &topic).await.to_string();
    assert_eq!(error, format!("read record {topic}[0]@2: header ce_streamversion is missing"));
}

#[tokio::test]
async fn payload_that_does_not_fit_its_schema_is_named_by_its_place() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let good = bed.draft("order-1", 1, &paid(1));
    let mut longer = good.value.clone();
    longer.extend_from_slice(b"trailing");
    written_with(&bed, &topic, good.value(&longer)).await;
    let error = refusal(&bed, &topic).await;
    let RunError::Decode(DecodeRecordError::Payload { location, event_type, source }) = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!((location.to_string(), event_type.as_str()), (format!("{topic}[0]@2"), "OrderPaid"));
    assert!(matches!(source, DecodeError::Malformed { .. }), "{source:?}");
    assert_eq!(book::sums(&bed.pool).await, (2, 2, 2));
}

#[tokio::test]
async fn schema_that_the_registry_does_not_know_is_named() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let unknown = to_wire_format(SchemaId(2_000_000_000), b"datum");
    written_with(&bed, &topic, bed.draft("order-1", 1, &paid(1)).value(&unknown)).await;
    let error = refusal(&bed, &topic).await;
    let RunError::Decode(DecodeRecordError::Schema { location, source }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(location.to_string(), format!("{topic}[0]@2"));
    let SchemaLookupError::Unknown { id: SchemaId(2_000_000_000), .. } = source else {
        panic!("{source:?}");
    };
    assert_eq!(book::sums(&bed.pool).await, (2, 2, 2));
}

#[tokio::test]
async fn undeclared_event_types_are_refused_unless_they_are_to_be_skipped() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    bed.write(&topic, &book::orders(&bed, 3, 0..4)).await;
    let only_placed = async |_: &mut PgConnection, events: &[DeliveredEvent<PlacedOnly>]| {
        let PlacedOnly::OrderPlaced(first) = &events[0].data;
        assert_eq!(first.note, format!("amount {}", first.amount));
        Ok::<_, sqlx::Error>(())
    };
    let projection = bed.projection(&[&topic]).await;
    let shutdown = CancellationToken::new();
    let run = bed.runner(&projection).run(&shutdown, only_placed);
    let error = in_time(run).await.unwrap_err();
    assert!(error.to_string().contains("OrderPaid"), "{error}");

    let skipping = projection.unknown_events(UnknownEvents::Skip);
    let runner = bed.runner(&skipping);
    let totals = in_time(runner.run_until(&shutdown, book::to_the_end, only_placed)).await;
    assert_eq!(totals.unwrap().skipped, 9);
    // Their versions count: later events are no gap, and a second run finds nothing to do.
    bed.write(&topic, &book::orders(&bed, 3, 4..5)).await;
    let runner = bed.runner(&skipping);
    let totals = in_time(runner.run_until(&shutdown, book::to_the_end, only_placed)).await;
    assert_eq!(totals.unwrap().skipped, 3);
}

#[tokio::test]
async fn topic_without_its_beginning_is_a_gap_unless_told_otherwise() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 3, 5..7)).await;
    let error = refusal(&bed, &topic).await;
    assert!(matches!(error, RunError::Gap { .. }), "{error:?}");

    let projection = bed.projection(&[&topic]).await.first_version(FirstVersion::Any);
    let shutdown = CancellationToken::new();
    let run = bed.runner(&projection).run_until(&shutdown, book::to_the_end, book::add);
    assert_eq!(in_time(run).await.unwrap().events, 6);
}

#[tokio::test]
async fn partitions_added_between_two_runs_are_read_and_fewer_are_refused() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 3, 0..2)).await;
    let projection = bed.projection(&[&topic]).await;
    let shutdown = CancellationToken::new();
    let run = || bed.runner(&projection).run_until(&shutdown, book::to_the_end, book::add);
    assert_eq!(in_time(run()).await.unwrap().events, 6);

    bed.repartition(&topic, 4).await;
    bed.write_to(&topic, 3, &[bed.draft("order-3", 0, &placed(3))]).await;
    assert_eq!(in_time(run()).await.unwrap().events, 1);
    bed.write_to(&topic, 3, &[bed.draft("order-3", 1, &paid(4))]).await;
    let again = in_time(run()).await.unwrap();
    assert_eq!((again.events, again.duplicates), (1, 0));
    let added = ["partitions_added", &topic, "recorded=2", "found=4"];
    assert_eq!(logs::count(&added), 1, "the greater number was not recorded");

    bed.delete(&topic).await;
    bed.create(&topic, 3).await;
    let error = refusal(&bed, &topic).await;
    let RunError::Consume(ConsumeError::Repartitioned { known: 4, found: 3, .. }) = &error else {
        panic!("{error:?}");
    };
}

#[tokio::test]
async fn projection_that_was_not_prepared_is_refused() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    let projection = annals_consumer::Projection::new("totals", &[&topic]).unwrap();
    let shutdown = CancellationToken::new();
    let run = bed.runner(&projection).run(&shutdown, book::add);
    let error = in_time(run).await.unwrap_err();
    assert!(matches!(error, RunError::Database { .. }), "{error:?}");
}

#[tokio::test]
async fn cancelled_run_ends_behind_the_batch_it_was_at() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 10, 0..10)).await;
    let few = std::num::NonZeroUsize::new(10).unwrap();
    let projection = bed.projection(&[&topic]).await.batch_events_max(few);
    let shutdown = CancellationToken::new();
    let cancel_inside = async |connection: &mut PgConnection,
                               events: &[DeliveredEvent<OrderEvent>]| {
        shutdown.cancel();
        book::add(connection, events).await
    };
    let totals = in_time(bed.runner(&projection).run(&shutdown, cancel_inside)).await.unwrap();
    assert_eq!((totals.batches, totals.events), (1, 10));
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(10, 1));

    let idle = CancellationToken::new();
    let run = tokio::spawn({
        let (runner, idle) = (bed.runner(&projection), idle.clone());
        async move { runner.run(&idle, book::add).await }
    });
    tokio::time::sleep(Duration::ZERO).await;
    idle.cancel();
    in_time(run).await.unwrap().unwrap();
}
