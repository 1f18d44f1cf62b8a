//! Another event under an applied version is reported, never dropped, and the projection can be
//! rebuilt.

use annals_consumer::{Projection, RunError, RunTotals};
use annals_testkit::{Draft, TopicBed, in_time};
use sqlx::Connection;
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;
use crate::events::{paid, placed};

const STREAM: &str = "order-1";

async fn run(bed: &TopicBed, projection: &Projection) -> Result<RunTotals, RunError> {
    let shutdown = CancellationToken::new();
    in_time(bed.runner(projection).run_until(&shutdown, book::to_the_end, book::add)).await
}

/// Versions of the stream, each of this amount.
fn drafts(bed: &TopicBed, versions: std::ops::Range<i64>, amount: i64) -> Vec<Draft> {
    let event = |version| if version == 0 { placed(amount) } else { paid(amount) };
    versions.map(|version| bed.draft(STREAM, version, &event(version))).collect()
}

fn id(draft: &Draft) -> &str {
    let header = draft.headers.iter().find(|(name, _)| name == "ce_id");
    &header.expect("every event has an id").1
}

/// The run must end at this record, which has another event than the one applied.
fn assert_forked(
    ended: &Result<RunTotals, RunError>,
    applied: &Draft,
    received: &Draft,
    offset: i64,
) {
    let Err(RunError::Forked { location, fork }) = ended else { panic!("{ended:?}") };
    assert_eq!(
        (fork.stream.as_str(), location.partition, location.offset.get()),
        (STREAM, 0, offset)
    );
    assert_eq!(fork.applied.to_string(), id(applied));
    assert_eq!(fork.received.to_string(), id(received));
    assert!(received.headers.contains(&("ce_streamversion".to_owned(), fork.version.to_string())));
}

#[tokio::test]
async fn another_event_under_the_last_version_is_a_fork_in_a_later_run() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let lost = drafts(&bed, 0..8, 1);
    bed.write(&topic, &lost).await;
    let projection = bed.projection(&[&topic]).await;
    run(&bed, &projection).await.unwrap();
    bed.write(&topic, &lost[7..]).await;
    assert_eq!(run(&bed, &projection).await.unwrap().duplicates, 1, "the same event is none");

    let new = drafts(&bed, 7..9, 100);
    bed.write(&topic, &new).await;
    for _ in 0..2 {
        assert_forked(&run(&bed, &projection).await, &lost[7], &new[0], 9);
        assert_eq!(book::sums(&bed.pool).await, (1, 8, 8), "nothing of the fork is applied");
    }
}

#[tokio::test]
async fn a_fork_below_the_last_version_is_seen_where_it_begins() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let lost = drafts(&bed, 0..8, 1);
    bed.write(&topic, &lost).await;
    let projection = bed.projection(&[&topic]).await;
    run(&bed, &projection).await.unwrap();
    // The new history may never get as far as the lost one did.
    let new = drafts(&bed, 5..6, 100);
    bed.write(&topic, &new).await;
    assert_forked(&run(&bed, &projection).await, &lost[5], &new[0], 8);
}

#[tokio::test]
async fn a_fork_further_below_is_seen_where_it_meets_what_is_remembered() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let lost = drafts(&bed, 0..30, 1);
    bed.write(&topic, &lost).await;
    let projection = bed.projection(&[&topic]).await;
    run(&bed, &projection).await.unwrap();
    let new = drafts(&bed, 3..25, 100);
    bed.write(&topic, &new).await;
    assert_forked(&run(&bed, &projection).await, &lost[22], &new[19], 49);
}

#[tokio::test]
async fn both_histories_in_one_batch_are_a_fork_and_the_first_is_applied() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let (lost, new) = (drafts(&bed, 0..4, 1), drafts(&bed, 2..6, 100));
    bed.write(&topic, &[lost.clone(), new.clone()].concat()).await;
    let projection = bed.projection(&[&topic]).await;
    assert_forked(&run(&bed, &projection).await, &lost[2], &new[0], 4);
    assert_eq!(book::sums(&bed.pool).await, (1, 4, 4));
}

#[tokio::test]
async fn projection_is_rebuilt_from_a_topic_published_anew_and_goes_on() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let (lost, new) = (drafts(&bed, 0..8, 1), drafts(&bed, 5..7, 100));
    bed.write(&topic, &[&lost[..], &new[..]].concat()).await;
    let projection = bed.projection(&[&topic]).await;
    assert_forked(&run(&bed, &projection).await, &lost[5], &new[0], 8);

    // Under another prefix the whole history is published that the store has now.
    let anew = bed.topic("anew");
    bed.create(&anew, 1).await;
    bed.write(&anew, &[&lost[..5], &new[..]].concat()).await;
    let rebuilt = bed.projection(&[&anew]).await;
    assert_forked(&run(&bed, &rebuilt).await, &lost[5], &new[0], 5);
    let mut connection = bed.pool.acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    sqlx::raw_sql("truncate book").execute(&mut *transaction).await.unwrap();
    rebuilt.forget(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    drop(connection);
    assert_eq!(run(&bed, &rebuilt).await.unwrap().events, 7);
    assert_eq!(book::sums(&bed.pool).await, (1, 7, 205));
    bed.write(&anew, &drafts(&bed, 7..9, 100)).await;
    assert_eq!(run(&bed, &rebuilt).await.unwrap().events, 2);
    assert_eq!(book::sums(&bed.pool).await, (1, 9, 405));
}
