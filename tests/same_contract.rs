//! The store in memory answers as the store on PostgreSQL: random appends and reads give the same
//! results on both, and the same named cases run on both.

use std::collections::BTreeSet;
use std::pin::pin;

use annals_store::{
    Append, AppendCondition, AppendError, Appended, Category, Checkpoint, Context, DecideError,
    Error, EventId, EventStore, ExpectedVersion, FileKeyProvider, Follow, HEADER_NAME_BYTES_MAX,
    MemoryStore, Metadata, NewEvent, OpenError, PersonalError, PersonalKeys, Position, Read,
    RecordedEvent, Refusal, StreamName, Subject, Tag, Version,
};
use annals_testkit::{
    Account, AccountClosed, AccountOpened, CATEGORY, DEADLINE, Dice, Must, Testbed, account,
    closed, deposited, deposited_for, opened,
};
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::erasing::{erased_events, named, names, stream, subject};

const APPENDS: usize = 400;
const READS: usize = 100;

/// The result of an append, without its time and without the order of its refusals.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Recorded { events: Vec<(Version, Position)>, repeated: bool, has_time: bool },
    Refused(BTreeSet<String>),
}

fn answer(result: Result<Appended, AppendError>) -> Answer {
    match result {
        Ok(Appended { events, recorded_at, repeated, .. }) => {
            Answer::Recorded { events, repeated, has_time: recorded_at.is_some() }
        }
        Err(AppendError::Refused(refusals)) => Answer::Refused(refusals.iter().map(told).collect()),
        Err(error) => panic!("{error:?}"),
    }
}

/// A refusal with all its fields, its events by their versions and ids.
fn told(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Conflict(conflict) => {
            let events: Vec<_> = conflict.events.iter().map(identity).collect();
            let (expected, actual) = (conflict.expected, conflict.actual);
            format!("conflict {} {expected:?} {actual:?} {events:?}", conflict.stream)
        }
        Refusal::TagConflict(conflict) => {
            let events: Vec<_> = conflict.events.iter().map(identity).collect();
            let (after, last) = (conflict.after, conflict.last);
            format!("tag conflict {} {after} {last} {events:?}", conflict.tag)
        }
        other => format!("{other:?}"),
    }
}

type Identity = (Position, StreamName, Version, EventId, String, Vec<u8>, Metadata, u64);

fn identity(event: &RecordedEvent) -> Identity {
    let RecordedEvent { position, stream, version, id, event_type, payload, metadata, .. } = event;
    let (stream, event_type, removed) = (stream.clone(), event_type.clone(), event.removed_before);
    (*position, stream, *version, *id, event_type, payload.clone(), metadata.clone(), removed)
}

/// Random appends to a few streams, with expectations and ids that are right about half the time.
struct Appends {
    dice: Dice,
    used: Vec<NewEvent>,
}

impl Appends {
    fn next(&mut self) -> Append {
        let first = self.dice.below(4);
        let streams = 1 + self.dice.below(3);
        let append = (first..first + streams).fold(Append::default(), |append, number| {
            let expected = self.expected();
            let events = (0..self.dice.below(4)).map(|_| self.event()).collect::<Vec<_>>();
            append.and_to(&account(number % 4), expected, events)
        });
        let append =
            append.with_conflict_events(u16::try_from(self.dice.below(5)).must("make a number"));
        if self.dice.below(4) == 0 { append.under(self.condition()) } else { append }
    }

    fn expected(&mut self) -> ExpectedVersion {
        match self.dice.below(8) {
            0 => ExpectedVersion::NoStream,
            1 => ExpectedVersion::StreamExists,
            2 => {
                let version = i64::try_from(self.dice.below(30)).must("make a number");
                ExpectedVersion::Exactly(Version::new(version).must("make a version"))
            }
            _ => ExpectedVersion::Any,
        }
    }

    fn tag(&mut self) -> Tag {
        Tag::new(format!("owner:{}", self.dice.below(3))).must("make a tag")
    }

    fn condition(&mut self) -> AppendCondition {
        let position = i64::try_from(1 + self.dice.below(400)).must("make a number");
        let condition = AppendCondition::no_event_with(self.tag());
        let condition = condition.after(Position::new(position));
        match self.dice.below(2) {
            0 => condition.of_types(["AccountOpened"]),
            _ => condition,
        }
    }

    fn event(&mut self) -> NewEvent {
        let event = match self.dice.below(12) {
            0 if !self.used.is_empty() => {
                return self.used[self.dice.below(self.used.len())].clone();
            }
            1 if !self.used.is_empty() => {
                let id = self.used[self.dice.below(self.used.len())].id();
                return closed().with_id(id);
            }
            2 => opened("ann"),
            number => deposited(i64::try_from(number).must("make a number")),
        };
        let id = (self.dice.below(3) == 0).then(|| self.id());
        let context = Context::new().field("number", self.used.len());
        let context =
            id.into_iter().fold(context, |context, id| context.correlation_id(id).causation_id(id));
        let event = event.with_context(&context);
        let event = if self.dice.below(3) == 0 { event.with_tag(&self.tag()) } else { event };
        self.used.push(event.clone());
        event
    }

    fn id(&mut self) -> Uuid {
        Uuid::from_u128(u128::try_from(self.dice.below(3)).must("make a number"))
    }

    fn read<K: annals_store::Key>(&mut self, read: Read<K>, froms: &[K]) -> Read<K> {
        let mut read = read;
        if self.dice.below(2) == 0 {
            read = read.from(froms[self.dice.below(froms.len())]);
        }
        if self.dice.below(2) == 0 {
            read = read.backwards();
        }
        if self.dice.below(3) == 0 {
            read = read.of_types(["AccountOpened"]);
        }
        if self.dice.below(3) == 0 {
            read = read.events_max(u64::try_from(self.dice.below(20)).must("make a number"));
        }
        read
    }
}

async fn same_events<K: annals_store::Key + std::fmt::Debug>(
    postgres: &impl EventStore,
    memory: &MemoryStore,
    read: Read<K>,
) {
    let expected: Vec<_> = postgres.read(read.clone()).try_collect().await.must("read");
    let found: Vec<_> = memory.read(read.clone()).try_collect().await.must("read");
    let [expected, found] =
        [expected, found].map(|events| events.iter().map(identity).collect::<Vec<_>>());
    assert_eq!(found, expected, "{read:?}");
}

#[tokio::test]
async fn random_appends_and_reads_give_the_same_results_in_memory_as_on_postgres() {
    let bed = Testbed::new("same_results").await;
    let (postgres, memory) = (bed.store(), MemoryStore::new());
    let mut appends = Appends { dice: Dice::of_this_run(), used: Vec::new() };
    let mut outcomes = BTreeSet::new();
    for _ in 0..APPENDS {
        let append = appends.next();
        let expected = answer(postgres.append(&append).await);
        let found = answer(memory.append(&append).await);
        assert_eq!(found, expected, "{append:?}");
        outcomes.insert(match expected {
            Answer::Recorded { repeated, .. } => format!("recorded, repeated: {repeated}"),
            Answer::Refused(refusals) => refusals.iter().flat_map(|told| told.get(..8)).collect(),
        });
    }
    assert!(outcomes.len() > 4, "the appends were too much alike: {outcomes:?}");

    same_reads(postgres, &memory, &mut appends).await;
    end_streams(postgres).await;
    end_streams(&memory).await;
    same_reads(postgres, &memory, &mut appends).await;
    same_followed(postgres, &memory).await;
    for stream in (0..5).map(account) {
        assert_eq!(life(&memory, &stream).await, life(postgres, &stream).await);
    }
}

async fn same_reads(postgres: &impl EventStore, memory: &MemoryStore, appends: &mut Appends) {
    let versions: Vec<_> = (0..100).filter_map(Version::new).collect();
    let positions: Vec<_> = (1..400).filter_map(Position::new).collect();
    let category = Category::new(CATEGORY).must("make a category");
    for number in 0..READS {
        let stream = account(number % 4);
        same_events(postgres, memory, appends.read(Read::stream(&stream), &versions)).await;
        let by_position = [
            Read::all(),
            Read::category(&category),
            Read::correlation(appends.id()),
            Read::causation(appends.id()),
            Read::tag(&appends.tag()),
        ];
        let read = by_position[number % 5].clone();
        same_events(postgres, memory, appends.read(read, &positions)).await;
    }
    let streams: Vec<_> = (0..5).map(account).collect();
    let expected = postgres.stream_versions(&streams).await.must("read versions");
    assert_eq!(memory.stream_versions(&streams).await.must("read versions"), expected);
}

/// Truncates two streams, and archives another one.
async fn end_streams(store: &impl EventStore) {
    for (number, before) in [(0, 7), (1, 12), (0, 3)] {
        let before = Version::new(before).must("make a version");
        store.truncate_stream(&account(number), before, "retention").await.must("truncate");
    }
    store.close_stream(&account(2), "old").await.must("close");
    store.archive_stream(&account(2), "old").await.must("archive");
}

/// The state of a stream, without its times.
async fn life(
    store: &impl EventStore,
    stream: &StreamName,
) -> Option<(Version, Option<Version>, [bool; 2])> {
    let life = store.stream_life(stream).await.must("read the state")?;
    let times = [life.closed_at, life.archived_at].map(|time| time.is_some());
    Some((life.version, life.truncated_before, times))
}

/// Followers of all events, of a category, of a type and of each stream get the same events.
async fn same_followed(postgres: &impl EventStore, memory: &MemoryStore) {
    let category = Category::new(CATEGORY).must("make a category");
    let (all, types) = (Read::category(&category), ["AccountOpened"]);
    let followers = [
        (Follow::all(), all.clone()),
        (Follow::category(&category), all.clone()),
        (Follow::all().of_types(types), all.of_types(types)),
    ];
    for (follow, read) in followers {
        let events = memory.read(read).try_collect::<Vec<_>>().await.must("read").len();
        let expected = followed(postgres, follow.clone(), events).await;
        assert_eq!(followed(memory, follow, events).await, expected);
    }
    for stream in [0, 1, 3].map(account) {
        let read = memory.read(Read::stream(&stream));
        let events = read.try_collect::<Vec<_>>().await.must("read").len();
        let expected = followed_one(postgres, &stream, events).await;
        assert_eq!(followed_one(memory, &stream, events).await, expected);
    }
}

async fn followed(store: &impl EventStore, follow: Follow, events: usize) -> Vec<Identity> {
    take(store, follow, events).await.0.iter().map(identity).collect()
}

/// The next so many events, and the checkpoint behind them as text.
async fn take(
    store: &impl EventStore,
    follow: Follow,
    events: usize,
) -> (Vec<RecordedEvent>, String) {
    let mut log = pin!(store.follow(follow));
    let (mut taken, mut checkpoint) = (Vec::new(), String::new());
    while taken.len() < events {
        let next = tokio::time::timeout(DEADLINE, log.try_next()).await.must("wait for an event");
        let next = next.must("follow").must("follow for ever");
        taken.push(next.event);
        checkpoint = serde_json::to_string(&next.checkpoint).must("write a checkpoint");
    }
    (taken, checkpoint)
}

async fn followed_one(
    store: &impl EventStore,
    stream: &StreamName,
    events: usize,
) -> Vec<Identity> {
    let mut log = pin!(store.follow_stream(stream, Version::FIRST));
    let mut taken = Vec::new();
    while taken.len() < events {
        let next = tokio::time::timeout(DEADLINE, log.try_next()).await.must("wait for an event");
        taken.push(identity(&next.must("follow").must("follow for ever")));
    }
    taken
}

macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod on_postgres {
            $(
                #[tokio::test]
                async fn $test() {
                    let bed = annals_testkit::Testbed::new(stringify!($test)).await;
                    super::$test(bed.store().clone()).await;
                }
            )+
        }
        mod in_memory {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(annals_store::MemoryStore::new()).await;
                }
            )+
        }
    };
}
on_both_stores!(
    an_append_that_cannot_be_published_is_refused,
    a_time_selects_the_events_since,
    an_event_takes_the_context_of_its_request,
    work_that_an_event_causes_continues_its_correlation,
    a_closed_stream_refuses_events_and_is_read_as_before,
    a_truncated_stream_begins_behind_the_removed_events_and_tells_their_number,
    an_archived_stream_leaves_the_log_and_comes_back_as_it_was,
    a_follower_goes_from_the_first_event_into_live_and_continues_behind_a_checkpoint,
    a_checkpoint_of_another_store_or_history_is_refused,
    an_erased_subject_reads_as_erased_and_gets_no_key,
    erasures_are_told_once_and_a_foreign_key_is_not_taken_for_an_erased_one,
    keys_are_found_by_other_handles_and_wrapped_again,
);

async fn an_append_that_cannot_be_published_is_refused(store: impl EventStore) {
    let context = |context: Context| deposited(1).with_context(&context);
    let id = deposited(1);
    let append = |events: Vec<NewEvent>| Append::to(&account("a"), ExpectedVersion::Any, events);
    let cases = [
        append(vec![id.clone(), id]),
        append(vec![deposited(1)]).and_check(&account("a"), ExpectedVersion::Any),
        append((0..10_001).map(deposited).collect()),
        append(vec![deposited_for(1, "\0")]),
        append(vec![context(Context::new().actor("\0"))]),
        append(vec![context(Context::new().field("client", "\0"))]),
        append(vec![context(Context::new().field("client", "x".repeat(20_000)))]),
        append(vec![context(Context::new().field("actor", "eve"))]),
        append(vec![context(Context::new().header("ce_id", "1"))]),
        append(vec![context(Context::new().header("x".repeat(HEADER_NAME_BYTES_MAX + 1), "1"))]),
        append(vec![deposited_for(1, &"x".repeat(1_000_000))]),
    ];
    for append in cases {
        let refused = store.append(&append).await;
        assert!(matches!(refused, Err(AppendError::Refused(_))), "{refused:?}");
    }
    let versions = store.stream_versions(&[account("a")]).await.must("read a version");
    assert_eq!(versions, [None]);
}

async fn a_time_selects_the_events_since(store: impl EventStore) {
    let mut times = Vec::new();
    for number in 0..10 {
        let append = Append::to(&account(number % 2), ExpectedVersion::Any, [deposited(number)]);
        let appended = store.append(&append).await.must("append");
        times.push(appended.recorded_at.must("have a time"));
    }
    for since in times.clone() {
        let expected = times.iter().filter(|time| **time >= since).count();
        let read = store.read(Read::all().recorded_since(since));
        let found: Vec<_> = read.try_collect().await.must("read");
        assert_eq!(found.len(), expected);
    }
}

async fn an_event_takes_the_context_of_its_request(store: impl EventStore) {
    let request = Context::new()
        .correlation_id(Uuid::from_u128(1))
        .causation_id(Uuid::from_u128(2))
        .actor("ann")
        .field("client", "web")
        .field("attempt", 2)
        .header("tenant", "north");
    let own = Metadata { actor: Some("bob".to_owned()), ..Metadata::default() };
    let handled = async {
        let here = deposited(1);
        let elsewhere = tokio::spawn(async { deposited(2) }).await.must("make an event");
        let context = Context::current();
        let passed_on = tokio::spawn(context.scope(async { deposited(3) })).await;
        let inner = Context::current().actor("eve").scope(async { deposited(4) }).await;
        let replaced = deposited(5).with_metadata(own);
        [here, elsewhere, passed_on.must("make an event"), inner, replaced]
    };
    let events = request.clone().scope(handled).await;
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, events);
    store.append(&append).await.must("append");
    let read = store.read(Read::stream(&account("a")));
    let events: Vec<_> = read.try_collect().await.must("read");
    let actors: Vec<_> = events.iter().map(|event| event.metadata.actor.as_deref()).collect();
    assert_eq!(actors, [Some("ann"), None, Some("ann"), Some("eve"), Some("bob")]);
    let taken = events[0].clone();
    assert_eq!(taken.metadata.correlation_id, Some(Uuid::from_u128(1)));
    assert_eq!(taken.metadata.causation_id, Some(Uuid::from_u128(2)));
    let custom = [("client".to_owned(), "web".into()), ("attempt".to_owned(), 2.into())];
    assert_eq!(taken.metadata.custom, custom.into());
    assert_eq!(taken.headers, [("tenant".to_owned(), "north".to_owned())].into());
    assert_eq!(events[2].metadata, taken.metadata);
    assert_eq!(events[1].metadata, Metadata::default());
    // The events of a decision are made where it runs; one that was made outside stays as it is.
    let (stream, outside) = (account("b"), deposited(6));
    let open = AccountOpened { owner: "ann".to_owned() };
    let decision = |_: &Account| Ok::<_, std::fmt::Error>(vec![open.clone().into()]);
    request.clone().scope(store.decide(&stream, decision)).await.must("decide");
    let append = Append::to(&stream, ExpectedVersion::Any, [outside]);
    request.scope(EventStore::append(&store, &append)).await.must("append");
    let read = store.read(Read::stream(&stream));
    let events: Vec<_> = read.try_collect().await.must("read");
    assert_eq!((&events[0].metadata, &events[0].headers), (&taken.metadata, &taken.headers));
    assert_eq!(events[1].metadata, Metadata::default());
}

async fn work_that_an_event_causes_continues_its_correlation(store: impl EventStore) {
    let begin = Append::to(&account("a"), ExpectedVersion::NoStream, [opened("ann")]);
    store.append(&begin).await.must("append");
    let last = async || {
        let read = store.read(Read::all().backwards().events_max(1));
        let events: Vec<_> = read.try_collect().await.must("read");
        events.into_iter().next().must("find the last event")
    };
    let first = last().await;
    let mut cause = first.clone();
    for number in 1..=2 {
        let event = Context::caused_by(&cause).sync_scope(|| deposited(number));
        let append = Append::to(&account("a"), ExpectedVersion::Any, [event]);
        store.append(&append).await.must("append");
        let caused = last().await;
        assert_eq!(caused.metadata.correlation_id, Some(first.id.get()));
        assert_eq!(caused.metadata.causation_id, Some(cause.id.get()));
        cause = caused;
    }
}

async fn a_closed_stream_refuses_events_and_is_read_as_before(store: impl EventStore) {
    let (stream, other) = (account("a"), account("b"));
    store.close_stream(&stream, "there is none").await.unwrap_err();
    let first = Append::to(&stream, ExpectedVersion::NoStream, [opened("ann")]);
    store.append(&first).await.must("append");
    store.close_stream(&stream, " ").await.unwrap_err();
    assert!(store.close_stream(&stream, "the account is closed").await.must("close"));
    assert!(!store.close_stream(&stream, "again").await.must("close again"));

    let also = Append::to(&other, ExpectedVersion::Any, [deposited(1)]);
    let refused = [
        (Append::to(&stream, ExpectedVersion::Any, [deposited(1)]), vec!["StreamClosed"]),
        (also.and_to(&stream, ExpectedVersion::StreamExists, [deposited(2)]), vec!["StreamClosed"]),
        (
            Append::to(&stream, ExpectedVersion::NoStream, [deposited(1)]),
            vec!["Conflict", "StreamClosed"],
        ),
    ];
    for (append, expected) in refused {
        let Err(AppendError::Refused(refusals)) = store.append(&append).await else {
            panic!("not refused: {append:?}")
        };
        let kinds = refusals.iter().map(|refusal| match refusal {
            Refusal::Conflict(_) => "Conflict",
            Refusal::StreamClosed { stream: closed, .. } if *closed == stream => "StreamClosed",
            other => panic!("{other}"),
        });
        assert_eq!(kinds.collect::<Vec<_>>(), expected, "{append:?}");
    }
    let decided = store
        .decide(&stream, |_: &Account| {
            Ok::<_, std::fmt::Error>(vec![AccountClosed { reason: None }.into()])
        })
        .await;
    assert!(matches!(decided, Err(DecideError::Append(AppendError::Refused(_)))), "{decided:?}");

    // A retry is no new append, and a condition on the stream none to it.
    assert!(store.append(&first).await.must("append again").repeated);
    let checked = Append::to(&other, ExpectedVersion::NoStream, [deposited(4)]);
    let checked = checked.and_to(&stream, ExpectedVersion::StreamExists, []);
    store.append(&checked).await.must("append under a condition");
    let read = store.read(Read::stream(&stream));
    assert_eq!(read.try_collect::<Vec<_>>().await.must("read").len(), 1);
    let life = store.stream_life(&stream).await.must("read the state").must("exist");
    assert!(life.closed_at.is_some() && life.version == Version::FIRST);
    assert!(store.stream_life(&account("c")).await.must("read the state").is_none());

    assert!(store.reopen_stream(&stream, "a mistake").await.must("open"));
    assert!(!store.reopen_stream(&stream, "again").await.must("open again"));
    let last = Append::to(&stream, ExpectedVersion::Exactly(Version::FIRST), [deposited(1)]);
    store.append(&last).await.must("append");
}

async fn append_all(store: &impl EventStore, stream: &StreamName, sequences: [i64; 2]) {
    let events = (sequences[0]..sequences[1]).map(deposited);
    let append = Append::to(stream, ExpectedVersion::Any, events);
    store.append(&append).await.must("append");
}

async fn a_truncated_stream_begins_behind_the_removed_events_and_tells_their_number(
    store: impl EventStore,
) {
    let (stream, before) = (account("a"), Version::new(6).must("make a version"));
    store.truncate_stream(&stream, before, "there is none").await.unwrap_err();
    let removed = [deposited(0), deposited(1)];
    let append = Append::to(&stream, ExpectedVersion::NoStream, removed.clone());
    store.append(&append).await.must("append");
    append_all(&store, &stream, [2, 10]).await;
    store.truncate_stream(&stream, before, " ").await.unwrap_err();
    let behind = Version::new(10).must("make a version");
    store.truncate_stream(&stream, behind, "all of it").await.unwrap_err();

    let truncated = async || store.truncate_stream(&stream, before, "retention").await;
    assert_eq!((truncated().await.must("truncate"), truncated().await.must("truncate")), (6, 0));
    let left = store.read(Read::stream(&stream)).try_collect::<Vec<_>>().await.must("read");
    assert_eq!((left.len(), left[0].version, left[0].removed_before), (4, before, 6));
    let loaded = store.load::<Account>(&stream).await.must("load");
    assert_eq!((loaded.removed, loaded.state.cents), (6, 6 + 7 + 8 + 9));
    let life = store.stream_life(&stream).await.must("read the state").must("exist");
    assert_eq!((life.truncated_before, life.version.get()), (Some(before), 9));

    // A removed event is not recorded any more, and its version is not given again.
    let [again, _] = removed;
    let again = Append::to(&stream, ExpectedVersion::Exactly(life.version), [again]);
    let appended = store.append(&again).await.must("append again");
    assert!(!appended.repeated && appended.events[0].0 == behind);
    let late = Append::to(&stream, ExpectedVersion::NoStream, [deposited(1)]);
    let refused = store.append(&late.with_conflict_events(10)).await;
    let Err(AppendError::Refused(refusals)) = refused else { panic!("{refused:?}") };
    let [Refusal::Conflict(conflict)] = &refusals[..] else { panic!("{refusals:?}") };
    assert_eq!((conflict.events.len(), conflict.events[0].removed_before), (5, 0));
}

async fn an_archived_stream_leaves_the_log_and_comes_back_as_it_was(store: impl EventStore) {
    let (stream, other) = (account("a"), account("b"));
    append_all(&store, &stream, [0, 5]).await;
    append_all(&store, &other, [0, 1]).await;
    let read = async || -> Vec<RecordedEvent> {
        store.read(Read::stream(&stream)).try_collect().await.must("read")
    };
    let events: Vec<_> = read().await.iter().map(identity).collect();
    store.archive_stream(&stream, "open").await.unwrap_err();
    store.close_stream(&stream, "old").await.must("close");
    store.archive_stream(&stream, " ").await.unwrap_err();
    let archive = async || store.archive_stream(&stream, "old").await.must("archive");
    assert_eq!((archive().await, archive().await), (5, 0));
    assert!(read().await.is_empty());
    let with_archived = store.read(Read::stream(&stream).with_archived());
    let with_archived: Vec<_> = with_archived.try_collect().await.must("read the archive");
    assert_eq!(with_archived.iter().map(identity).collect::<Vec<_>>(), events);
    for (read, removed) in [(Read::all(), 5), (Read::all().with_archived(), 0)] {
        let all: Vec<_> = store.read(read).try_collect().await.must("read the log");
        assert_eq!(all.last().must("have an event").removed_before, removed);
    }
    assert_eq!(store.load::<Account>(&stream).await.must("load").removed, 5);
    let (rest, _) = take(&store, Follow::all(), 1).await;
    assert_eq!((&rest[0].stream, rest[0].removed_before), (&other, 5));
    let append = Append::to(&stream, ExpectedVersion::Any, [deposited(9)]);
    let refused = store.append(&append).await;
    assert!(matches!(refused, Err(AppendError::Refused(_))), "{refused:?}");
    store.reopen_stream(&stream, "needed").await.unwrap_err();
    comes_back(&store, &stream, &events).await;
    store.append(&append).await.must("append");
}

/// Restores and opens an archived stream.
async fn comes_back(store: &impl EventStore, stream: &StreamName, events: &[Identity]) {
    let restore = async || store.restore_stream(stream, "needed").await.must("restore");
    assert_eq!((restore().await, restore().await), (5, 0));
    let read = store.read(Read::stream(stream)).try_collect::<Vec<_>>().await.must("read");
    assert_eq!(read.iter().map(identity).collect::<Vec<_>>(), events);
    let (all, _) = take(store, Follow::all(), 6).await;
    assert_eq!(all.iter().map(|event| event.removed_before).sum::<u64>(), 0);
    let life = store.stream_life(stream).await.must("read the state").must("exist");
    assert!(life.closed_at.is_some() && life.archived_at.is_none());
    store.reopen_stream(stream, "needed").await.must("open");
}

async fn a_follower_goes_from_the_first_event_into_live_and_continues_behind_a_checkpoint(
    store: impl EventStore,
) {
    let [a, b] = ["a", "b"].map(account);
    // More than a page.
    append_all(&store, &a, [0, 700]).await;
    append_all(&store, &b, [0, 3]).await;
    let (history, checkpoint) = take(&store, Follow::all(), 703).await;
    assert!(history.iter().map(|event| event.position).is_sorted());
    let after = |text: &str| -> Checkpoint { serde_json::from_str(text).must("read it") };

    let end = store.end_of_log().await.must("find the end");
    let mut live = pin!(store.follow(Follow::all().after(after(&checkpoint))));
    let mut from_end = pin!(store.follow(Follow::all().after(end)));
    let mut of_stream = pin!(store.follow_stream(&b, Version::new(3).must("make a version")));
    // All of them wait before the append.
    let waiting = async {
        let next = live.try_next().await.must("follow").must("follow for ever");
        let same = from_end.try_next().await.must("follow").must("follow for ever");
        let event = of_stream.try_next().await.must("follow").must("follow for ever");
        [next.event.id, same.event.id, event.id]
    };
    let append = async {
        tokio::task::yield_now().await;
        append_all(&store, &b, [3, 4]).await;
    };
    let both = async { tokio::join!(waiting, append) };
    let (ids, ()) = tokio::time::timeout(DEADLINE, both).await.must("get the new event");
    let last = pin!(store.read(Read::all().backwards().events_max(1))).try_next().await;
    assert_eq!(ids, [last.must("read").must("find it").id; 3]);

    // Each checkpoint continues with the next event.
    let (first, checkpoint) = take(&store, Follow::all().of_types(["MoneyDeposited"]), 1).await;
    let (second, _) = take(&store, Follow::all().after(after(&checkpoint)), 1).await;
    assert_eq!(second[0].version, first[0].version.next());
    let opened = Follow::all().after(after(&checkpoint)).of_types(["AccountOpened"]);
    append_opened(&store, &b).await;
    assert_eq!(take(&store, opened, 1).await.0[0].event_type, "AccountOpened");
}

async fn append_opened(store: &impl EventStore, stream: &StreamName) {
    let append = Append::to(stream, ExpectedVersion::Any, [opened("ann")]);
    store.append(&append).await.must("append");
}

async fn a_checkpoint_of_another_store_or_history_is_refused(store: impl EventStore) {
    append_opened(&store, &account("a")).await;
    let end = store.end_of_log().await.must("find the end");
    let own = serde_json::to_value(&end).must("write a checkpoint");
    let other = MemoryStore::new();
    append_opened(&other, &account("a")).await;
    let other = other.end_of_log().await.must("find the end");
    let refused = refused_behind(&store, other).await;
    assert!(matches!(refused, Error::OtherStore { .. }), "{refused:?}");

    let mut parted = own;
    parted["since"]["event_id"] = Uuid::now_v7().to_string().into();
    let parted: Checkpoint = serde_json::from_value(parted).must("read a checkpoint");
    let refused = refused_behind(&store, parted).await;
    assert!(matches!(refused, Error::OtherHistory { .. }), "{refused:?}");
}

async fn refused_behind(store: &impl EventStore, checkpoint: Checkpoint) -> Error {
    let mut log = pin!(store.follow(Follow::all().after(checkpoint)));
    let next = tokio::time::timeout(DEADLINE, log.try_next()).await;
    next.must("be refused at once").unwrap_err()
}

/// A wrapping key in a file, for as long as a test runs.
struct KeyFile(std::path::PathBuf);

impl KeyFile {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("annals-{}.keys", Uuid::now_v7())))
    }

    fn provider(&self) -> FileKeyProvider {
        FileKeyProvider::open_or_create(&self.0).must("open the key file")
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

async fn append_to(store: &impl EventStore, number: u32, event: NewEvent) -> Appended {
    let append = Append::to(&stream(number), ExpectedVersion::Any, [event]);
    store.append(&append).await.must("append")
}

async fn an_erased_subject_reads_as_erased_and_gets_no_key(store: impl EventStore) {
    let file = KeyFile::new();
    let [here, elsewhere] = [(); 2].map(|()| PersonalKeys::new(&store, file.provider()));
    let event = named(&here, 1, "Ann").await;
    append_to(&store, 1, event.clone()).await;
    assert!(append_to(&store, 1, event).await.repeated);
    let name = names(&store, 1).await.remove(0);
    for keys in [&here, &elsewhere] {
        assert_eq!(keys.open(&name).await.must("open").value().must("be open"), "Ann");
    }
    here.erase(&subject(1), " ").await.unwrap_err();
    let erased = elsewhere.erase(&subject(1), "a request").await.must("erase");
    assert_eq!(erased.key_id, name.key_id());
    // One that never had a key.
    assert_eq!(here.erase(&subject(2), "a request").await.must("erase").key_id, None);
    for keys in [&here, &elsewhere, &PersonalKeys::new(&store, file.provider())] {
        assert!(keys.open(&name).await.must("read as erased").is_erased());
        for number in [1, 2] {
            let refused = keys.subject(&subject(number)).await;
            assert!(matches!(refused, Err(PersonalError::Erased(_))), "{refused:?}");
        }
    }
}

async fn erasures_are_told_once_and_a_foreign_key_is_not_taken_for_an_erased_one(
    store: impl EventStore,
) {
    let file = KeyFile::new();
    let here = PersonalKeys::new(&store, file.provider());
    let key = here.subject(&subject(1)).await.must("get a key");
    let erased = here.erase(&subject(1), "a request").await.must("erase");
    here.erase(&subject(2), "a request").await.must("erase");
    let again = here.erase(&subject(1), "again").await.must("erase again");
    assert!(again.appended.repeated && again.appended.events == erased.appended.events);
    let told = erased_events(&store).await;
    let told: Vec<_> = told.iter().map(|erased| (&*erased.subject, &erased.key_id)).collect();
    let key_id = Some(key.id().to_string());
    assert_eq!(told, [("customer-1", &key_id), ("customer-2", &None)]);
    assert_eq!(here.finish_erasures().await.must("finish"), []);

    // A key of another store is not taken for a destroyed one.
    let stranger = PersonalKeys::new(&MemoryStore::new(), file.provider());
    append_to(&store, 3, named(&stranger, 3, "Eve").await).await;
    let unknown = here.open(&names(&store, 3).await[0]).await;
    assert!(matches!(unknown, Err(PersonalError::Open(OpenError::UnknownKey(_)))), "{unknown:?}");
}

async fn keys_are_found_by_other_handles_and_wrapped_again(store: impl EventStore) {
    let file = KeyFile::new();
    let keys = || PersonalKeys::new(&store, file.provider());
    for number in 1..=3 {
        append_to(&store, number, named(&keys(), number, "Ann").await).await;
    }
    let [emails, phones] = ["email", "phone"].map(|name| Subject::new(name).must("name an index"));
    let index = keys().blind_index(&emails).await.must("make an index");
    keys().erase(&subject(1), "a request").await.must("erase");

    assert_eq!(keys().rotate().await.must("rotate"), 3, "two subjects and an index");
    assert_eq!(keys().rewrap().await.must("wrap again"), 0);
    keys().destroy_earlier_wrapping_keys().await.must("destroy the earlier wrapping key");
    for number in [2, 3] {
        let opened = keys().open(&names(&store, number).await[0]).await.must("open");
        assert_eq!(opened.value().must("be open"), "Ann");
    }
    assert!(keys().open(&names(&store, 1).await[0]).await.must("read as erased").is_erased());
    append_to(&store, 4, named(&keys(), 4, "Bob").await).await;
    let again = keys().blind_index(&emails).await.must("find the index");
    assert_eq!(index.tag("ann@example.org"), again.tag("ann@example.org"));
    let other = keys().blind_index(&phones).await.must("make an index");
    assert_ne!(index.tag("ann@example.org"), other.tag("ann@example.org"));
}
