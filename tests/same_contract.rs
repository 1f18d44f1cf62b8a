//! The store in memory answers as the store on PostgreSQL: random appends and reads give the same
//! results on both, and the same named cases run on both.

use std::collections::BTreeSet;

use annals_store::{
    Append, AppendError, Appended, Category, Context, DecideError, EventId, EventStore,
    ExpectedVersion, FileKeyProvider, HEADER_NAME_BYTES_MAX, MemoryStore, Metadata, NewEvent,
    OpenError, PersonalError, PersonalKeys, Position, Read, RecordedEvent, Refusal, StreamName,
    Subject, Version,
};
use annals_testkit::{
    Account, AccountClosed, CATEGORY, Dice, Must, Testbed, account, closed, deposited,
    deposited_for, opened,
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
        Ok(Appended { events, recorded_at, repeated }) => {
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
        other => format!("{other:?}"),
    }
}

type Identity = (Position, StreamName, Version, EventId, String, Vec<u8>, Metadata);

fn identity(event: &RecordedEvent) -> Identity {
    let RecordedEvent { position, stream, version, id, event_type, payload, metadata, .. } = event;
    let (stream, event_type) = (stream.clone(), event_type.clone());
    (*position, stream, *version, *id, event_type, payload.clone(), metadata.clone())
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
        append.with_conflict_events(u16::try_from(self.dice.below(5)).must("make a number"))
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

    let versions: Vec<_> = (0..100).filter_map(Version::new).collect();
    let positions: Vec<_> = (1..400).filter_map(Position::new).collect();
    let category = Category::new(CATEGORY).must("make a category");
    for number in 0..READS {
        let stream = account(number % 4);
        same_events(postgres, &memory, appends.read(Read::stream(&stream), &versions)).await;
        let by_position = [
            Read::all(),
            Read::category(&category),
            Read::correlation(appends.id()),
            Read::causation(appends.id()),
        ];
        let read = by_position[number % 4].clone();
        same_events(postgres, &memory, appends.read(read, &positions)).await;
    }
    let streams: Vec<_> = (0..5).map(account).collect();
    let expected = postgres.stream_versions(&streams).await.must("read versions");
    assert_eq!(memory.stream_versions(&streams).await.must("read versions"), expected);
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
    let taken = &events[0];
    assert_eq!(taken.metadata.correlation_id, Some(Uuid::from_u128(1)));
    assert_eq!(taken.metadata.causation_id, Some(Uuid::from_u128(2)));
    let custom = [("client".to_owned(), "web".into()), ("attempt".to_owned(), 2.into())];
    assert_eq!(taken.metadata.custom, custom.into());
    assert_eq!(taken.headers, [("tenant".to_owned(), "north".to_owned())].into());
    assert_eq!(events[2].metadata, taken.metadata);
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
