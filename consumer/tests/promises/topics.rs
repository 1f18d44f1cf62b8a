//! Topics come late, change their partitions, are deleted and made anew.

use annals_consumer::{ConsumeError, Consumer};
use annals_testkit::in_time;

use crate::bed;
use crate::events::placed;
use crate::logs;

#[tokio::test]
async fn topic_that_comes_later_is_read_and_does_not_hold_up_the_others() {
    let bed = bed().await;
    let (early, late) = (bed.topic("early"), bed.topic("late"));
    bed.create(&early, 1).await;
    bed.write(&early, &[bed.draft("order-1", 0, &placed(1))]).await;
    let connect = Consumer::connect(bed.settings());
    let mut consumer = connect.assign_from_beginning(&[&late, &early]).unwrap();
    assert_eq!(in_time(consumer.next()).await.unwrap().unwrap().topic.as_ref(), early);

    bed.create(&late, 2).await;
    bed.write(&late, &[bed.draft("order-2", 0, &placed(2))]).await;
    assert_eq!(in_time(consumer.next()).await.unwrap().unwrap().topic.as_ref(), late);
}

#[tokio::test]
async fn group_reads_a_topic_that_comes_later() {
    let bed = bed().await;
    let topic = bed.topic("order");
    let connect = Consumer::connect(bed.settings());
    let mut consumer = connect.subscribe(&bed.name, &[&topic]).unwrap();
    let waiting = tokio::spawn(async move {
        let record = consumer.next().await.unwrap().unwrap();
        consumer.close().await;
        record.stream
    });
    bed.create(&topic, 1).await;
    bed.write(&topic, &[bed.draft("order-1", 0, &placed(1))]).await;
    assert_eq!(in_time(waiting).await.unwrap(), "order-1");
}

#[tokio::test]
async fn added_partitions_are_read_from_their_beginning_and_fewer_are_refused() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    bed.write(&topic, &[bed.draft("order-1", 0, &placed(1))]).await;
    let connect = Consumer::connect(bed.settings());
    let mut assigned = connect.assign_from_beginning(&[&topic]).unwrap();
    let connect = Consumer::connect(bed.settings());
    let mut member = connect.subscribe(&bed.name, &[&topic]).unwrap();
    in_time(assigned.next()).await.unwrap();
    // The group is balanced anew when partitions are added: what is not committed comes again.
    let first = in_time(member.next()).await.unwrap().unwrap();
    member.commit(&first).await.unwrap();

    bed.repartition(&topic, 3).await;
    bed.write_to(&topic, 2, &[bed.draft("order-2", 0, &placed(2))]).await;
    for consumer in [&mut assigned, &mut member] {
        let added = in_time(consumer.next()).await.unwrap().unwrap();
        assert_eq!((added.stream.as_str(), added.partition), ("order-2", 2));
    }
    member.close().await;
    let added = ["partitions_added", &topic, "recorded=2", "found=3"];
    assert!((1..=2).contains(&logs::count(&added)), "at most once for each consumer");

    bed.delete(&topic).await;
    bed.create(&topic, 1).await;
    let error = in_time(assigned.next()).await.unwrap_err();
    let ConsumeError::Repartitioned { topic: named, known: 3, found: 1 } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(named.as_ref(), topic);
}
