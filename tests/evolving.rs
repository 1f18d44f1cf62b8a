//! Events of every released version are read by the newest program: renamed, split and merged by
//! upcasters that follow each other. Recorded events are never rewritten.

use annals_store::{
    Aggregate, Append, Category, Error, EventSet, EventStore, ExpectedVersion, Follow, MemoryStore,
    NewEvent, Schema, Store, StreamName, UnknownEvents, Version, events, verify_released,
};
use annals_testkit::{Must, Testbed, take};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

/// The program of the first release, and of the second, which added a field with a default.
mod v1 {
    use super::{Deserialize, Serialize, events};

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(crate) struct PersonRegistered {
        pub(crate) name: String,
        pub(crate) address: String,
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum PersonEvent in "person" {
            PersonRegistered = "avro/PersonRegistered.v2.avsc",
        }
    }
}

/// The first release's own schema of the same event.
mod v0 {
    use super::{Deserialize, Serialize, events};

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(crate) struct PersonRegistered {
        pub(crate) name: String,
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum PersonEvent in "person" {
            PersonRegistered = "avro/PersonRegistered.v1.avsc",
        }
    }
}

/// The third release: one event became two, and one text became two.
mod v2 {
    use super::{Deserialize, Serialize, events, v1};

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(crate) struct PersonNamed {
        pub(crate) first: String,
        pub(crate) last: String,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(crate) struct PersonMoved {
        pub(crate) address: String,
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum PersonEvent in "person", upcast v1::PersonEvent => split {
            PersonNamed = "avro/PersonNamed.v1.avsc",
            PersonMoved = "avro/PersonMoved.v1.avsc",
        }
    }

    fn split(event: v1::PersonEvent) -> Vec<PersonEvent> {
        let v1::PersonEvent::PersonRegistered(registered) = event;
        let (first, last) = registered.name.split_once(' ').unwrap_or(("", &registered.name));
        let mut events =
            vec![PersonNamed { first: first.to_owned(), last: last.to_owned() }.into()];
        if !registered.address.is_empty() {
            events.push(PersonMoved { address: registered.address }.into());
        }
        events
    }
}

/// The fourth release: a renamed type, and two fields merged into one. Moves are no longer of
/// interest to it.
mod v3 {
    use super::{Deserialize, Serialize, events, v2};

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(crate) struct NameGiven {
        pub(crate) full: String,
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum PersonEvent in "person", upcast v2::PersonEvent => merge {
            NameGiven = "avro/NameGiven.v1.avsc",
        }
    }

    fn merge(event: v2::PersonEvent) -> Option<PersonEvent> {
        match event {
            v2::PersonEvent::PersonNamed(v2::PersonNamed { first, last }) => {
                Some(NameGiven { full: format!("{first} {last}").trim().to_owned() }.into())
            }
            v2::PersonEvent::PersonMoved(_) => None,
        }
    }
}

/// The names that a person had.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names(Vec<String>);

impl Aggregate for Names {
    type Event = v3::PersonEvent;

    fn apply(&mut self, event: v3::PersonEvent) {
        let v3::PersonEvent::NameGiven(given) = event;
        self.0.push(given.full);
    }
}

/// What two types of the third release say together, joined by the state.
#[derive(Debug, Default, PartialEq, Eq)]
struct Letterhead {
    name: Option<String>,
    address: Option<String>,
}

impl Letterhead {
    /// None before both are known.
    fn text(&self) -> Option<String> {
        Some(format!("{}, {}", self.name.as_ref()?, self.address.as_ref()?))
    }
}

impl Aggregate for Letterhead {
    type Event = v2::PersonEvent;

    fn apply(&mut self, event: v2::PersonEvent) {
        match event {
            v2::PersonEvent::PersonNamed(v2::PersonNamed { first, last }) => {
                self.name = Some(format!("{first} {last}"));
            }
            v2::PersonEvent::PersonMoved(moved) => self.address = Some(moved.address),
        }
    }

    fn unknown_events() -> UnknownEvents {
        UnknownEvents::Skip
    }
}

/// The program of the second release, which skips unknown types.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tolerant(usize);

impl Aggregate for Tolerant {
    type Event = v1::PersonEvent;

    fn apply(&mut self, _event: v1::PersonEvent) {
        self.0 += 1;
    }

    fn unknown_events() -> UnknownEvents {
        UnknownEvents::Skip
    }
}

/// The same program, which refuses it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Strict(Tolerant);

impl Aggregate for Strict {
    type Event = v1::PersonEvent;

    fn apply(&mut self, event: v1::PersonEvent) {
        self.0.apply(event);
    }
}

fn person() -> StreamName {
    StreamName::new("person-1").unwrap()
}

fn new<E: EventSet>(event: impl Into<E>) -> NewEvent {
    NewEvent::new(&event.into()).must("encode")
}

/// One event of each release, in the order of the releases.
async fn release_by_release(store: &impl EventStore) {
    let events = [
        new::<v0::PersonEvent>(v0::PersonRegistered { name: "Ann Arbor".to_owned() }),
        new::<v1::PersonEvent>(v1::PersonRegistered {
            name: "Ann Berg".to_owned(),
            address: "Bonn".to_owned(),
        }),
        new::<v2::PersonEvent>(v2::PersonMoved { address: "Rome".to_owned() }),
        new::<v2::PersonEvent>(v2::PersonNamed { first: "Ann".to_owned(), last: "Cox".to_owned() }),
        new::<v3::PersonEvent>(v3::NameGiven { full: "Ann Dietz".to_owned() }),
    ];
    for event in events {
        let append = Append::to(&person(), ExpectedVersion::Any, [event]);
        store.append(&append).await.must("append");
    }
}

async fn check_reads(store: &impl EventStore) {
    release_by_release(store).await;
    let names = store.load::<Names>(&person()).await.must("load");
    assert_eq!(names.state.0, ["Ann Arbor", "Ann Berg", "Ann Cox", "Ann Dietz"]);
    assert_eq!(names.version, Version::new(4));
    let tolerant = store.load::<Tolerant>(&person()).await.must("load");
    assert_eq!((tolerant.state, tolerant.version), (Tolerant(2), Version::new(4)));
    let strict = store.load::<Strict>(&person()).await.unwrap_err();
    assert!(matches!(strict, Error::Decode { version, .. } if version.get() == 2), "{strict:?}");
    // Two events that say one thing together are joined by the state, in any order.
    let texts = [None, Some("Ann Berg, Bonn"), Some("Ann Berg, Rome"), Some("Ann Cox, Rome")];
    for (number, expected) in (0..).zip(texts) {
        let version = Version::new(number).must("number");
        let loaded = store.load_at::<Letterhead>(&person(), version).await.must("load");
        assert_eq!(loaded.state.text().as_deref(), expected, "version {number}");
    }
    // A decision on an upcast state is made under the version of the last recorded event.
    let decision = |names: &Names| {
        let full = format!("{} again", names.0[3]);
        Ok::<_, std::fmt::Error>(vec![v3::NameGiven { full }.into()])
    };
    let decided = store.decide(&person(), decision).await.must("decide");
    assert_eq!(decided.appended.events[0].0.get(), 5);
}

#[tokio::test]
async fn events_of_every_release_are_read_through_the_chain_of_upcasters() {
    let bed = Testbed::new("upcast").await;
    check_reads(bed.store()).await;
    check_reads(&MemoryStore::new()).await;
}

#[tokio::test]
async fn recorded_events_stay_as_they_are_and_one_can_become_several() {
    let bed = Testbed::new("not_rewritten").await;
    let store: &Store = bed.store();
    release_by_release(store).await;
    let before = bed.fingerprint().await;
    let read = store.read_events::<v2::PersonEvent>(&person(), Version::FIRST);
    let read: Vec<_> = read.try_collect().await.unwrap_or_default();
    assert!(read.is_empty(), "the third release does not know NameGiven: {read:?}");
    let read = store.read_events::<v3::PersonEvent>(&person(), Version::FIRST);
    let read: Vec<_> = read.map_ok(|(version, _)| version.get()).try_collect().await.must("read");
    assert_eq!(read, [0, 1, 3, 4]);
    let followed = take(store, Follow::events_of::<v3::PersonEvent>(), 5).await.must("follow");
    let split = followed[1].event.decode_all::<v2::PersonEvent>().must("decode");
    assert_eq!(split.len(), 2, "{split:?}");
    assert_eq!(followed[1].event.event_type, "PersonRegistered");
    assert_eq!(bed.fingerprint().await, before);
}

#[test]
fn every_released_schema_is_read_by_the_newest_set() {
    let released = [
        include_str!("avro/PersonRegistered.v1.avsc"),
        include_str!("avro/PersonRegistered.v2.avsc"),
        include_str!("avro/PersonNamed.v1.avsc"),
        include_str!("avro/PersonMoved.v1.avsc"),
        include_str!("avro/NameGiven.v1.avsc"),
    ];
    let released = released.map(|text| Schema::parse(text).must("parse"));
    verify_released::<v3::PersonEvent>(released).unwrap();
    // Each set reads the events of earlier sets, and no others.
    verify_released::<v1::PersonEvent>(released[..2].to_vec()).unwrap();
    let report = verify_released::<v2::PersonEvent>(released).unwrap_err();
    assert_eq!(report.problems.len(), 1, "{report}");
    assert!(report.problems[0].contains("NameGiven"), "{report}");
}

/// A fault: the release lost a default, so that it does not read the first one.
mod broken {
    use super::{Deserialize, Serialize, events};

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(crate) struct PersonRegistered {
        pub(crate) name: String,
        pub(crate) last: String,
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum PersonEvent in "person" {
            PersonRegistered = "avro/PersonRegistered.broken.avsc",
        }
    }
}

#[tokio::test]
async fn a_set_that_does_not_read_a_recorded_schema_is_found_before_it_is_deployed() {
    let bed = Testbed::new("recorded_schemas").await;
    release_by_release(bed.store()).await;
    let category = Category::new("person").unwrap();
    let recorded = bed.store().recorded_schemas(&category).await.must("read the schemas");
    assert_eq!(recorded.len(), 5);
    verify_released::<v3::PersonEvent>(recorded.clone()).unwrap();
    let report = verify_released::<broken::PersonEvent>(recorded).unwrap_err();
    assert_eq!(report.problems.len(), 5, "{report}");
}
