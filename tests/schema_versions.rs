//! A new version of a schema reads the data of every earlier one of its category and name, or is
//! refused.

use annals_store::{
    Append, AppendError, Broken, Compatibility, EventSet, EventStore, ExpectedVersion, Fingerprint,
    MemoryStore, NewEvent, Refusal, Store, StoreOptions, StreamName, Version, events,
};
use annals_testkit::{Must, Testbed};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

const FULL_NAME: &str = "annals.test.counter.Counted";

mod first {
    use super::{Deserialize, Serialize, events};

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(super) struct Counted {
        pub(super) id: i64,
        pub(super) a: i32,
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) enum Event in "counter" { Counted = "avro/Counted.v1.avsc" }
    }
}

mod second {
    use super::{Deserialize, Serialize, events};

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(super) struct Counted {
        pub(super) id: i64,
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) enum Event in "counter" { Counted = "avro/Counted.v2.avsc" }
    }
}

mod third {
    use super::{Deserialize, Serialize, events};

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(super) struct Counted {
        pub(super) id: i64,
        pub(super) a: String,
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) enum Event in "counter" { Counted = "avro/Counted.v3.avsc" }
    }
}

fn v1(id: i64) -> NewEvent {
    NewEvent::new(&first::Event::from(first::Counted { id, a: 1 })).must("encode")
}

fn v2(id: i64) -> NewEvent {
    NewEvent::new(&second::Event::from(second::Counted { id })).must("encode")
}

fn v3(id: i64) -> NewEvent {
    NewEvent::new(&third::Event::from(third::Counted { id, a: "one".to_owned() })).must("encode")
}

fn fingerprint<E: EventSet>() -> Fingerprint {
    E::schemas().must("read the schemas").first().must("find the schema").1.fingerprint()
}

fn counter(name: &str) -> StreamName {
    StreamName::new(name).must("name a stream")
}

async fn append(
    store: &impl EventStore,
    stream: &str,
    events: impl IntoIterator<Item = NewEvent>,
) -> Result<(), AppendError> {
    let stream = counter(stream);
    let events = events.into_iter().map(|event| event.for_category(stream.category()));
    let append = Append::to(&stream, ExpectedVersion::Any, events);
    store.append(&append).await.map(drop)
}

/// The versions that a new one cannot read, each with the reason.
fn unread(error: &AppendError) -> Vec<(Fingerprint, &str)> {
    let AppendError::Refused(refusals) = error else { panic!("{error:?}") };
    let each = refusals.iter().map(|refusal| match refusal {
        Refusal::IncompatibleSchema { full_name, earlier, breaks, reason } => {
            assert_eq!((full_name.as_str(), *breaks), (FULL_NAME, Broken::ReadersOfOldEvents));
            (*earlier, reason.as_str())
        }
        other => panic!("{other:?}"),
    });
    each.collect()
}

/// A store that allows versions whose events earlier versions cannot read.
async fn backward(bed: &Testbed) -> Store {
    let options = StoreOptions::default().compatibility(Compatibility::Backward);
    options.connect(&bed.database_url()).await.must("connect")
}

/// Who would break, with which earlier version.
fn broken(error: &AppendError) -> Vec<(Broken, Fingerprint)> {
    let AppendError::Refused(refusals) = error else { panic!("{error:?}") };
    let each = refusals.iter().map(|refusal| match refusal {
        Refusal::IncompatibleSchema { breaks, earlier, .. } => (*breaks, *earlier),
        other => panic!("{other:?}"),
    });
    each.collect()
}

async fn refuses_what_consumers_cannot_read(store: &impl EventStore) {
    append(store, "counter-a", [v1(1)]).await.must("append");
    let error = append(store, "counter-a", [v2(2)]).await.err().must("refuse");
    let first = fingerprint::<first::Event>();
    assert_eq!(broken(&error), [(Broken::ConsumersNotUpgraded, first)]);
    let error = append(store, "counter-a", [v3(3)]).await.err().must("refuse");
    let both = [(Broken::ReadersOfOldEvents, first), (Broken::ConsumersNotUpgraded, first)];
    assert_eq!(broken(&error), both);
}

#[tokio::test]
async fn a_version_whose_events_consumers_could_not_read_is_refused_unless_the_store_allows_it() {
    let bed = Testbed::new("full").await;
    refuses_what_consumers_cannot_read(bed.store()).await;
    assert_eq!(bed.recorded().await.len(), 1);
    refuses_what_consumers_cannot_read(&MemoryStore::new()).await;
    append(&backward(&bed).await, "counter-a", [v2(2)]).await.must("append");
    // Every version that was ever stored, not the last one alone.
    let error = append(&bed.another_store().await, "counter-a", [v3(3)]).await.err().must("refuse");
    let earlier: Vec<_> = broken(&error).into_iter().map(|(_, earlier)| earlier).collect();
    assert_eq!(earlier, [fingerprint::<first::Event>(); 2]);
}

#[tokio::test]
async fn a_version_that_reads_the_last_one_but_not_an_earlier_one_is_refused_with_the_one_it_cannot_read()
 {
    let bed = Testbed::new("every_version").await;
    let store = backward(&bed).await;
    append(&store, "counter-a", [v1(1)]).await.must("append");
    append(&store, "counter-a", [v2(2)]).await.must("append");
    let before = bed.fingerprint().await;
    for store in [&store, &backward(&bed).await] {
        let error = append(store, "counter-b", [v3(3)]).await.err().must("refuse");
        let [(earlier, reason)] = unread(&error)[..] else { panic!("{error}") };
        assert_eq!(earlier, fingerprint::<first::Event>());
        assert!(reason.contains('a'), "{reason}");
    }
    assert_eq!(bed.fingerprint().await, before);
    let read = bed.store().read_events::<second::Event>(&counter("counter-a"), Version::FIRST);
    let read: Vec<_> = read.try_collect().await.must("read every version's events");
    assert_eq!(read.len(), 2);
}

#[tokio::test]
async fn a_store_in_memory_refuses_the_same_versions() {
    let store = MemoryStore::with_compatibility(Compatibility::Backward);
    append(&store, "counter-a", [v1(1)]).await.must("append");
    append(&store, "counter-a", [v2(2)]).await.must("append");
    let error = append(&store, "counter-b", [v3(3)]).await.err().must("refuse");
    let earlier: Vec<_> = unread(&error).into_iter().map(|(earlier, _)| earlier).collect();
    assert_eq!(earlier, [fingerprint::<first::Event>()]);
    append(&store, "gauge-a", [v3(1)]).await.must("append to another category");
}

#[tokio::test]
async fn versions_of_one_append_are_checked_against_each_other() {
    let bed = Testbed::new("one_append").await;
    let error = append(&backward(&bed).await, "counter-a", [v1(1), v3(2)]).await.unwrap_err();
    let [(earlier, _)] = unread(&error)[..] else { panic!("{error}") };
    let known = [fingerprint::<first::Event>(), fingerprint::<third::Event>()];
    assert!(known.contains(&earlier), "{error}");
    assert_eq!(bed.recorded().await, []);
}

#[tokio::test]
async fn a_category_is_not_bound_by_the_versions_of_another() {
    let bed = Testbed::new("two_categories").await;
    let store = backward(&bed).await;
    append(&store, "counter-a", [v1(1)]).await.must("append");
    append(&store, "gauge-a", [v3(1)]).await.must("append to another category");
    // The same definition is registered for each.
    append(&store, "gauge-b", [v2(2)]).await.must("append to another category");
    append(&store, "counter-b", [v2(2)]).await.must("append");
    let error = append(&store, "gauge-c", [v1(3)]).await.unwrap_err();
    assert!(
        unread(&error).contains(&(fingerprint::<third::Event>(), unread(&error)[0].1)),
        "{error}"
    );
    let error = append(&store, "counter-c", [v3(3)]).await.err().must("refuse");
    assert_eq!(unread(&error)[0].0, fingerprint::<first::Event>(), "{error}");
}

#[tokio::test]
async fn an_older_version_that_is_registered_may_still_write() {
    let bed = Testbed::new("older_writes").await;
    let store = backward(&bed).await;
    append(&store, "counter-a", [v1(1)]).await.must("append");
    append(&store, "counter-a", [v2(2)]).await.must("append");
    append(&bed.another_store().await, "counter-a", [v1(3)]).await.must("append as before");
}
