//! Records come as they were committed: all of them, once, in the order of their partitions.

use std::collections::HashMap;
use std::time::Duration;

use annals_consumer::{
    Consumer, Delivered, FilterDecision, FirstVersion, Offset, RecordLocation, VersionFilter,
};
use annals_testkit::{DEADLINE, Draft, in_time, send};
use rdkafka::producer::Producer;

use crate::bed;
use crate::book;
use crate::events::{OrderEvent, placed};

fn versions_by_stream(records: &[Delivered]) -> HashMap<&str, Vec<i64>> {
    let mut versions: HashMap<&str, Vec<i64>> = HashMap::new();
    for record in records {
        versions.entry(&record.stream).or_default().push(record.version.get());
    }
    versions
}

#[tokio::test]
async fn every_event_comes_once_and_each_stream_in_order() {
    let bed = bed().await;
    let topic = bed.create_topic(4).await;
    bed.write(&topic, &book::orders(&bed, 50, 0..20)).await;

    let records = bed.read_all(&topic).await;
    assert_eq!(records.len(), 1_000);
    let mut next_offsets: HashMap<i32, i64> = HashMap::new();
    for record in &records {
        let next = next_offsets.entry(record.partition).or_default();
        assert_eq!(record.offset.get(), *next, "offsets of a partition come in order");
        *next += 1;
    }
    assert_eq!(next_offsets.len(), 4);
    let versions = versions_by_stream(&records);
    assert_eq!(versions.len(), 50);
    assert!(versions.values().all(|versions| versions.iter().copied().eq(0..20)));
}

#[tokio::test]
async fn event_comes_back_as_it_was_written() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    let event = placed(4_711);
    let draft = bed
        .draft("order-1", 0, &event)
        .header("ce_correlationid", "c-1")
        .header("ce_causationid", "c-0")
        .header("tenant", "north");
    bed.write(&topic, std::slice::from_ref(&draft)).await;

    let records = bed.read_all(&topic).await;
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(record.decode::<OrderEvent>(&bed.schemas()).await.unwrap(), event);
    assert_eq!(record.event_type, "OrderPlaced");
    assert_eq!(record.correlation_id.as_deref(), Some("c-1"));
    assert_eq!(record.causation_id.as_deref(), Some("c-0"));
    assert_eq!(record.headers, [("tenant".to_owned(), b"north".to_vec())]);
    let header = |name: &str| draft.headers.iter().find(|header| header.0 == name).unwrap();
    assert_eq!(header("ce_id").1, record.event_id.to_string());
    assert_eq!(header("ce_time").1, record.recorded_at.to_string());
    assert_eq!(record.location().to_string(), format!("{topic}[0]@0"));
}

#[tokio::test]
async fn aborted_transaction_is_invisible_and_holds_nothing_up() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    let producer = bed.transactional_producer();
    let committed = |version| bed.draft("order-1", version, &placed(version));
    let aborted = |version| bed.draft("order-aborted", version, &placed(version));

    producer.begin_transaction().unwrap();
    send(&producer, &topic, &[committed(0), committed(1)]).await;
    producer.commit_transaction(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, &topic, &[aborted(0), aborted(1)]).await;
    producer.abort_transaction(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, &topic, &[committed(2)]).await;
    producer.commit_transaction(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, &topic, &[aborted(2)]).await;
    producer.abort_transaction(DEADLINE).unwrap();

    let records = bed.read_all(&topic).await;
    let expected = HashMap::from([("order-1", vec![0, 1, 2])]);
    assert_eq!(versions_by_stream(&records), expected);
}

#[tokio::test]
async fn end_lies_behind_a_transaction_that_is_still_open() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    let producer = bed.transactional_producer();
    bed.write(&topic, &[bed.draft("order-1", 0, &placed(1))]).await;
    producer.begin_transaction().unwrap();
    send(&producer, &topic, &[bed.draft("order-2", 0, &placed(2))]).await;

    let connect = Consumer::connect(bed.settings());
    let mut consumer = connect.read_to_end(&[&topic]).await.unwrap();
    assert_eq!(in_time(consumer.next()).await.unwrap().unwrap().stream, "order-1");
    let early = tokio::time::timeout(std::time::Duration::from_secs(1), consumer.next()).await;
    assert!(early.is_err(), "the end came before the open transaction: {early:?}");
    producer.commit_transaction(DEADLINE).unwrap();
    assert_eq!(in_time(consumer.next()).await.unwrap().unwrap().stream, "order-2");
    assert_eq!(in_time(consumer.next()).await.unwrap(), None);
}

#[tokio::test]
async fn records_written_after_the_end_was_fixed_are_left_out() {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    bed.write(&topic, &book::orders(&bed, 10, 0..1)).await;
    let connect = Consumer::connect(bed.settings());
    let mut consumer = connect.read_to_end(&[&topic]).await.unwrap();
    bed.write(&topic, &book::orders(&bed, 10, 1..5)).await;
    assert_eq!(in_time(consumer.read_remaining()).await.unwrap().len(), 10);
}

#[tokio::test]
async fn empty_and_missing_topics_have_an_end_too() {
    let bed = bed().await;
    let topic = bed.create_topic(3).await;
    let missing = bed.topic("missing");
    let connect = Consumer::connect(bed.settings());
    let mut consumer = in_time(connect.read_to_end(&[&topic, &missing])).await.unwrap();
    assert_eq!(in_time(consumer.next()).await.unwrap(), None);
}

#[tokio::test]
async fn reading_starts_at_the_offset_asked_for() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    let drafts: Vec<Draft> = (0..10).map(|v| bed.draft("order-1", v, &placed(v))).collect();
    bed.write(&topic, &drafts).await;
    let start = RecordLocation {
        topic: topic.as_str().into(),
        partition: 0,
        offset: Offset::new(7).unwrap(),
    };
    let mut consumer = Consumer::connect(bed.settings()).assign_from(&[start]).unwrap();
    for version in 7..10 {
        let record = in_time(consumer.next()).await.unwrap().unwrap();
        assert_eq!((record.version.get(), record.offset.get()), (version, version));
    }
}

#[tokio::test]
async fn group_goes_on_behind_what_it_committed() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    let drafts: Vec<Draft> = (0..5).map(|v| bed.draft("order-1", v, &placed(v))).collect();
    bed.write(&topic, &drafts).await;

    let connect = Consumer::connect(bed.settings());
    let mut first = connect.clone().subscribe(&bed.name, &[&topic]).unwrap();
    for _ in 0..2 {
        in_time(first.next()).await.unwrap();
    }
    let third = in_time(first.next()).await.unwrap().unwrap();
    first.commit(&third).await.unwrap();
    in_time(first.next()).await.unwrap();
    in_time(first.close()).await;

    let mut second = connect.subscribe(&bed.name, &[&topic]).unwrap();
    let record = in_time(second.next()).await.unwrap().unwrap();
    assert_eq!(record.version.get(), 3, "only what was committed is done with");
    in_time(second.close()).await;
}

#[tokio::test]
async fn filter_forgets_what_another_member_has_processed() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    let draft = |version| bed.draft("order-1", version, &placed(version));
    bed.write(&topic, &[draft(0), draft(1)]).await;
    let connect = Consumer::connect(bed.settings());
    let mut first = connect.clone().subscribe(&bed.name, &[&topic]).unwrap();
    let mut filter = VersionFilter::new(FirstVersion::Any);
    for _ in 0..2 {
        let record = in_time(first.next()).await.unwrap().unwrap();
        assert_eq!(filter.check_delivered(&record), Ok(FilterDecision::Apply));
        first.commit(&record).await.unwrap();
    }
    // With a second member, and one partition, one of both has it. The first one polls on.
    let second = connect.subscribe(&bed.name, &[&topic]).unwrap();
    let (processed, mut seen) = tokio::sync::watch::channel(0);
    let taking = tokio::spawn(take_all(second, processed));
    let mut revoked = Vec::new();
    while revoked.is_empty() {
        let _idle = tokio::time::timeout(Duration::from_millis(100), first.next()).await;
        revoked = first.take_revoked();
    }
    for (topic, partition) in &revoked {
        assert_eq!(filter.last("order-1").map(|(version, _)| version.get()), Some(1));
        filter.forget_partition(topic, *partition);
    }
    assert_eq!(filter.last("order-1"), None);
    seen.borrow_and_update();
    in_time(first.close()).await;
    bed.write(&topic, &[draft(2)]).await;
    in_time(seen.wait_for(|records| *records > 0)).await.unwrap();
    taking.abort();
}

async fn take_all(mut member: Consumer, processed: tokio::sync::watch::Sender<usize>) {
    while let Ok(Some(_record)) = member.next().await {
        processed.send_modify(|records| *records += 1);
    }
}
