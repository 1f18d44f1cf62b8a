//! The store's metrics through a facade: the test is the exporter here.

use std::collections::BTreeMap;
use std::pin::pin;

use annals_store::{Append, ExpectedVersion, Follow, Read};
use annals_testkit::{Must, Testbed, account, deposited, opened};
use futures_util::TryStreamExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Counters by name and label values.
fn counters(snapshotter: &Snapshotter) -> BTreeMap<String, u64> {
    let snapshot = snapshotter.snapshot().into_vec();
    let counters = snapshot.into_iter().filter_map(|(key, _, _, value)| {
        let DebugValue::Counter(count) = value else { return None };
        let labels: Vec<_> = key.key().labels().map(metrics::Label::value).collect();
        Some((format!("{} {}", key.key().name(), labels.join(",")).trim_end().to_owned(), count))
    });
    counters.collect()
}

#[tokio::test]
async fn appends_reads_and_followers_are_counted_by_what_became_of_them() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // This test runs on one thread, and this recorder is that thread's.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let bed = Testbed::new("telemetry").await;
    let append =
        Append::to(&account("a"), ExpectedVersion::NoStream, [opened("ann"), deposited(1)]);
    bed.store().append(&append).await.must("append");
    bed.store().append(&append).await.must("append again");
    let late = Append::to(&account("a"), ExpectedVersion::NoStream, [opened("bob")]);
    bed.store().append(&late).await.unwrap_err();
    bed.store().read(Read::all()).try_collect::<Vec<_>>().await.must("read");
    let mut log = pin!(bed.store().follow(Follow::all()));
    log.try_next().await.must("follow");

    let found = counters(&snapshotter);
    let expected = [
        ("annals_appended_events_total", 2),
        ("annals_appends_total appended", 1),
        ("annals_appends_total refused", 1),
        ("annals_appends_total repeated", 1),
        ("annals_followed_events_total", 2),
        ("annals_read_events_total", 2),
    ];
    assert_eq!(found, expected.map(|(name, count)| (name.to_owned(), count)).into());
}
