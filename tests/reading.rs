//! A stream and a category are read whole and in order, however long; an aggregate is what its events say.

use annals_store::{Append, Category, ExpectedVersion, Store, Version};
use annals_testkit::{
    Account, AccountEvent, CATEGORY, Must, Testbed, account, closed, deposited, opened,
};
use futures_util::TryStreamExt;

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
        let after = after.and_then(|event| annals_store::Position::new(event.position));
        let read: Vec<_> =
            bed.store().read_category(&category, after).try_collect().await.must("read a category");
        let found: Vec<_> =
            read.iter().map(|event| (event.position.get(), event.id.get())).collect();
        let expected: Vec<_> =
            recorded.iter().skip(skip).map(|event| (event.position, event.id)).collect();
        assert_eq!(found, expected, "after {skip} events");
    }
    let other = Category::new("accounts").unwrap();
    let read = bed.store().read_category(&other, None);
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

    // Another process: it has the schemas to load first.
    let loaded = bed.another_store().await.load::<Account>(&stream).await.must("load");
    let cents = MANY * (MANY + 1) / 2;
    let expected = Account { owner: Some("ann".to_owned()), cents, closed: true };
    assert_eq!((&loaded.state, loaded.version), (&expected, Version::new(MANY + 1)));
    let next = Append::to(&stream, loaded.expected(), [deposited(1)]);
    bed.store().append(&next).await.must("append on top of what was loaded");
    bed.store().append(&Append::to(&stream, loaded.expected(), [deposited(1)])).await.unwrap_err();
}
