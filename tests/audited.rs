//! An audit proves that every event is accounted for, and finds each planted fault on a real topic.

use std::collections::BTreeMap;

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    CATEGORY, Isolation, Must, PrivateStack, RawRecord, RelayProcess, RelaySettings, Testbed,
    abort_records, account, configure_topic, create_topic, delete_records, delete_topic, deposited,
    deposited_large, partitions, read_topic, until, write_records,
};
use serde_json::Value;

const STREAMS: i64 = 3;
const EVENTS_OF_A_STREAM: i64 = 6;
const FAULT: i32 = 3;

/// The output of an audit: its exit code, its findings by kind, and its summary.
struct Audited {
    code: i32,
    findings: BTreeMap<String, Vec<Value>>,
    summary: Value,
}

impl Audited {
    fn of(&self, kind: &str) -> &[Value] {
        self.findings.get(kind).map_or(&[], Vec::as_slice)
    }

    fn kinds(&self) -> Vec<(&str, usize)> {
        self.findings.iter().map(|(kind, found)| (kind.as_str(), found.len())).collect()
    }
}

async fn audit(settings: &RelaySettings, flags: &[&str]) -> Audited {
    let (code, said) = settings.run_for_code(&[&["audit", "--json"], flags].concat()).await;
    let mut audited = Audited { code, findings: BTreeMap::new(), summary: Value::Null };
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).must("read a finding");
        match line["finding"].as_str() {
            Some(kind) => audited.findings.entry(kind.to_owned()).or_default().push(line),
            None => audited.summary = line["summary"].clone(),
        }
    }
    assert!(audited.summary.is_object(), "{said}");
    audited
}

async fn append(bed: &Testbed, stream: i64, sequences: std::ops::Range<i64>) {
    let append = Append::to(&account(stream), ExpectedVersion::Any, sequences.map(deposited));
    bed.store().append(&append).await.must("append");
}

/// Some streams that a real relay has published, event by event.
async fn published(label: &str) -> (Testbed, RelayProcess) {
    published_from(Testbed::new(label).await).await
}

async fn published_from(bed: Testbed) -> (Testbed, RelayProcess) {
    let follower = bed.follow();
    let relay = RelayProcess::start(&bed.relay());
    for number in 0..EVENTS_OF_A_STREAM {
        for stream in 0..STREAMS {
            append(&bed, stream, number..number + 1).await;
        }
    }
    follower.until_count(usize::try_from(STREAMS * EVENTS_OF_A_STREAM).must("count")).await;
    bed.until_copied().await;
    (bed, relay)
}

/// Replaces the topic by one with these records.
async fn replace(bed: &Testbed, records: &[RawRecord]) {
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    let count = partitions(brokers, &topic).await;
    delete_topic(brokers, &topic).await;
    create_topic(brokers, &topic, count).await;
    configure_topic(brokers, &topic, "retention.ms", "-1").await;
    write_records(brokers, &topic, records).await;
}

async fn records(bed: &Testbed) -> Vec<RawRecord> {
    read_topic(&bed.environment().kafka, &bed.topic(CATEGORY), Isolation::Committed).await
}

fn place(records: &[RawRecord], stream: &str, version: &str) -> usize {
    let is_it = |record: &RawRecord| {
        record.header("ce_subject") == Some(stream)
            && record.header("ce_streamversion") == Some(version)
    };
    records.iter().position(is_it).must("find the record")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_named_with_its_record_and_the_next_audit_continues_behind_them() {
    // An audit proves nothing while a transaction runs that is older than it, of any database of
    // the server: the tests beside this one have such transactions.
    let stack = PrivateStack::postgres("15").await;
    let (bed, mut relay) =
        published_from(Testbed::on("audit_clean", stack.environment().clone()).await).await;
    let audited = audit(&bed.relay(), &["--list", "all"]).await;
    let all = usize::try_from(STREAMS * EVENTS_OF_A_STREAM).must("count");
    assert_eq!((audited.code, audited.kinds()), (0, vec![("published", all)]));
    let first = &audited.of("published")[0];
    assert_eq!(first["topic"], bed.topic(CATEGORY));
    assert!(first["partition"].is_i64() && first["offset"].is_i64(), "{first}");
    let until = audited.summary["until"].as_i64().must("read the end");
    assert_eq!(audited.summary["proven"], until);

    append(&bed, 0, 6..9).await;
    bed.until_copied().await;
    let next = audit(&bed.relay(), &["--incremental"]).await;
    assert_eq!((next.code, &next.summary["after"]), (0, &until.into()));
    assert_eq!((&next.summary["events"], &next.summary["published"]), (&3.into(), &3.into()));
    assert!(relay.terminate().await.success());

    // The same topic with other offsets is another one.
    let same = records(&bed).await;
    replace(&bed, &same).await;
    let anew = audit(&bed.relay(), &["--incremental"]).await;
    assert!(anew.summary["began_anew"].is_string(), "{}", anew.summary);
    assert_eq!((anew.code, &anew.summary["published"]), (0, &(all + 3).into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_planted_fault_is_found_and_nothing_else() {
    let (bed, mut relay) = published("audit_planted").await;
    assert!(relay.terminate().await.success());
    let mut planted = records(&bed).await;
    let (earlier, later) = (place(&planted, "account-1", "2"), place(&planted, "account-1", "3"));
    planted.swap(earlier, later);
    let changed = place(&planted, "account-2", "1");
    planted[changed]
        .value
        .as_mut()
        .must("have a value")
        .last_mut()
        .must("have a byte")
        .clone_from(&99);
    let moved = place(&planted, "account-2", "5");
    planted[moved].partition = (planted[moved].partition + 1) % 4;
    let again = planted[place(&planted, "account-0", "1")].clone();
    let mut unknown = again.clone();
    for (name, value) in &mut unknown.headers {
        if name == "ce_id" {
            *value = Some(b"01920000-0000-7000-8000-000000000001".to_vec());
        }
    }
    planted.extend([again, unknown]);
    let lost = planted.remove(place(&planted, "account-0", "4"));
    replace(&bed, &planted).await;

    let audited = audit(&bed.relay(), &[]).await;
    let kinds = ["changed", "duplicate", "inversion", "lost", "misplaced", "unknown"];
    assert_eq!(audited.kinds(), kinds.map(|kind| (kind, 1)), "{:?}", audited.findings);
    assert_eq!((audited.code, &audited.summary["proven"]), (FAULT, &Value::Null));
    let found = |kind: &str| {
        let finding = &audited.of(kind)[0];
        (finding["stream"].as_str().map(str::to_owned), finding["version"].as_i64())
    };
    assert_eq!(found("changed"), (Some("account-2".into()), Some(1)));
    assert_eq!(found("duplicate"), (Some("account-0".into()), Some(1)));
    assert_eq!(found("inversion"), (Some("account-1".into()), Some(2)));
    assert_eq!(found("misplaced"), (Some("account-2".into()), Some(5)));
    assert_eq!(found("lost"), (Some("account-0".into()), Some(4)));
    assert_eq!(audited.of("lost")[0]["event_id"].as_str(), lost.header("ce_id"));
    records_of_an_aborted_transaction_are_lost(&bed, &lost).await;
}

/// The partition is as long as it was, and has the record in an aborted transaction.
async fn records_of_an_aborted_transaction_are_lost(bed: &Testbed, lost: &RawRecord) {
    let events = usize::try_from(STREAMS * EVENTS_OF_A_STREAM).must("count");
    // Each event was published in a transaction with a marker of its own.
    let aborted = vec![lost.clone(); 2 * events];
    abort_records(&bed.environment().kafka, &bed.topic(CATEGORY), &aborted).await;
    let audited = audit(&bed.relay(), &[]).await;
    let found = &audited.of("lost")[0];
    assert_eq!((audited.of("lost").len(), &found["cause"]), (1, &"not_in_topic".into()));
    assert_eq!(found["event_id"].as_str(), lost.header("ce_id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_and_a_deleted_topic_are_found_with_their_cause() {
    let (bed, mut relay) = published("audit_deleted").await;
    assert!(relay.terminate().await.success());
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    audit(&bed.relay(), &[]).await;
    let first = records(&bed).await.remove(0);
    delete_records(brokers, &topic, first.partition, first.offset + 1).await;
    let audited = audit(&bed.relay(), &["--incremental"]).await;
    assert_eq!((audited.code, audited.kinds()), (FAULT, vec![("lost", 1)]));
    assert_eq!(audited.of("lost")[0]["cause"], "records_deleted");
    assert_eq!(audited.of("lost")[0]["event_id"].as_str(), first.header("ce_id"));

    delete_topic(brokers, &topic).await;
    let audited = audit(&bed.relay(), &[]).await;
    let all = usize::try_from(STREAMS * EVENTS_OF_A_STREAM).must("count");
    assert_eq!((audited.code, audited.kinds()), (FAULT, vec![("lost", all)]));
    assert!(audited.of("lost").iter().all(|lost| lost["cause"] == "topic_missing"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_a_record_waits_is_quarantined_or_was_skipped_and_the_audit_says_why() {
    let (bed, mut relay) = published("audit_unpublished").await;
    configure_topic(&bed.environment().kafka, &bed.topic(CATEGORY), "max.message.bytes", "3000")
        .await;
    for stream in ["large", "skipped"] {
        let events = [deposited_large(1), deposited(2)];
        let append = Append::to(&account(stream), ExpectedVersion::Any, events);
        bed.store().append(&append).await.must("append");
        relay.quarantines(&format!("account-{stream}")).await;
    }
    let shown = bed.relay().must_run(&["quarantine", "show", "account-skipped"]).await;
    let position = shown.lines().find_map(|line| line.strip_prefix("position    "));
    let position = position.must("read the position").to_owned();
    let skip =
        ["quarantine", "skip", "account-skipped", "--position", &position, "--reason", "a test"];
    bed.relay().must_run(&skip).await;
    relay.event("quarantine_ended").await;
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    append(&bed, 0, 6..8).await;

    let audited = audit(&bed.relay(), &["--list", "unpublished"]).await;
    assert_eq!(audited.code, 0, "{:?}", audited.findings);
    assert_eq!(audited.kinds(), [("quarantined", 2), ("skipped", 1), ("waiting", 2)]);
    let quarantined = &audited.of("quarantined")[0];
    assert_eq!(
        (&quarantined["name"], &quarantined["cause"]),
        (&"account-large".into(), &"record".into())
    );
    assert_eq!(audited.of("skipped")[0]["reason"], "a test");
    assert!(audited.summary["proven"].as_i64() < audited.of("quarantined")[0]["position"].as_i64());
}

/// The versions of a stream's records, in their order, with those that a replay wrote.
fn versions(records: &[RawRecord], stream: &str) -> Vec<(i64, bool)> {
    let of_stream = records.iter().filter(|of| of.header("ce_subject") == Some(stream));
    let version = |of: &RawRecord| of.header("ce_streamversion").and_then(|of| of.parse().ok());
    of_stream
        .map(|of| (version(of).must("have a version"), of.header("ce_replayed").is_some()))
        .collect()
}

const REPAIR: [&str; 3] = ["--repair", "--reason", "a test"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_events_are_published_again_in_the_order_of_their_streams_and_marked() {
    let (bed, mut relay) = published("audit_repair").await;
    let refused = bed.relay().run_for_code(&[&["audit"], &REPAIR[..]].concat()).await;
    assert_eq!(refused.0, 0, "nothing is lost: {}", refused.1);
    let mut planted = records(&bed).await;
    for (stream, version) in
        [("account-0", "1"), ("account-0", "4"), ("account-0", "5"), ("account-1", "5")]
    {
        planted.remove(place(&planted, stream, version));
    }
    replace(&bed, &planted).await;
    let (code, said) = bed.relay().run_for_code(&[&["audit"], &REPAIR[..]].concat()).await;
    assert!(code == 1 && said.contains("relays of this deployment run"), "{said}");
    assert!(relay.terminate().await.success());

    let repaired = audit(&bed.relay(), &REPAIR).await;
    assert_eq!((repaired.code, repaired.kinds()), (0, vec![("lost", 4)]));
    assert_eq!(
        (&repaired.summary["lost"], &repaired.summary["published"]),
        (&0.into(), &18.into())
    );
    // Version 1 of account-0 comes behind versions 2 and 3, which the topic still had.
    assert_eq!(repaired.summary["restored"], 1);
    let (records, old, again) = (records(&bed).await, false, true);
    assert_eq!(
        versions(&records, "account-0"),
        [(0, old), (2, old), (3, old), (1, again), (4, again), (5, again)]
    );
    let of_second = versions(&records, "account-1");
    assert_eq!(of_second.last(), Some(&(5, again)), "{of_second:?}");
    assert_eq!(records.len(), 18);
    let actions = bed.relay().must_run(&["audit", "--incremental"]).await;
    assert!(actions.contains("no fault"), "{actions}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_is_repaired_by_one_of_two_audits_and_beside_no_replay() {
    let (bed, mut relay) = published("audit_repairs").await;
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    bed.until_ends_recorded(&topic, STREAMS * EVENTS_OF_A_STREAM).await;
    assert!(relay.terminate().await.success());
    delete_topic(brokers, &topic).await;
    create_topic(brokers, &topic, 4).await;
    configure_topic(brokers, &topic, "retention.ms", "-1").await;
    let recreated = audit(&bed.relay(), &[]).await;
    let lost = recreated.of("lost").iter();
    let count = lost.filter(|lost| lost["cause"] == "topic_recreated").count();
    assert_eq!(i64::try_from(count).must("count"), STREAMS * EVENTS_OF_A_STREAM);
    let arguments = [&["audit"], &REPAIR[..]].concat();
    let (first, second) = (bed.relay(), bed.relay().instance("c"));
    let replay = ["replay", "--category", CATEGORY, "--rate", "1", "--reason", "a test"];
    let mut slow = bed.relay().start_command(&replay);
    until("a record is replayed", async || !records(&bed).await.is_empty()).await;
    let (code, said) = second.run_for_code(&arguments).await;
    assert!(code == 1 && said.contains("is not finished"), "{said}");
    slow.kill().await.must("kill the replay");
    first.must_run(&["replay", "--abandon"]).await;
    let both = tokio::join!(first.run_for_code(&arguments), second.run_for_code(&arguments));
    assert!(both.0.0 == 0 || both.1.0 == 0, "{both:?}");
    let all = usize::try_from(STREAMS * EVENTS_OF_A_STREAM).must("count");
    let repaired = records(&bed).await;
    assert_eq!(repaired.len(), all, "{both:?}");
    assert!(repaired.iter().all(|record| record.header("ce_replayed").is_some()));
    relay.restart();
    append(&bed, 0, 6..7).await;
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    assert_eq!(audit(&bed.relay(), &[]).await.code, 0);
}
