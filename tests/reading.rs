//! A stream and a category are read completely and in order, at any length; an aggregate is the
//! result of its events.

use annals_store::{
    Append, Category, EventStore, ExpectedVersion, Key, Metadata, Position, Read, RecordedEvent,
    Store, StoreOptions, StreamName, TraceContext, Version,
};
use annals_testkit::{
    Account, AccountEvent, CATEGORY, Must, Testbed, account, closed, deposited, opened,
};
use futures_util::TryStreamExt;
use uuid::Uuid;

/// More than two pages of a reader, and not a multiple of one.
const MANY: i64 = 1_234;

async fn fill(store: &Store, id: &str, events: i64) {
    let append = Append::to(&account(id), ExpectedVersion::Any, (0..events).map(deposited));
    store.append(&append).await.must("append");
}

#[tokio::test]
async fn a_long_stream_is_read_whole_and_in_order_from_any_version() {
    let bed = Testbed::new("long_stream").await;
    fill(bed.store(), "a", MANY).await;
    fill(bed.store(), "b", 3).await;
    for from in [0, 1, 499, 500, 501, 1_000, MANY - 1, MANY, MANY + 10] {
        let from_version = Version::new(from).unwrap();
        let read = bed.store().read_events::<AccountEvent>(&account("a"), from_version);
        let read: Vec<_> = read.try_collect().await.must("read a stream");
        let sequences = read.into_iter().map(|(version, event)| match event {
            AccountEvent::MoneyDeposited(deposited) => (version.get(), deposited.sequence),
            other => panic!("{other:?}"),
        });
        let expected: Vec<_> = (from..MANY).map(|number| (number, number)).collect();
        assert_eq!(sequences.collect::<Vec<_>>(), expected, "from {from}");
    }
}

#[tokio::test]
async fn a_stream_that_does_not_exist_has_no_events_and_no_version() {
    let bed = Testbed::new("no_stream").await;
    let read = bed.store().read_stream(&account("none"), Version::FIRST);
    assert!(read.try_collect::<Vec<_>>().await.must("read a stream").is_empty());
    assert_eq!(bed.store().stream_version(&account("none")).await.must("read a version"), None);
    let loaded = bed.store().load::<Account>(&account("none")).await.must("load");
    assert_eq!((loaded.version, loaded.state), (None, Account::default()));
}

#[tokio::test]
async fn a_long_category_is_read_whole_and_in_order_after_any_position() {
    let bed = Testbed::new("long_category").await;
    for (id, events) in [("a", 600), ("b", 500), ("a", 77), ("c", 1)] {
        fill(bed.store(), id, events).await;
    }
    let recorded = bed.recorded().await;
    let category = Category::new(CATEGORY).unwrap();
    for skip in [0_usize, 1, 500, 600, 1_100, 1_177, 1_178] {
        let after = skip.checked_sub(1).and_then(|last| recorded.get(last));
        let from =
            after.map_or(Position::FIRST, |event| Position::new(event.position + 1).unwrap());
        let read = Read::category(&category).from(from);
        let read: Vec<_> = bed.store().read(read).try_collect().await.must("read a category");
        let found: Vec<_> =
            read.iter().map(|event| (event.position.get(), event.id.get())).collect();
        let expected: Vec<_> =
            recorded.iter().skip(skip).map(|event| (event.position, event.id)).collect();
        assert_eq!(found, expected, "after {skip} events");
    }
    let other = Category::new("accounts").unwrap();
    let read = bed.store().read(Read::category(&other));
    assert!(read.try_collect::<Vec<_>>().await.must("read a category").is_empty());
}

#[tokio::test]
async fn an_aggregate_is_rebuilt_from_all_its_events_and_says_what_to_expect() {
    let bed = Testbed::new("aggregate").await;
    let stream = account("a");
    let events = std::iter::once(opened("ann")).chain((1..=MANY).map(deposited)).chain([closed()]);
    bed.store()
        .append(&Append::to(&stream, ExpectedVersion::NoStream, events))
        .await
        .must("append");

    // Another process: it has to load the schemas first.
    let loaded = bed.another_store().await.load::<Account>(&stream).await.must("load");
    let cents = MANY * (MANY + 1) / 2;
    let expected = Account { owner: Some("ann".to_owned()), cents, closed: true };
    assert_eq!((&loaded.state, loaded.version), (&expected, Version::new(MANY + 1)));
    let next = Append::to(&stream, loaded.expected(), [deposited(1)]);
    bed.store().append(&next).await.must("append after the loaded version");
    bed.store().append(&Append::to(&stream, loaded.expected(), [deposited(1)])).await.unwrap_err();
}

/// Streams of two categories, some events with correlation and causation, the appends one second
/// apart in time.
async fn mixed(bed: &Testbed) -> Vec<annals_testkit::Recorded> {
    let store = bed.store();
    let metadata = |correlation, causation| Metadata {
        correlation_id: Some(Uuid::from_u128(correlation)),
        causation_id: Some(Uuid::from_u128(causation)),
        ..Metadata::default()
    };
    for number in 0..6_u128 {
        let ledger = StreamName::new(format!("ledger-{number}")).unwrap();
        let caused = deposited(1).with_metadata(metadata(number % 2, number));
        let append = Append::to(&account(number), ExpectedVersion::Any, [opened("ann"), caused])
            .and_to(&ledger, ExpectedVersion::Any, [deposited(2).for_category("ledger")]);
        store.append(&append).await.must("append");
    }
    bed.recorded().await
}

async fn positions<K: Key>(store: &Store, read: Read<K>) -> Vec<i64> {
    let events: Vec<_> = store.read(read).try_collect().await.must("read");
    events.iter().map(|event| event.position.get()).collect()
}

#[tokio::test]
async fn everything_is_read_in_both_directions_from_any_place_and_as_far_as_asked() {
    let bed = Testbed::new("directions").await;
    let recorded = mixed(&bed).await;
    let store = bed.store();
    let all: Vec<i64> = recorded.iter().map(|event| event.position).collect();
    let reversed: Vec<i64> = all.iter().rev().copied().collect();
    assert_eq!(positions(store, Read::all()).await, all);
    assert_eq!(positions(store, Read::all().backwards()).await, reversed);
    let seventh = Position::new(all[7]).unwrap();
    assert_eq!(positions(store, Read::all().from(seventh)).await, all[7..]);
    assert_eq!(
        positions(store, Read::all().from(seventh).backwards()).await,
        reversed[all.len() - 8..]
    );
    assert_eq!(positions(store, Read::all().events_max(0)).await, [0; 0]);
    assert_eq!(positions(store, Read::all().events_max(5)).await, all[..5]);
    assert_eq!(positions(store, Read::all().backwards().events_max(5)).await, reversed[..5]);

    let of = |stream: &str| -> Vec<i64> {
        let own = recorded.iter().filter(|event| event.stream.starts_with(stream));
        own.map(|event| event.position).collect()
    };
    let ledger = Category::new("ledger").unwrap();
    assert_eq!(positions(store, Read::category(&ledger)).await, of("ledger-"));
    let newest = Read::category(&ledger).backwards().events_max(1);
    assert_eq!(positions(store, newest).await, of("ledger-")[5..]);
    let stream = account(3);
    let backwards = Read::stream(&stream).from(Version::FIRST).backwards();
    assert_eq!(positions(store, backwards).await, of("account-3")[..1]);
    let mut reversed = of("account-3");
    reversed.reverse();
    assert_eq!(positions(store, Read::stream(&stream).backwards()).await, reversed);
}

#[tokio::test]
async fn a_long_stream_is_read_whole_backwards_and_by_type() {
    let bed = Testbed::new("long_backwards").await;
    fill(bed.store(), "a", MANY).await;
    let append = Append::to(&account("a"), ExpectedVersion::Any, [closed()]);
    bed.store().append(&append).await.must("append");
    let versions = async |read| {
        let events: Vec<_> = bed.store().read(read).try_collect().await.must("read");
        events.iter().map(|event: &RecordedEvent| event.version.get()).collect::<Vec<_>>()
    };
    let stream = account("a");
    assert_eq!(
        versions(Read::stream(&stream).backwards()).await,
        (0..=MANY).rev().collect::<Vec<_>>()
    );
    assert_eq!(versions(Read::stream(&stream).of_types(["AccountClosed"])).await, [MANY]);
    let types: [&str; 0] = [];
    assert_eq!(versions(Read::stream(&stream).of_types(types)).await, [0; 0]);
}

#[tokio::test]
async fn events_are_found_by_what_they_belong_to_and_what_caused_them() {
    let bed = Testbed::new("correlated").await;
    let recorded = mixed(&bed).await;
    let store = bed.store();
    let caused = |number: u128| {
        let stream = account(number).to_string();
        let own = recorded.iter().find(|event| event.stream == stream && event.version == 1);
        own.must("find the caused event").position
    };
    let odd = Read::correlation(Uuid::from_u128(1));
    assert_eq!(positions(store, odd.clone()).await, [1, 3, 5].map(caused));
    assert_eq!(positions(store, odd.backwards()).await, [5, 3, 1].map(caused));
    assert_eq!(positions(store, Read::causation(Uuid::from_u128(4))).await, [caused(4)]);
    assert_eq!(positions(store, Read::causation(Uuid::from_u128(77))).await, [0; 0]);
}

#[tokio::test]
async fn reading_from_a_time_misses_nothing_recorded_since() {
    let bed = Testbed::new("since").await;
    let recorded = mixed(&bed).await;
    let store = bed.store();
    let events: Vec<_> = store.read(Read::all()).try_collect().await.must("read");
    for event in &events {
        let since = event.recorded_at;
        let expected: Vec<i64> = events
            .iter()
            .filter(|event| event.recorded_at >= since)
            .map(|event| event.position.get())
            .collect();
        assert_eq!(positions(store, Read::all().recorded_since(since)).await, expected);
    }
    let last = events.last().must("have events").recorded_at;
    let later = last.checked_add(jiff::SignedDuration::from_secs(1)).must("add a second");
    assert_eq!(positions(store, Read::all().recorded_since(later)).await, [0; 0]);
    assert_eq!(recorded.len(), events.len());
}

/// A combination of all criteria; the result must be that of a plain filter over all events.
#[derive(Debug, Clone)]
struct Choice {
    is_backwards: bool,
    from: Option<RecordedEvent>,
    since: Option<jiff::Timestamp>,
    types: Option<&'static str>,
    events_max: Option<u64>,
}

impl Choice {
    fn all(events: &[RecordedEvent]) -> Vec<Self> {
        let middle = &events[events.len() / 2];
        let times = [None, Some(events[events.len() / 3].recorded_at), Some(middle.recorded_at)];
        let mut choices = Vec::new();
        for number in 0..48 {
            choices.push(Self {
                is_backwards: number % 2 == 1,
                from: (number / 2 % 2 == 1).then(|| middle.clone()),
                types: (number / 4 % 2 == 1).then_some("MoneyDeposited"),
                events_max: (number / 8 % 2 == 1).then_some(3),
                since: times[number / 16],
            });
        }
        choices
    }

    fn applied<K: Key>(&self, read: Read<K>, key: impl Fn(&RecordedEvent) -> K) -> Read<K> {
        let read = if self.is_backwards { read.backwards() } else { read };
        let read = match &self.from {
            Some(event) => read.from(key(event)),
            None => read,
        };
        let read = self.since.into_iter().fold(read, Read::recorded_since);
        let read = self.types.into_iter().fold(read, |read, name| read.of_types([name]));
        self.events_max.into_iter().fold(read, Read::events_max)
    }

    /// The remaining part of `events`, which are in the order of their keys.
    fn expected(
        &self,
        events: impl Iterator<Item = RecordedEvent>,
        key: impl Fn(&RecordedEvent) -> i64,
    ) -> Vec<i64> {
        let mut expected: Vec<_> = events
            .filter(|event| match (&self.from, self.is_backwards) {
                (Some(from), true) => key(event) <= key(from),
                (Some(from), false) => key(event) >= key(from),
                (None, _) => true,
            })
            .filter(|event| self.since.is_none_or(|since| event.recorded_at >= since))
            .filter(|event| self.types.is_none_or(|name| event.event_type == name))
            .map(|event| event.position.get())
            .collect();
        if self.is_backwards {
            expected.reverse();
        }
        expected.truncate(self.events_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap()));
        expected
    }
}

#[tokio::test]
async fn every_combination_of_what_can_be_asked_for_reads_what_a_plain_filter_says() {
    let bed = Testbed::new("combinations").await;
    mixed(&bed).await;
    fill(bed.store(), "3", 20).await;
    let store = bed.store();
    let events: Vec<_> = store.read(Read::all()).try_collect().await.must("read");
    let (stream, category) = (account("3"), Category::new(CATEGORY).unwrap());
    let (odd, four) = (Uuid::from_u128(1), Uuid::from_u128(4));
    type Belongs<'a> = Box<dyn Fn(&RecordedEvent) -> bool + 'a>;
    let sources: [(Read<Position>, Belongs<'_>); 4] = [
        (Read::all(), Box::new(|_| true)),
        (Read::category(&category), Box::new(|event| event.stream.category() == category.as_str())),
        (Read::correlation(odd), Box::new(|event| event.metadata.correlation_id == Some(odd))),
        (Read::causation(four), Box::new(|event| event.metadata.causation_id == Some(four))),
    ];
    for choice in Choice::all(&events) {
        for (read, belongs) in &sources {
            let own = events.iter().filter(|event| belongs(event)).cloned();
            let expected = choice.expected(own, |event| event.position.get());
            let found = choice.applied(read.clone(), |event| event.position);
            assert_eq!(positions(store, found).await, expected, "{read:?} with {choice:?}");
        }
    }
    let own: Vec<_> = events.iter().filter(|event| event.stream == stream).cloned().collect();
    for choice in Choice::all(&own) {
        let expected = choice.expected(own.iter().cloned(), |event| event.version.get());
        let found = choice.applied(Read::stream(&stream), |event| event.version);
        assert_eq!(positions(store, found).await, expected, "a stream with {choice:?}");
    }
}

#[tokio::test]
async fn streams_and_categories_are_listed_by_name() {
    let bed = Testbed::new("listed").await;
    mixed(&bed).await;
    let heartbeat = StreamName::new("ledger").unwrap();
    let longer = StreamName::new("ledgers-1").unwrap();
    for stream in [&heartbeat, &longer] {
        let event = deposited(1).for_category(stream.category());
        let append = Append::to(stream, ExpectedVersion::Any, [event]);
        bed.store().append(&append).await.must("append");
    }
    let names: Vec<_> = bed.store().categories().await.must("list the categories");
    let names: Vec<_> = names.iter().map(Category::as_str).collect();
    assert_eq!(names, [CATEGORY, "ledger", "ledgers"]);
    let ledger = Category::new("ledger").unwrap();
    let streams: Vec<_> = bed.store().streams(&ledger).try_collect().await.must("list streams");
    let names: Vec<_> = streams.iter().map(|(name, _)| name.to_string()).collect();
    let expected =
        ["ledger", "ledger-0", "ledger-1", "ledger-2", "ledger-3", "ledger-4", "ledger-5"];
    assert_eq!(names, expected);
    let none = Category::new("nothing").unwrap();
    assert_eq!(bed.store().streams(&none).try_collect::<Vec<_>>().await.must("list streams"), []);
}

#[tokio::test]
async fn an_event_carries_the_trace_context_of_its_append_unless_it_has_its_own() {
    const SPAN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let bed = Testbed::new("traced").await;
    let options = StoreOptions::default().trace_context(|| {
        Some(TraceContext { traceparent: SPAN.to_owned(), tracestate: Some("a=1".to_owned()) })
    });
    let store = options.connect(&bed.database_url()).await.must("connect");
    let own = Metadata { traceparent: Some(OWN.to_owned()), ..Metadata::default() };
    let events = [opened("ann"), deposited(1).with_metadata(own)];
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, events);
    store.append(&append).await.must("append");
    let events = store.read(Read::all()).try_collect::<Vec<_>>().await.must("read");
    let found: Vec<_> = events
        .iter()
        .map(|event| (event.metadata.traceparent.as_deref(), event.metadata.tracestate.as_deref()))
        .collect();
    assert_eq!(found, [(Some(SPAN), Some("a=1")), (Some(OWN), None)]);
    // A retry runs in a span of its own, and is still the same append.
    assert!(bed.store().append(&append).await.must("repeat").repeated);
}
