//! A damaged event quarantines its stream and nothing else; readers receive its position, after
//! every event before it.

use std::pin::pin;

use annals_store::{Append, Checkpoint, Error, ExpectedVersion, Follow, Position, Read, Version};
use annals_testkit::{
    CATEGORY, DEADLINE, Must, RelayProcess, Testbed, account, administer, deposited,
};
use futures_util::TryStreamExt;
use uuid::Uuid;

/// Changes that no append makes, in one column each.
#[derive(Debug, Clone, Copy, Default)]
struct Damage {
    headers: Option<&'static str>,
    metadata: Option<&'static str>,
    recorded_at: Option<&'static str>,
    fingerprint: Option<i64>,
}

const NOTHING: Damage =
    Damage { headers: None, metadata: None, recorded_at: None, fingerprint: None };
const LATER_FIELD: &str = r#"{"actor":"ann","later_field":{"n":[1,null]}}"#;
const UNKNOWN: i64 = 4711;
const WRONG: i64 = 4712;

/// Each with the cause of its quarantine, and a part of the reason.
const DAMAGES: [(Damage, &str, &str); 9] = [
    (Damage { headers: Some(r#"{"n":1}"#), ..NOTHING }, "event", "headers"),
    (Damage { headers: Some(r#"{"n":null}"#), ..NOTHING }, "event", "headers"),
    (Damage { headers: Some("null"), ..NOTHING }, "event", "headers"),
    (Damage { metadata: Some("7"), ..NOTHING }, "event", "metadata"),
    (Damage { metadata: Some(r#"{"correlation_id":"x"}"#), ..NOTHING }, "event", "metadata"),
    (Damage { recorded_at: Some("infinity"), ..NOTHING }, "event", "recorded_at"),
    (Damage { recorded_at: Some("20000-01-01"), ..NOTHING }, "event", "recorded_at"),
    (Damage { fingerprint: Some(UNKNOWN), ..NOTHING }, "event", "not registered"),
    (Damage { fingerprint: Some(WRONG), ..NOTHING }, "event", "not an Avro definition"),
];

async fn append(bed: &Testbed, stream: &str, sequence: i64) -> Uuid {
    let event = deposited(sequence);
    let id = event.id().get();
    let append = Append::to(&account(stream), ExpectedVersion::Any, [event]);
    bed.store().append(&append).await.must("append");
    id
}

async fn damage(bed: &Testbed, id: Uuid, damage: Damage) {
    let mut change = bed.store().pool().begin().await.must("begin");
    administer(&mut change).await;
    sqlx::query(include_str!("sql/damage.sql"))
        .bind(id)
        .bind(damage.headers)
        .bind(damage.metadata)
        .bind(damage.recorded_at)
        .bind(damage.fingerprint)
        .execute(&mut *change)
        .await
        .must("damage an event");
    change.commit().await.must("commit");
}

async fn plant_wrong_schema(bed: &Testbed) {
    let unchecked = sqlx::query(include_str!("sql/drop_schema_checks.sql"));
    unchecked.execute(bed.store().pool()).await.must("drop the checks of schemas");
    let planted = sqlx::query(include_str!("sql/wrong_schema.sql")).bind(WRONG);
    planted.execute(bed.store().pool()).await.must("plant a wrong schema");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_cannot_be_read_holds_its_stream_and_everything_else_flows() {
    let bed = Testbed::new("unreadable").await;
    plant_wrong_schema(&bed).await;
    let follower = bed.follow();
    let mut ids = Vec::new();
    for (number, (of, _, _)) in DAMAGES.into_iter().enumerate() {
        let stream = format!("bad{number}");
        let id = append(&bed, &stream, 1).await;
        damage(&bed, id, of).await;
        append(&bed, &stream, 2).await;
        let good = append(&bed, "good", 3).await;
        if number == 0 {
            // What a later version of the service writes is no damage.
            damage(&bed, good, Damage { metadata: Some(LATER_FIELD), ..NOTHING }).await;
        }
        ids.push(id);
    }
    let mut relay = RelayProcess::start(&bed.relay());
    follower.until_count(DAMAGES.len()).await;
    assert!(follower.seen().iter().all(|event| event.stream == "account-good"));
    let settings = bed.relay();
    let list = settings.run(&["quarantine", "list"]).await.unwrap();
    for (number, (_, cause, reason)) in DAMAGES.into_iter().enumerate() {
        let name = format!("account-bad{number} ");
        let line = list.lines().find(|line| line.contains(&name)).must("find the quarantine entry");
        assert!(line.contains(&format!(" {cause} ")) && line.contains(reason), "{line}");
        let stream = name.trim();
        let shown = settings.run(&["quarantine", "show", stream]).await.unwrap();
        assert!(shown.contains("behind it   1 events"), "{shown}");
        if number % 2 == 1 {
            let position = shown.lines().find_map(|line| line.strip_prefix("position"));
            let position = position.must("find the position").trim();
            let skip = ["quarantine", "skip", stream, "--position", position, "--reason", "a test"];
            settings.run(&skip).await.unwrap();
        }
    }
    // A repaired event is published after all: the first, with the headers of an event without any.
    damage(&bed, ids[0], Damage { headers: Some("{}"), ..NOTHING }).await;
    settings.run(&["quarantine", "retry", "account-bad0"]).await.unwrap();
    let skipped = DAMAGES.len() / 2;
    follower.until_count(DAMAGES.len() + skipped + 2).await;
    let mended = follower.seen().into_iter().filter(|event| event.stream == "account-bad0");
    assert_eq!(mended.map(|event| event.version.get()).collect::<Vec<_>>(), [0, 1]);
    assert!(relay.terminate().await.success());
}

/// The types of a category share one schema: of its definitions, an event needs its own and those
/// before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_shared_layout_a_definition_that_cannot_be_read_holds_the_streams_with_its_events() {
    let bed = Testbed::new("unreadable_shared").await;
    append(&bed, "good", 1).await;
    plant_wrong_schema(&bed).await;
    let id = append(&bed, "bad", 1).await;
    damage(&bed, id, Damage { fingerprint: Some(WRONG), ..NOTHING }).await;
    append(&bed, "good", 2).await;
    let layouts = format!("{{ {CATEGORY} = \"union\" }}");
    let settings = bed.relay().variable("ANNALS_RELAY__TOPICS__LAYOUTS", &layouts);
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&settings);
    follower.until_count(2).await;
    relay.quarantines_for("event", "account-bad").await;
    assert!(follower.seen().iter().all(|event| event.stream == "account-good"));
    assert_eq!(relay.times("quarantined"), 1);
    assert!(relay.terminate().await.success());
}

#[tokio::test]
async fn a_reader_and_a_follower_are_told_which_event_cannot_be_read_and_can_go_past_it() {
    let bed = Testbed::new("unreadable_read").await;
    plant_wrong_schema(&bed).await;
    for (number, (of, _, reason)) in DAMAGES.into_iter().enumerate() {
        let name = format!("bad{number}");
        append(&bed, &name, 0).await;
        let id = append(&bed, &name, 1).await;
        append(&bed, &name, 2).await;
        damage(&bed, id, of).await;
        let mut read = pin!(bed.store().read(Read::stream(&account(&name))));
        let before = read.try_next().await.must("read").must("read an event");
        assert_eq!(before.version.get(), 0);
        let (version, _) = told(read.try_next().await.unwrap_err(), reason);
        assert_eq!(version, 1);
        let behind = Read::stream(&account(&name)).from(Version::new(2).must("a version"));
        let behind: Vec<_> = bed.store().read(behind).try_collect().await.must("read behind it");
        assert_eq!(behind.len(), 1);
    }
    let (mut passed, mut checkpoint) = (Vec::<Position>::new(), None);
    let mut seen = 0;
    while seen < 2 * DAMAGES.len() {
        let follow = Follow::all().skipping(passed.iter().copied());
        let follow = match checkpoint.clone() {
            Some(checkpoint) => follow.after(checkpoint),
            None => follow,
        };
        let (checkpoints, unreadable) = followed(&bed, follow, 2 * DAMAGES.len() - seen).await;
        seen += checkpoints.len();
        checkpoint = checkpoints.last().cloned().or(checkpoint);
        passed.extend(unreadable);
    }
    assert_eq!(passed.len(), DAMAGES.len());
}

/// The checkpoints of at most so many events, up to one that cannot be read, and its position.
async fn followed(
    bed: &Testbed,
    follow: Follow,
    most: usize,
) -> (Vec<Checkpoint>, Option<Position>) {
    let (mut log, mut checkpoints) = (pin!(bed.store().follow(follow)), Vec::new());
    while checkpoints.len() < most {
        let next = tokio::time::timeout(DEADLINE, log.try_next()).await.must("follow in time");
        match next {
            Ok(followed) => checkpoints.push(followed.must("follow for ever").checkpoint),
            Err(error) => return (checkpoints, Some(told(error, "").1)),
        }
    }
    (checkpoints, None)
}

/// Version and position of the event that cannot be read.
fn told(error: Error, why: &str) -> (i64, Position) {
    assert!(!error.is_retryable());
    match error {
        Error::UnreadableEvent { version, position, reason, .. } => {
            assert!(reason.contains(why), "{reason}");
            (version.get(), position)
        }
        other => panic!("{other}"),
    }
}
