//! Topics come late, change their partitions, are deleted and made anew.

use annals_consumer::{ConsumeError, Consumer};

use crate::events::placed;
use crate::world::{World, patiently};

#[tokio::test]
async fn topic_that_comes_later_is_read_and_does_not_hold_up_the_others() {
    let world = World::new().await;
    let (early, late) = (world.topic("early"), world.topic("late"));
    world.create(&early, 1).await;
    world.write(&early, &[world.draft("order-1", 0, &placed(1))]).await;
    let connect = Consumer::connect(world.settings());
    let mut consumer = connect.assign_from_beginning(&[&late, &early]).unwrap();
    assert_eq!(patiently(consumer.next()).await.unwrap().unwrap().topic.as_ref(), early);

    world.create(&late, 2).await;
    world.write(&late, &[world.draft("order-2", 0, &placed(2))]).await;
    assert_eq!(patiently(consumer.next()).await.unwrap().unwrap().topic.as_ref(), late);
    world.clean(&[&early, &late]).await;
}

#[tokio::test]
async fn group_reads_a_topic_that_comes_later() {
    let world = World::new().await;
    let topic = world.topic("order");
    let connect = Consumer::connect(world.settings());
    let mut consumer = connect.subscribe(&world.name, &[&topic]).unwrap();
    let waiting = tokio::spawn(async move {
        let record = consumer.next().await.unwrap().unwrap();
        consumer.close().await;
        record.stream
    });
    world.create(&topic, 1).await;
    world.write(&topic, &[world.draft("order-1", 0, &placed(1))]).await;
    assert_eq!(patiently(waiting).await.unwrap(), "order-1");
    world.clean(&[&topic]).await;
}

#[tokio::test]
async fn changed_partition_count_is_refused_while_reading() {
    let world = World::new().await;
    let topic = world.create_topic(2).await;
    world.write(&topic, &[world.draft("order-1", 0, &placed(1))]).await;
    let connect = Consumer::connect(world.settings());
    let mut consumer = connect.assign_from_beginning(&[&topic]).unwrap();
    patiently(consumer.next()).await.unwrap();

    world.repartition(&topic, 3).await;
    let error = patiently(consumer.next()).await.unwrap_err();
    let ConsumeError::Repartitioned { topic: named, known: 2, found: 3 } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(named.as_ref(), topic);
    world.clean(&[&topic]).await;
}
