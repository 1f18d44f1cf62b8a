//! The checker catches planted faults: on a real topic, read back by the consumer that the other
//! tests use.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    CATEGORY, History, Isolation, Must, RawRecord, RelayProcess, Testbed, Violation, account,
    check, consume, create_topic, deposited, partitions, read_topic, write_records,
};

const STREAMS: i64 = 3;
const EVENTS_OF_A_STREAM: i64 = 5;

/// A run without faults: events that a real relay published.
async fn clean_run(label: &str) -> (Testbed, Vec<RawRecord>) {
    let bed = Testbed::new(label).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    for number in 0..EVENTS_OF_A_STREAM {
        for stream in 0..STREAMS {
            let append = Append::to(&account(stream), ExpectedVersion::Any, [deposited(number)]);
            bed.store().append(&append).await.must("append");
        }
    }
    follower.until_count(usize::try_from(STREAMS * EVENTS_OF_A_STREAM).unwrap()).await;
    assert!(relay.terminate().await.success());
    let topic = bed.topic(CATEGORY);
    let records = read_topic(&bed.environment().kafka, &topic, Isolation::Committed).await;
    (bed, records)
}

/// The checker's findings if the run's topic is this one.
async fn verdict(bed: &Testbed, records: &[RawRecord]) -> Vec<Violation> {
    let brokers = &bed.environment().kafka;
    let doctored = bed.topic("doctored");
    create_topic(brokers, &doctored, partitions(brokers, &bed.topic(CATEGORY)).await).await;
    write_records(brokers, &doctored, records).await;
    let consumed = consume(brokers, &[&doctored]).await;
    assert_eq!(consumed.len(), records.len());
    check(&History { attempts: Vec::new(), recorded: bed.recorded().await, consumed })
}

/// The index of a version of the first stream among the records.
fn place(records: &[RawRecord], version: &str) -> usize {
    let is_it = |record: &RawRecord| {
        record.header("ce_subject") == Some("account-0")
            && record.header("ce_streamversion") == Some(version)
    };
    records.iter().position(is_it).must("find the record")
}

#[tokio::test]
async fn the_same_records_on_another_topic_pass() {
    let (bed, records) = clean_run("plant_nothing").await;
    assert_eq!(verdict(&bed, &records).await, []);
}

#[tokio::test]
async fn a_record_that_is_missing_is_caught() {
    let (bed, mut records) = clean_run("plant_loss").await;
    let lost = records.remove(place(&records, "2"));
    let id = lost.header("ce_id").and_then(|id| id.parse().ok()).must("read the event's id");
    let stream = "account-0".to_owned();
    let gap = Violation::Gap { stream: stream.clone(), version: 2 };
    assert_eq!(verdict(&bed, &records).await, [Violation::Lost { id, stream, version: 2 }, gap]);
}

#[tokio::test]
async fn a_record_that_comes_twice_is_caught() {
    let (bed, mut records) = clean_run("plant_duplicate").await;
    let again = records[place(&records, "2")].clone();
    records.push(again);
    let found = verdict(&bed, &records).await;
    assert!(matches!(found.as_slice(), [Violation::Duplicate { .. }]), "{found:?}");
}

#[tokio::test]
async fn two_records_in_the_wrong_order_are_caught() {
    let (bed, mut records) = clean_run("plant_inversion").await;
    let (earlier, later) = (place(&records, "2"), place(&records, "3"));
    records.swap(earlier, later);
    let found = verdict(&bed, &records).await;
    let [Violation::Inversion { stream, version: 2, after: 3, .. }] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(stream, "account-0");
}

#[tokio::test]
async fn a_stream_that_changes_its_partition_is_caught() {
    let (bed, mut records) = clean_run("plant_split").await;
    let moved = place(&records, "4");
    records[moved].partition = (records[moved].partition + 1) % 2;
    let found = verdict(&bed, &records).await;
    assert!(matches!(found.as_slice(), [Violation::SplitStream { .. }]), "{found:?}");
}

#[tokio::test]
async fn an_event_that_is_passed_over_is_caught_and_so_is_one_that_was_never_recorded() {
    let bed = Testbed::new("plant_in_tables").await;
    let (unpublished, unrecorded) = (deposited(0), deposited(1));
    let ids = [unpublished.id().get(), unrecorded.id().get()];
    let follower = bed.follow();
    for event in [deposited(2), unpublished] {
        let append = Append::to(&account(0), ExpectedVersion::Any, [event]);
        bed.store().append(&append).await.must("append");
    }
    let pass_over = sqlx::query(include_str!("sql/pass_over.sql")).bind(ids[0]);
    let pass_over = pass_over.bind(format!("test@{}", bed.topic_prefix()));
    let planted = pass_over.execute(bed.store().pool()).await.must("plant a fault");
    assert_eq!(planted.rows_affected(), 1);
    let _relay = RelayProcess::start(&bed.relay());
    follower.until_count(1).await;
    let append = Append::to(&account(0), ExpectedVersion::Any, [unrecorded]);
    bed.store().append(&append).await.must("append");
    follower.until_count(2).await;

    let mut history = bed.history(Vec::new()).await;
    history.recorded.retain(|event| event.id != ids[1]);
    let found = check(&history);
    let lost =
        |violation: &Violation| matches!(violation, Violation::Lost { id, .. } if *id == ids[0]);
    let ghost =
        |violation: &Violation| matches!(violation, Violation::Ghost { id, .. } if *id == ids[1]);
    assert!(found.iter().any(lost) && found.iter().any(ghost), "{found:?}");
}
