//! A follower of the log receives each event once, the events of each stream in version order, from
//! the beginning of history into live, with any open transactions.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_store::{
    Append, Category, Checkpoint, Error, ExpectedVersion, Follow, Position, Read, RecordedEvent,
    Store, StoreOptions, Version,
};
use annals_testkit::{
    CATEGORY, Consumed, DEADLINE, Dice, FaultyLink, History, Load, LoadOptions, Must, Pace,
    Testbed, Violation, account, check, closed, deposited, execute_at, opened, repetitions,
};
use futures_util::TryStreamExt;
use sqlx::Row;
use tokio::sync::watch;

/// Maximum number of events from one restart of a follower to the next: often within a page,
/// sometimes over several.
const EVENTS_TO_A_RESTART_MAX: usize = 1_200;
const LOAD: LoadOptions =
    LoadOptions { writers: 4, streams: 10, ahead_events_max: 5_000, pace: Pace::Full };

fn consumed(event: &RecordedEvent, number: usize) -> Consumed {
    Consumed {
        id: event.id.get(),
        stream: event.stream.to_string(),
        version: event.version.get(),
        payload: event.payload.clone(),
        topic: "log".to_owned(),
        partition: 0,
        offset: i64::try_from(number).unwrap(),
    }
}

async fn append(store: &Store, id: &str, sequences: std::ops::Range<i64>) {
    let append = Append::to(&account(id), ExpectedVersion::Any, sequences.map(deposited));
    store.append(&append).await.must("append");
}

/// The next so many events.
async fn take(
    store: &Store,
    follow: Follow,
    events: usize,
) -> (Vec<RecordedEvent>, Option<Checkpoint>) {
    let mut log = pin!(store.follow(follow));
    let (mut taken, mut checkpoint) = (Vec::new(), None);
    while taken.len() < events {
        let next = tokio::time::timeout(DEADLINE, log.try_next()).await.must("wait for an event");
        let next = next.must("follow").must("follow for ever");
        taken.push(next.event);
        checkpoint = Some(next.checkpoint);
    }
    (taken, checkpoint)
}

/// A follower that is ended again and again, and continues from its saved checkpoint.
struct Restarted {
    seen: Arc<Mutex<Vec<Consumed>>>,
    count: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Restarted {
    fn start(store: &Store, follow: Follow, dice: Dice) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sender, count) = watch::channel(0);
        let task = tokio::spawn(follow_again_and_again(
            store.clone(),
            follow,
            dice,
            Arc::clone(&seen),
            sender,
        ));
        Self { seen, count, task }
    }

    async fn end(mut self, events: usize) -> Vec<Consumed> {
        let all = self.count.wait_for(|count| *count >= events);
        // The checker reports missing events.
        drop(tokio::time::timeout(DEADLINE, all).await);
        self.task.abort();
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn follow_again_and_again(
    store: Store,
    follow: Follow,
    mut dice: Dice,
    seen: Arc<Mutex<Vec<Consumed>>>,
    count: watch::Sender<usize>,
) {
    let mut written: Option<String> = None;
    loop {
        let mut from = follow.clone();
        if let Some(written) = &written {
            from = from.after(serde_json::from_str(written).must("read a checkpoint"));
        }
        let mut log = pin!(store.follow(from));
        for _ in 0..=dice.below(EVENTS_TO_A_RESTART_MAX) {
            let next = log.try_next().await.must("follow").must("follow for ever");
            let mut seen = seen.lock().unwrap();
            let number = seen.len();
            seen.push(consumed(&next.event, number));
            count.send_replace(number + 1);
            written = Some(serde_json::to_string(&next.checkpoint).must("write a checkpoint"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_restart_under_load_get_each_event_once_and_in_order() {
    let bed = Testbed::new("followers").await;
    let mut dice = Dice::of_this_run();
    let category = Category::new(CATEGORY).unwrap();
    let of = [Follow::all(), Follow::all(), Follow::category(&category)];
    let followers: Vec<_> =
        of.into_iter().map(|follow| Restarted::start(bed.store(), follow, dice.split())).collect();
    let load = Load::start(bed.store(), &LOAD, &mut dice, &followers[0].count);
    load.until_acknowledged(repetitions(2_000, 5_000)).await;
    let attempts = load.stop().await;
    let recorded = bed.recorded().await;
    for follower in followers {
        let consumed = follower.end(recorded.len()).await;
        let history = History { attempts: attempts.clone(), recorded: recorded.clone(), consumed };
        assert_eq!(check(&history), []);
    }
}

#[tokio::test]
async fn from_the_beginning_of_history_into_live_without_a_gap_also_where_the_outbox_is_gone() {
    let bed = Testbed::new("history").await;
    append(bed.store(), "a", 0..1_300).await;
    append(bed.store(), "b", 0..10).await;
    // As after the drop of the published partitions.
    sqlx::raw_sql(include_str!("sql/forget_outbox.sql"))
        .execute(bed.store().pool())
        .await
        .must("forget the outbox");
    let (history, checkpoint) = take(bed.store(), Follow::all(), 1_310).await;
    append(bed.store(), "a", 1_300..1_302).await;
    let follow = Follow::all().after(checkpoint.unwrap());
    let (live, _) = take(bed.store(), follow, 2).await;
    let consumed = history.iter().chain(&live).enumerate();
    let consumed: Vec<_> = consumed.map(|(number, event)| self::consumed(event, number)).collect();
    let history = History { attempts: Vec::new(), recorded: bed.recorded().await, consumed };
    assert_eq!(check(&history), []);
}

#[tokio::test]
async fn a_transaction_left_open_delays_only_its_own_events_and_loses_none() {
    let bed = Testbed::new("follow_open").await;
    let mut open = bed.store().pool().begin().await.must("begin");
    let late = Append::to(&account("late"), ExpectedVersion::NoStream, [opened("ann"), closed()]);
    bed.store().append_in(&mut open, &late).await.must("append");
    append(bed.store(), "a", 0..3).await;

    let mut log = pin!(bed.store().follow(Follow::all()));
    for _ in 0..3 {
        let next = log.try_next().await.must("follow").must("follow for ever");
        assert_eq!(next.event.stream, account("a"));
    }
    // The classical follower remembers the highest position, and so skips events that commit below
    // it.
    let highest = sqlx::query(include_str!("sql/naive_follow.sql")).bind(0_i64);
    let rows = highest.fetch_all(bed.store().pool()).await.must("follow by position");
    let last: i64 = rows.last().unwrap().get("position");
    open.commit().await.must("commit");
    let naive = sqlx::query(include_str!("sql/naive_follow.sql")).bind(last);
    let naive = naive.fetch_all(bed.store().pool()).await.must("follow by position");
    let seen_by_naive: Vec<_> = rows
        .iter()
        .chain(&naive)
        .enumerate()
        .map(|(number, row)| Consumed {
            id: row.get("event_id"),
            stream: row.get("stream"),
            version: row.get("version"),
            payload: row.get("payload"),
            topic: "log".to_owned(),
            partition: 0,
            offset: i64::try_from(number).unwrap(),
        })
        .collect();
    let recorded = bed.recorded().await;
    let violations = check(&History {
        attempts: Vec::new(),
        recorded: recorded.clone(),
        consumed: seen_by_naive,
    });
    let lost = violations.iter().filter(|found| matches!(found, Violation::Lost { .. })).count();
    assert_eq!(lost, 2, "the checker must find the lost events: {violations:?}");

    for version in 0..2 {
        let next = log.try_next().await.must("follow").must("follow for ever");
        assert_eq!((next.event.stream, next.event.version.get()), (account("late"), version));
    }
}

#[tokio::test]
async fn an_idle_follower_is_woken_by_an_append_in_another_process_and_by_one_in_a_transaction() {
    let bed = Testbed::new("woken").await;
    append(bed.store(), "a", 0..1).await;
    let (_, checkpoint) = take(bed.store(), Follow::all(), 1).await;
    // Without a notification no event would come before the test's deadline.
    let follow = || Follow::all().poll_idle_max(10 * DEADLINE);
    let mut log = pin!(bed.store().follow(follow().after(checkpoint.unwrap())));
    let asleep = tokio::time::timeout(Duration::from_secs(2), log.try_next()).await;
    assert!(asleep.is_err(), "there was nothing to come");
    let other = bed.another_store().await;
    append(&other, "a", 1..2).await;
    let next = tokio::time::timeout(DEADLINE, log.try_next()).await.must("be woken by NOTIFY");
    assert_eq!(next.must("follow").unwrap().event.version.get(), 1);

    let mut transaction = other.pool().begin().await.must("begin");
    let inside = Append::to(&account("a"), ExpectedVersion::Any, [deposited(2)]);
    other.append_in(&mut transaction, &inside).await.must("append");
    transaction.commit().await.must("commit");
    other.notify_followers();
    let next = tokio::time::timeout(DEADLINE, log.try_next()).await.must("be woken by NOTIFY");
    assert_eq!(next.must("follow").unwrap().event.version.get(), 2);
}

#[tokio::test]
async fn a_follower_finds_what_no_hint_told_it_of() {
    let bed = Testbed::new("no_hint").await;
    let options = annals_store::StoreOptions::default().without_notifications();
    let silent = options.connect(&bed.database_url()).await.must("connect");
    let mut log = pin!(bed.store().follow(Follow::all()));
    append(&silent, "a", 0..1).await;
    assert!(log.try_next().await.must("follow").is_some());
    append(&silent, "a", 1..2).await;
    let next = tokio::time::timeout(DEADLINE, log.try_next()).await.must("look by itself");
    assert_eq!(next.must("follow").unwrap().event.version.get(), 1);
}

#[tokio::test]
async fn only_the_types_and_the_category_asked_for_come() {
    let bed = Testbed::new("types").await;
    let store = bed.store();
    for id in ["a", "b"] {
        let all = Append::to(
            &account(id),
            ExpectedVersion::NoStream,
            [opened("ann"), deposited(1), closed()],
        );
        store.append(&all).await.must("append");
    }
    let follow = Follow::all().of_types(["AccountOpened", "AccountClosed"]);
    let (events, checkpoint) = take(store, follow, 4).await;
    let types: Vec<_> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["AccountOpened", "AccountClosed", "AccountOpened", "AccountClosed"]);

    let ledger = annals_store::StreamName::new("ledger-1").unwrap();
    append(store, "a", 2..3).await;
    store
        .append(&Append::to(&ledger, ExpectedVersion::Any, [deposited(1).for_category("ledger")]))
        .await
        .must("append");
    let category = Category::new("ledger").unwrap();
    let follow = Follow::category(&category).after(checkpoint.unwrap());
    let (events, _) = take(store, follow, 1).await;
    assert_eq!(events[0].stream, ledger);
}

#[tokio::test]
async fn a_follower_that_begins_at_the_end_gets_only_what_comes_later() {
    let bed = Testbed::new("from_end").await;
    append(bed.store(), "a", 0..5).await;
    let end = bed.store().end_of_log().await.must("find the end");
    append(bed.store(), "a", 5..6).await;
    let (events, _) = take(bed.store(), Follow::all().after(end), 1).await;
    assert_eq!(events[0].version.get(), 5);
}

#[tokio::test]
async fn one_stream_is_followed_from_a_version_into_live() {
    let bed = Testbed::new("one_stream").await;
    append(bed.store(), "a", 0..700).await;
    append(bed.store(), "b", 0..3).await;
    let mut log = pin!(bed.store().follow_stream(&account("a"), Version::new(10).unwrap()));
    for version in 10..700 {
        let event = log.try_next().await.must("follow").must("follow for ever");
        assert_eq!((event.stream, event.version.get()), (account("a"), version));
    }
    append(bed.store(), "b", 3..4).await;
    append(bed.store(), "a", 700..702).await;
    for version in 700..702 {
        let next = tokio::time::timeout(DEADLINE, log.try_next()).await.must("wait for an event");
        assert_eq!(next.must("follow").unwrap().version.get(), version);
    }
}

#[tokio::test]
async fn a_checkpoint_of_another_store_or_format_is_refused_and_says_why() {
    let bed = Testbed::new("other_store").await;
    append(bed.store(), "a", 0..1).await;
    let end = bed.store().end_of_log().await.must("find the end");
    let written = serde_json::to_value(&end).unwrap();
    let (mut other, value) = (written.clone(), "018f0000-0000-7000-8000-000000000000");
    other["history"]["store_id"] = value.into();
    let follow = Follow::all().after(serde_json::from_value(other).unwrap());
    let refused = pin!(bed.store().follow(follow)).try_next().await.unwrap_err();
    assert!(matches!(refused, Error::OtherStore { .. }), "{refused:?}");
    assert!(refused.to_string().contains(value), "{refused}");
    assert!(!refused.is_retryable());
    let mut parted = written.clone();
    parted["since"]["event_id"] = value.into();
    let follow = Follow::all().after(serde_json::from_value(parted).unwrap());
    let refused = pin!(bed.store().follow(follow)).try_next().await.unwrap_err();
    assert!(matches!(refused, Error::OtherHistory { .. }), "another event is there: {refused:?}");
    let mut later = written;
    later["format"] = 2.into();
    let refused = serde_json::from_value::<Checkpoint>(later).unwrap_err();
    assert!(refused.to_string().contains("format 2"), "{refused}");
}

/// Positions between two appends: more than one statement looks through.
const FAR: i64 = 1_500_000;
/// Statements that are enough if one of them looks through all of it.
const FEW: usize = 8;

/// Leaves out positions, as appends that were rolled back do.
async fn leave_out(bed: &Testbed) {
    let leave_out = format!(
        "select setval('annals.positions', (select max(position) from annals.events) + {FAR})"
    );
    execute_at(&bed.database_url(), &leave_out).await;
}

/// The number of statements that were executed after the first so many round trips.
async fn executed(link: &FaultyLink, before: usize) -> usize {
    link.quiet().await;
    link.round_trips_after(before).iter().filter(|types| types.starts_with('B')).count()
}

fn ids<'a>(events: impl IntoIterator<Item = &'a RecordedEvent>) -> Vec<String> {
    events.into_iter().map(|event| event.id.to_string()).collect()
}

/// Positions stand for events: where they are present, a statement takes as long as it has of them.
#[tokio::test]
async fn no_statement_looks_for_a_rare_type_in_more_than_a_stretch_of_the_log() {
    let bed = Testbed::new("rare_type").await;
    let rare = Append::to(&account("a"), ExpectedVersion::Any, [closed()]);
    append(bed.store(), "a", 0..2).await;
    bed.store().append(&rare).await.must("append");
    for versions in [2..4, 4..6] {
        leave_out(&bed).await;
        append(bed.store(), "b", versions).await;
    }
    let rare = Append::to(&account("b"), ExpectedVersion::Any, [closed()]);
    bed.store().append(&rare).await.must("append");
    leave_out(&bed).await;
    append(bed.store(), "a", 6..7).await;
    let all: Vec<_> = bed.store().read(Read::all()).try_collect().await.must("read");
    let expected = ids(all.iter().filter(|event| event.event_type == "AccountClosed"));
    assert_eq!((all.len(), expected.len()), (9, 2));

    let (link, url) = FaultyLink::before(&bed.database_url()).await;
    let options = StoreOptions::default().without_notifications();
    let store = options.connect(&url).await.must("connect");
    let category = Category::new(CATEGORY).must("name it");
    for follow in [Follow::all(), Follow::category(&category)] {
        let (follow, before) = (follow.of_types(["AccountClosed"]), link.quiet().await);
        let (followed, checkpoint) = take(&store, follow.clone(), 2).await;
        assert_eq!(ids(&followed), expected);
        let statements = executed(&link, before).await;
        assert!(statements > FEW, "a follower: {statements} statements");
        // What it has processed is found again, stretch by stretch.
        append(bed.store(), "c", 0..1).await;
        let checkpoint = checkpoint.must("have a checkpoint");
        let (later, before) = (Follow::all().after(checkpoint), link.quiet().await);
        let (followed, _) = take(&store, later, 1).await;
        assert!(followed[0].position > all[7].position);
        let statements = executed(&link, before).await;
        assert!(statements > FEW, "a checkpoint: {statements} statements");
    }
    for read in [Read::all(), Read::category(&category)] {
        let read: Read<Position> = read.of_types(["AccountClosed"]);
        let before = link.quiet().await;
        let events: Vec<_> = store.read(read.clone()).try_collect().await.must("read");
        assert_eq!(ids(&events), expected);
        let statements = executed(&link, before).await;
        assert!(statements > FEW / 2, "a read: {statements} statements");
        let before = link.quiet().await;
        let backwards = store.read(read.backwards());
        let events: Vec<_> = backwards.try_collect().await.must("read backwards");
        assert_eq!(ids(events.iter().rev()), expected);
        let statements = executed(&link, before).await;
        assert!(statements > FEW / 2, "a read backwards: {statements} statements");
    }
}
