//! A replay publishes events again, each once and in the order of its stream, wherever its process
//! dies, and relays continue behind it without a gap.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use annals_store::{Append, ExpectedVersion, Read, Version};
use annals_testkit::{
    CATEGORY, Dice, Isolation, Must, RawRecord, RelayProcess, Testbed, account, add_partitions,
    check, delete_topic, deposited, deposited_large, read_topic, repetitions, until,
};
use futures_util::TryStreamExt;
use serde_json::Value;

const STREAMS: i64 = 10;
const EVENTS_OF_A_STREAM: i64 = 300;

async fn append(bed: &Testbed, stream: i64, sequences: std::ops::Range<i64>) {
    let append = Append::to(&account(stream), ExpectedVersion::Any, sequences.map(deposited));
    bed.store().append(&append).await.must("append");
}

/// Streams that a real relay has published, and that no relay publishes any more.
async fn published(label: &str) -> (Testbed, RelayProcess) {
    let bed = Testbed::new(label).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    for stream in 0..STREAMS {
        append(&bed, stream, 0..EVENTS_OF_A_STREAM).await;
    }
    follower.until_count(events()).await;
    assert!(relay.terminate().await.success());
    (bed, relay)
}

fn events() -> usize {
    usize::try_from(STREAMS * EVENTS_OF_A_STREAM).must("count")
}

async fn records(bed: &Testbed, topic: &str) -> Vec<RawRecord> {
    read_topic(&bed.environment().kafka, &bed.topic(topic), Isolation::Committed).await
}

/// The versions of each stream, in the order of the topic.
fn versions(records: &[RawRecord]) -> BTreeMap<String, Vec<i64>> {
    let mut versions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in records {
        let stream = record.header("ce_subject").must("have a stream").to_owned();
        let version = record.header("ce_streamversion").and_then(|of| of.parse().ok());
        versions.entry(stream).or_default().push(version.must("have a version"));
    }
    versions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_comes_back_and_the_relay_continues_behind_it_without_a_gap() {
    let (bed, mut relay) = published("replay_deleted").await;
    append(&bed, 0, 300..305).await;
    let brokers = &bed.environment().kafka;
    let before = records(&bed, CATEGORY).await;
    delete_topic(brokers, &bed.topic(CATEGORY)).await;

    let counted = bed.relay().must_run(&["replay", "--category", CATEGORY, "--dry-run"]).await;
    assert!(counted.contains(&format!("{} events would be replayed", events())), "{counted}");
    let (code, audited) = bed.relay().run_for_code(&["audit"]).await;
    assert!(code == 3 && audited.contains(&format!("{} lost", events())), "{audited}");

    replay_while_killed(&bed).await;
    let again = records(&bed, CATEGORY).await;
    let (last, _) = replays(&bed).await;
    let last = last.to_string();
    assert!(again.iter().all(|record| record.header("ce_replayed") == Some(&last)), "{last}");
    let sorted = |records: &[RawRecord]| {
        let key = |of: &RawRecord| {
            let mut headers = of.headers.clone();
            headers.retain(|(name, _)| name != "ce_replayed");
            (of.partition, of.key.clone(), of.value.clone(), of.timestamp_ms, headers)
        };
        let mut all: Vec<_> = records.iter().map(key).collect();
        all.sort();
        all
    };
    assert_eq!(sorted(&before), sorted(&again), "partition, value, time or a header differs");

    relay.restart();
    append(&bed, 1, 300..303).await;
    let follower = bed.follow();
    follower.until_count(events() + 8).await;
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
    let (code, audited) = bed.relay().run_for_code(&["audit"]).await;
    assert_eq!(code, 0, "{audited}");
    let live = records(&bed, CATEGORY).await;
    let live = live.iter().filter(|record| record.header("ce_replayed").is_none()).count();
    assert_eq!(live, 8);
}

/// Replays to the own topic, in processes of which some are killed after a random time, wherever
/// they are: a replay that has ended before the last kill is made again, on another new topic.
async fn replay_while_killed(bed: &Testbed) {
    let mut dice = Dice::of_this_run();
    let mut kills = repetitions(3, 100);
    loop {
        until_replayed_while_killed(bed, &mut dice, &mut kills).await;
        let again = versions(&records(bed, CATEGORY).await);
        assert_eq!(again.values().map(Vec::len).sum::<usize>(), events(), "{kills} kills left");
        for (stream, versions) in again {
            assert!(versions.iter().copied().eq(0..EVENTS_OF_A_STREAM), "{stream}: {versions:?}");
        }
        if kills == 0 {
            return;
        }
        delete_topic(&bed.environment().kafka, &bed.topic(CATEGORY)).await;
    }
}

/// Until one replay has ended; also if its process is killed behind its end.
async fn until_replayed_while_killed(bed: &Testbed, dice: &mut Dice, kills: &mut usize) {
    let begin = ["replay", "--category", CATEGORY, "--reason", "the topic was deleted"];
    let rate = repetitions(500, 1_500).to_string();
    let (ended_before, _) = replays(bed).await;
    loop {
        let (ended, unfinished) = replays(bed).await;
        if ended > ended_before {
            return;
        }
        let command = if unfinished > 0 { &["replay", "--resume"][..] } else { &begin };
        if *kills == 0 {
            let said = bed.relay().must_run(command).await;
            let whole = format!("replay {}: {} events", ended + 1, events());
            assert!(said.contains(&whole), "{said}");
            continue;
        }
        let mut process = bed.relay().start_command(&[command, &["--rate", &rate]].concat());
        let life = Duration::from_millis(dice.below(1_500) as u64);
        match tokio::time::timeout(life, process.wait()).await {
            Ok(status) => assert!(status.must("wait for the replay").success()),
            Err(_) => {
                process.kill().await.must("kill the replay");
                *kills -= 1;
                // Another process waits for the end of its lease.
                let end = sqlx::query(include_str!("sql/end_replay_leases.sql"));
                end.execute(bed.store().pool()).await.must("end a lease");
            }
        }
    }
}

/// The number of replays that have ended, and of those that have not.
async fn replays(bed: &Testbed) -> (i64, i64) {
    let count =
        sqlx::query_as(include_str!("sql/count_replays.sql")).fetch_one(bed.store().pool()).await;
    count.must("count the replays")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replay_is_resumed_and_each_event_comes_once_and_a_second_one_is_refused() {
    let (bed, _relay) = published("replay_killed").await;
    let side = bed.topic("again-side");
    let to_side = ["replay", "--all", "--to", &side, "--reason", "a test"];
    // Other commands have to come before its end.
    let slowly = [&to_side[..], &["--rate", "40"]].concat();
    let mut first = bed.relay().start_command(&slowly);
    // The topic is created by the replay.
    let is_created = async || !annals_testkit::topics(&bed.environment().kafka, &side).is_empty();
    until("the side topic is created", is_created).await;
    let until_replayed = async |count: usize| {
        let is_there = async || records(&bed, "again-side").await.len() >= count;
        until("so many records are replayed", is_there).await;
    };
    until_replayed(100).await;
    let second = bed.relay().instance("b");
    let (code, said) = second.run_for_code(&to_side).await;
    assert!(code == 1 && said.contains("runs in another process"), "{said}");
    let (code, said) = second.run_for_code(&["replay", "--resume"]).await;
    assert!(code == 1 && said.contains("runs in another process"), "{said}");
    first.kill().await.must("kill the replay");
    // Its lease was given by a clock that was a day ahead.
    let ahead = sqlx::query(include_str!("sql/replay_a_day_ahead.sql")).execute(bed.store().pool());
    assert_eq!(ahead.await.must("change a lease").rows_affected(), 1);
    let (code, said) = second.run_for_code(&to_side).await;
    let is_refused = said.contains("not finished") || said.contains("another process");
    assert!(code == 1 && is_refused, "{said}");

    let mut third = bed.relay().start_command(&["replay", "--resume", "--rate", "40"]);
    let so_far = records(&bed, "again-side").await.len();
    until_replayed(so_far + 100).await;
    third.kill().await.must("kill the replay");
    let said = bed.relay().must_run(&["replay", "--resume"]).await;
    assert!(said.contains(&format!("replay 1: {} events", events())), "{said}");
    let side = versions(&records(&bed, "again-side").await);
    assert_eq!(side.len(), 10);
    for (stream, versions) in side {
        assert!(versions.iter().copied().eq(0..EVENTS_OF_A_STREAM), "{stream}: {versions:?}");
    }
    let said = bed.relay().run(&["replay", "--resume"]).await.unwrap_err();
    assert!(said.contains("no replay of this deployment is unfinished"), "{said}");
}

/// The time of the first event of a stream; all events of the stream have it, and those of later
/// streams a later one.
async fn time_of(bed: &Testbed, stream: i64) -> String {
    let read = Read::stream(&account(stream));
    let first = pin!(bed.store().read(read)).try_next().await.must("read a stream");
    first.must("have an event").recorded_at.to_string()
}

/// From the time of a stream up to that of another: the events of two streams.
async fn select_by_times(bed: &Testbed) {
    let (since, before) = (time_of(bed, 2).await, time_of(bed, 4).await);
    let times = ["--since", &since, "--before", &before];
    let side = bed.topic("times-side");
    let counted = ["replay", "--all", "--dry-run", "--json", "--to", &side];
    let counted = bed.relay().must_run(&[&counted[..], &times].concat()).await;
    let counted: Value = serde_json::from_str(&counted).must("read JSON");
    assert_eq!(counted["parts"][0]["events"], 2 * EVENTS_OF_A_STREAM, "{counted}");
    let some = ["replay", "--stream", "account-3", "--stream", "account-4"];
    let reason = ["--to", &side, "--reason", "a test"];
    let slowly = ["--rate", "500", "--json"];
    let said = bed.relay().must_run(&[&some[..], &times, &reason, &slowly].concat()).await;
    let said: Value = serde_json::from_str(&said).must("read JSON");
    let (events, seconds) = (said["events_of_this_run"].as_f64(), said["seconds"].as_f64());
    let seconds = seconds.must("have a duration");
    assert!(events.is_some_and(|events| events / seconds <= 500.0), "{said}");
    let found = versions(&records(bed, "times-side").await);
    assert_eq!(found, [("account-3".to_owned(), (0..EVENTS_OF_A_STREAM).collect())].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_versions_and_positions_are_selected_and_relays_that_publish_are_not_disturbed() {
    let (bed, mut relay) = published("replay_selected").await;
    relay.restart();
    relay.event("publishing").await;
    // Published and truncated: a replay has only the events that are left.
    bed.until_copied().await;
    let before = Version::new(11).must("number");
    let truncates =
        async || bed.store().truncate_stream(&account(4), before, "a test").await.is_ok();
    until("the relay has passed the events", truncates).await;
    let side = bed.topic("some-side");
    let some = [
        "replay",
        "--stream",
        "account-3",
        "--stream",
        "account-4",
        "--from-version",
        "10",
        "--to-version",
        "12",
        "--to",
        &side,
        "--reason",
        "a test",
    ];
    bed.relay().must_run(&some).await;
    let found = versions(&records(&bed, "some-side").await);
    let expected = [("account-3", vec![10, 11, 12]), ("account-4", vec![11, 12])];
    assert_eq!(found, expected.map(|(name, versions)| (name.to_owned(), versions)).into());
    select_by_times(&bed).await;

    let own = ["replay", "--category", CATEGORY, "--reason", "a test"];
    let refused = bed.relay().run(&own).await.unwrap_err();
    assert!(refused.contains("relays of this deployment run (a)"), "{refused}");
    let counted = bed.relay().must_run(&["replay", "--category", CATEGORY, "--dry-run"]).await;
    assert!(counted.contains("nothing was changed"), "{counted}");
    let to_own = ["replay", "--all", "--to", &bed.topic(CATEGORY), "--reason", "a test"];
    let refused = bed.relay().run(&to_own).await.unwrap_err();
    assert!(refused.contains("a category has a topic of this name"), "{refused}");
    let some = ["--beside-relays", "--from-position", "11", "--to-position", "50"];
    bed.relay().must_run(&[&own[..], &some].concat()).await;
    let (code, audited) = bed.relay().run_for_code(&["audit"]).await;
    assert!(code == 0 && audited.contains("40 replayed"), "{audited}");
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_end_at_a_number_of_bytes_and_added_partitions_are_not_used() {
    const BYTES_MAX: usize = 60_000;
    let bed = Testbed::new("replay_pages").await;
    let (brokers, topic) = (&bed.environment().kafka, bed.topic(CATEGORY));
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    let append = Append::to(&account(0), ExpectedVersion::Any, (0..12).map(deposited_large));
    bed.store().append(&append).await.must("append");
    follower.until_count(12).await;
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    let before = records(&bed, CATEGORY).await;
    add_partitions(brokers, &topic, 8).await;

    let bytes = BYTES_MAX.to_string();
    let settings = bed.relay().variable("ANNALS_RELAY__RELAY__BATCH_BYTES_MAX", &bytes);
    settings.must_run(&["replay", "--all", "--reason", "a test"]).await;
    let all = records(&bed, CATEGORY).await;
    assert_eq!(all.len(), 24);
    assert!(all.iter().all(|record| record.partition == before[0].partition));
    let size = before[0].value.as_ref().map_or(0, Vec::len);
    let pages = 12_usize.div_ceil(BYTES_MAX.div_ceil(size));
    let progress = annals_testkit::topics(brokers, &bed.topic("test-replays-"));
    let progress = read_topic(brokers, &progress[0], Isolation::Committed).await;
    assert_eq!(progress.len(), pages, "transactions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runbook_of_a_deleted_topic_ends_it_while_the_relay_runs() {
    let (bed, mut relay) = published("replay_runbook").await;
    relay.restart();
    relay.event("publishing").await;
    delete_topic(&bed.environment().kafka, &bed.topic(CATEGORY)).await;
    append(&bed, 0, 300..301).await;
    relay.event("topic_lost").await;
    relay.quarantines(CATEGORY).await;

    let (code, said) = bed.relay().run_for_code(&["audit"]).await;
    assert!(code == 3 && said.contains(&format!("{} lost", events())), "{said}");
    let counted = bed.relay().must_run(&["replay", "--category", CATEGORY, "--dry-run"]).await;
    assert!(counted.contains(&format!("{} events would be replayed", events())), "{counted}");
    bed.relay().must_run(&["replay", "--category", CATEGORY, "--reason", "topic deleted"]).await;
    bed.relay().must_run(&["quarantine", "retry", CATEGORY]).await;
    relay.event("quarantine_ended").await;
    bed.until_copied().await;
    let (code, said) = bed.relay().run_for_code(&["audit"]).await;
    assert_eq!(code, 0, "{said}");
    // One entry each shard, and each ends by itself.
    until("the quarantine is empty", async || {
        !bed.relay().must_run(&["quarantine", "list"]).await.contains(CATEGORY)
    })
    .await;
    assert!(relay.terminate().await.success());
}
