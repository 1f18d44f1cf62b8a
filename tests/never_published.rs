//! Events that are never published: an operator skipped them, or an administrator removed them
//! before the relay read them. The next event of the stream names the one before it in the topic,
//! so that consumers go on, and still detect a lost event.

use annals_consumer::{Delivered, FirstVersion, VersionFilter};
use annals_store::{Append, ExpectedVersion, NewEvent, StreamName};
use annals_testkit::{
    CATEGORY, Follower, Must, RelayProcess, RelaySettings, Testbed, account, configure_topic,
    deposited, deposited_large, opened, remove_events,
};

/// Below the size of a large event.
const TOPIC_BYTES_MAX: &str = "3000";

async fn append(bed: &Testbed, stream: &StreamName, events: impl IntoIterator<Item = NewEvent>) {
    let append = Append::to(stream, ExpectedVersion::Any, events);
    bed.store().append(&append).await.must("append");
}

/// Skips the event that a stream is quarantined for.
async fn skip(settings: &RelaySettings, stream: &str) {
    let shown = settings.must_run(&["quarantine", "show", stream]).await;
    let position = shown.lines().find_map(|line| line.strip_prefix("position")).must("a position");
    let reason = ["--reason", "a test record"];
    let arguments = ["quarantine", "skip", stream, "--position", position.trim()];
    settings.must_run(&[&arguments[..], &reason[..]].concat()).await;
}

/// All events of the topic, checked as a consumer does: no gap, no fork.
fn checked(follower: &Follower) -> Vec<Delivered> {
    let mut filter = VersionFilter::new(FirstVersion::Zero);
    let events = follower.seen();
    for event in &events {
        filter.check_delivered(event).must("find the event next to the one before");
    }
    events
}

/// The versions of a stream, each with the version before it in the topic.
fn versions(events: &[Delivered], stream: &StreamName) -> Vec<(i64, Option<i64>)> {
    let of_stream = events.iter().filter(|event| event.stream == stream.as_str());
    of_stream
        .map(|event| (event.version.get(), event.previous.map(annals_consumer::Version::get)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_event_names_the_one_before_it_that_is_published() {
    let bed = Testbed::new("never_published").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    append(&bed, &account("first"), [opened("ann")]).await;
    follower.until_count(1).await;
    configure_topic(
        &bed.environment().kafka,
        &bed.topic(CATEGORY),
        "max.message.bytes",
        TOPIC_BYTES_MAX,
    )
    .await;

    let (a, b, c, d) = (account("a"), account("b"), account("c"), account("d"));
    // In the middle, twice, two in a row, and at the end.
    append(
        &bed,
        &a,
        [
            deposited(0),
            deposited_large(0),
            deposited(2),
            deposited_large(0),
            deposited_large(0),
            deposited(5),
            deposited_large(0),
        ],
    )
    .await;
    // The first one.
    append(&bed, &b, [deposited_large(0), deposited(1)]).await;
    relay.quarantines("account-b").await;
    skip(&bed.relay(), "account-b").await;
    for _ in 0..4 {
        relay.quarantines("account-a").await;
        relay.turn_page();
        skip(&bed.relay(), "account-a").await;
    }
    follower.until_count(5).await;
    relay.kill().await;

    // While no relay runs, events are removed that no topic has, and one that it has.
    append(&bed, &a, [deposited(7)]).await;
    append(&bed, &c, (0..5).map(deposited)).await;
    append(&bed, &d, (0..3).map(deposited)).await;
    remove_events(bed.store(), &c, 1..3).await;
    remove_events(bed.store(), &d, 0..2).await;
    remove_events(bed.store(), &b, 1..2).await;
    append(&bed, &b, [deposited(2)]).await;
    relay.restart();
    follower.until_count(11).await;
    assert!(relay.terminate().await.success());

    let events = checked(&follower);
    assert_eq!(versions(&events, &a), [(0, None), (2, Some(0)), (5, Some(2)), (7, Some(5))]);
    assert_eq!(versions(&events, &b), [(1, None), (2, None)], "a lower version is right, too");
    assert_eq!(versions(&events, &c), [(0, None), (3, Some(0)), (4, Some(3))]);
    assert_eq!(versions(&events, &d), [(2, None)]);
}
