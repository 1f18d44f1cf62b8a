//! Another event under an applied version is reported, never dropped, and the projection can be
//! rebuilt.

use annals_consumer::{Projection, RunError, RunTotals};
use sqlx::Connection;
use tokio_util::sync::CancellationToken;

use crate::book;
use crate::events::{paid, placed};
use crate::world::{Draft, World, patiently};

const STREAM: &str = "order-1";

async fn run(world: &World, projection: &Projection) -> Result<RunTotals, RunError> {
    let shutdown = CancellationToken::new();
    patiently(world.runner(projection).run_until(&shutdown, book::to_the_end, book::add)).await
}

/// Versions of the stream, each of this amount.
fn drafts(world: &World, versions: std::ops::Range<i64>, amount: i64) -> Vec<Draft> {
    let event = |version| if version == 0 { placed(amount) } else { paid(amount) };
    versions.map(|version| world.draft(STREAM, version, &event(version))).collect()
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
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let lost = drafts(&world, 0..8, 1);
    world.write(&topic, &lost).await;
    let projection = world.projection(&[&topic]).await;
    run(&world, &projection).await.unwrap();
    world.write(&topic, &lost[7..]).await;
    assert_eq!(run(&world, &projection).await.unwrap().duplicates, 1, "the same event is none");

    let new = drafts(&world, 7..9, 100);
    world.write(&topic, &new).await;
    for _ in 0..2 {
        assert_forked(&run(&world, &projection).await, &lost[7], &new[0], 9);
        assert_eq!(book::sums(&world.pool).await, (1, 8, 8), "nothing of the fork is applied");
    }
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn a_fork_below_the_last_version_is_seen_where_it_begins() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let lost = drafts(&world, 0..8, 1);
    world.write(&topic, &lost).await;
    let projection = world.projection(&[&topic]).await;
    run(&world, &projection).await.unwrap();
    // The new history may never get as far as the lost one did.
    let new = drafts(&world, 5..6, 100);
    world.write(&topic, &new).await;
    assert_forked(&run(&world, &projection).await, &lost[5], &new[0], 8);
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn a_fork_further_below_is_seen_where_it_meets_what_is_remembered() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let lost = drafts(&world, 0..30, 1);
    world.write(&topic, &lost).await;
    let projection = world.projection(&[&topic]).await;
    run(&world, &projection).await.unwrap();
    let new = drafts(&world, 3..25, 100);
    world.write(&topic, &new).await;
    assert_forked(&run(&world, &projection).await, &lost[22], &new[19], 49);
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn both_histories_in_one_batch_are_a_fork_and_the_first_is_applied() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let (lost, new) = (drafts(&world, 0..4, 1), drafts(&world, 2..6, 100));
    world.write(&topic, &[lost.clone(), new.clone()].concat()).await;
    let projection = world.projection(&[&topic]).await;
    assert_forked(&run(&world, &projection).await, &lost[2], &new[0], 4);
    assert_eq!(book::sums(&world.pool).await, (1, 4, 4));
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn projection_is_rebuilt_from_a_topic_published_anew_and_goes_on() {
    let world = World::new().await;
    let topic = world.create_topic(1).await;
    book::open(&world.pool).await;
    let (lost, new) = (drafts(&world, 0..8, 1), drafts(&world, 5..7, 100));
    world.write(&topic, &[&lost[..], &new[..]].concat()).await;
    let projection = world.projection(&[&topic]).await;
    assert_forked(&run(&world, &projection).await, &lost[5], &new[0], 8);

    // Under another prefix the whole history is published that the store has now.
    let anew = world.topic("anew");
    world.create(&anew, 1).await;
    world.write(&anew, &[&lost[..5], &new[..]].concat()).await;
    let rebuilt = world.projection(&[&anew]).await;
    assert_forked(&run(&world, &rebuilt).await, &lost[5], &new[0], 5);
    let mut connection = world.pool.acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    sqlx::raw_sql("truncate book").execute(&mut *transaction).await.unwrap();
    rebuilt.forget(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    drop(connection);
    assert_eq!(run(&world, &rebuilt).await.unwrap().events, 7);
    assert_eq!(book::sums(&world.pool).await, (1, 7, 205));
    world.write(&anew, &drafts(&world, 7..9, 100)).await;
    assert_eq!(run(&world, &rebuilt).await.unwrap().events, 2);
    assert_eq!(book::sums(&world.pool).await, (1, 9, 405));
    world.clean(&[&topic, &anew]).await;
}
