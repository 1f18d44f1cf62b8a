//! Records that were removed before they were read are an error, and accepted by name only.

use annals_consumer::{ConsumeError, FirstVersion, Projection, RunError, RunTotals};
use annals_testkit::{TopicBed, delete_records, in_time, send};
use rdkafka::producer::Producer;
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;
use crate::events::placed;

async fn run(bed: &TopicBed, projection: &Projection) -> Result<RunTotals, RunError> {
    let shutdown = CancellationToken::new();
    in_time(bed.runner(projection).run_until(&shutdown, book::to_the_end, book::add)).await
}

/// The offset of the next record, and the first one that is left.
fn removed(error: &RunError) -> (i64, i64) {
    match error {
        RunError::Consume(ConsumeError::RecordsRemoved { next, low }) => {
            (next.offset.get(), low.get())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn records_removed_before_they_were_read_end_the_run_until_the_loss_is_accepted() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 2, 0..3)).await;
    let projection = bed.projection(&[&topic]).await;
    assert_eq!(run(&bed, &projection).await.unwrap().events, 6);

    bed.write(&topic, &book::orders(&bed, 2, 3..6)).await;
    delete_records(&bed.brokers, &topic, 0, 8).await;
    let mut error = None;
    for _ in 0..2 {
        let ended = run(&bed, &projection).await.unwrap_err();
        assert_eq!(removed(&ended), (6, 8), "{ended}");
        error = Some(ended);
    }
    let Some(RunError::Consume(loss)) = error else { panic!("{error:?}") };
    let mut connection = bed.pool.acquire().await.unwrap();
    assert!(projection.accept_removal(&mut connection, &loss, "").await.is_err(), "no reason");
    let accepted = projection.accept_removal(&mut connection, &loss, "a test").await;
    assert!(accepted.unwrap());
    assert!(!projection.accept_removal(&mut connection, &loss, "a test").await.unwrap());

    // The missing events show in each stream.
    for _ in 0..2 {
        let error = run(&bed, &projection).await.unwrap_err();
        let RunError::Gap { gap, .. } = &error else { panic!("{error:?}") };
        assert_eq!((gap.expected.get(), gap.found.get()), (3, 4));
        projection.accept_gap(&mut connection, gap, "a test").await.unwrap();
    }
    assert_eq!(run(&bed, &projection).await.unwrap().events, 3);
    let (streams, events, _) = book::sums(&bed.pool).await;
    assert_eq!((streams, events), (2, 10), "all but the two that are lost");
    drop(connection);
}

#[tokio::test]
async fn removal_of_applied_records_is_no_loss() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 2, 0..3)).await;
    let projection = bed.projection(&[&topic]).await;
    assert_eq!(run(&bed, &projection).await.unwrap().events, 6);
    bed.write(&topic, &book::orders(&bed, 2, 3..4)).await;
    delete_records(&bed.brokers, &topic, 0, 6).await;
    let totals = run(&bed, &projection).await.unwrap();
    assert_eq!((totals.events, totals.duplicates), (2, 0));
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(2, 4));
}

#[tokio::test]
async fn removal_of_records_before_the_run_reads_them_ends_it() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 2, 0..3)).await;
    let projection = bed.projection(&[&topic]).await;
    let shutdown = CancellationToken::new();
    let removal = async {
        let applied = async || book::sums(&bed.pool).await == book::sums_of(2, 3);
        annals_testkit::until("all events are applied", applied).await;
        // In an open transaction, which the run waits for.
        let producer = bed.transactional_producer();
        producer.begin_transaction().unwrap();
        send(&producer, &topic, &book::orders(&bed, 2, 3..5)).await;
        delete_records(&bed.brokers, &topic, 0, 8).await;
        producer
    };
    let run = Box::pin(bed.runner(&projection).run(&shutdown, book::add));
    let (ended, _producer) = in_time(async { tokio::join!(run, removal) }).await;
    let error = ended.unwrap_err();
    assert_eq!(removed(&error), (6, 8), "{error}");
}

#[tokio::test]
async fn topic_whose_beginning_was_removed_is_refused_unless_streams_may_begin_later() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 2, 0..3)).await;
    delete_records(&bed.brokers, &topic, 0, 2).await;
    let projection = bed.projection(&[&topic]).await;
    let error = run(&bed, &projection).await.unwrap_err();
    assert_eq!(removed(&error), (0, 2));
    let totals = run(&bed, &projection.first_version(FirstVersion::Any)).await.unwrap();
    assert_eq!(totals.events, 4);
}

#[tokio::test]
async fn gap_at_the_start_of_a_stream_says_so() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &[bed.draft("order-1", 3, &placed(1))]).await;
    let projection = bed.projection(&[&topic]).await;
    let error = run(&bed, &projection).await.unwrap_err();
    let RunError::Gap { gap, .. } = &error else { panic!("{error:?}") };
    assert_eq!((gap.expected.get(), gap.found.get()), (0, 3));
    assert!(error.to_string().contains("FirstVersion::Any"), "{error}");
}
