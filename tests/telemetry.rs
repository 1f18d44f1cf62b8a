//! The store's metrics through a facade: the test is the exporter here.

use std::collections::BTreeMap;
use std::pin::pin;

use annals_store::{Append, ExpectedVersion, Follow, Read, telemetry};
use annals_testkit::{Must, Testbed, account, deposited, opened, promtool};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;
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

/// The values of histograms since the last time, by name.
pub(crate) fn histograms(snapshotter: &Snapshotter) -> BTreeMap<String, Vec<f64>> {
    let mut found = BTreeMap::<_, Vec<f64>>::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let DebugValue::Histogram(values) = value else { continue };
        let of_name = found.entry(key.key().name().to_owned()).or_default();
        of_name.extend(values.into_iter().map(|value| *value));
    }
    found
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

#[tokio::test]
async fn metrics_say_how_long_appends_were_queued_and_how_many_a_call_has() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let bed = Testbed::new("telemetry_calls").await;
    let append =
        |number: i64| Append::to(&account(number), ExpectedVersion::Any, [deposited(number)]);
    bed.store().append(&append(0)).await.must("append");
    let alone = histograms(&snapshotter);
    for (name, values) in
        [(telemetry::APPEND_QUEUE_DURATION, "[0.0]"), (telemetry::APPEND_CALL_APPENDS, "[1.0]")]
    {
        assert_eq!(format!("{:?}", alone[name]), values, "{name}");
    }
    let appends: Vec<_> = (0..30).map(append).collect();
    let together = join_all(appends.iter().map(|append| bed.store().append(append))).await;
    assert!(together.iter().all(Result::is_ok), "{together:?}");
    let together = histograms(&snapshotter);
    let queued = together[telemetry::APPEND_QUEUE_DURATION].iter().filter(|&&time| time > 0.0);
    let queued = queued.count();
    assert!((20..=30).contains(&queued), "{together:?}");
    let calls = &together[telemetry::APPEND_CALL_APPENDS];
    let shared = calls.iter().filter(|&&appends| appends > 1.0 && appends <= 30.0).count();
    assert!(calls.len() == 30 && shared > 0 && shared <= queued, "{together:?}");
    // Each append of a call has the number of them.
    let parts: f64 = calls.iter().map(|appends| 1.0 / appends).sum();
    assert!((parts - parts.round()).abs() < 1e-9, "{together:?}");
}

#[tokio::test]
async fn an_exporter_for_prometheus_serves_described_metrics_that_pass_promtool() {
    let builder = PrometheusBuilder::new().set_buckets(&telemetry::DURATION_BUCKETS);
    let recorder = builder.must("set the buckets").build_recorder();
    let exporter = recorder.handle();
    // This test runs on one thread, and this recorder is that thread's.
    let _guard = metrics::set_default_local_recorder(&recorder);
    telemetry::describe();
    let bed = Testbed::new("exporter").await;
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, [opened("ann")]);
    bed.store().append(&append).await.must("append");
    bed.store().read(Read::all()).try_collect::<Vec<_>>().await.must("read");
    let mut log = pin!(bed.store().follow(Follow::all()));
    log.try_next().await.must("follow");
    let text = exporter.render();
    for name in [
        telemetry::APPENDS,
        telemetry::APPENDED_EVENTS,
        telemetry::APPEND_DURATION,
        telemetry::APPEND_QUEUE_DURATION,
        telemetry::APPEND_CALL_APPENDS,
        telemetry::READ_EVENTS,
        telemetry::READ_PAGE_DURATION,
        telemetry::FOLLOWED_EVENTS,
        telemetry::FOLLOWER_LAG,
    ] {
        assert!(text.contains(&format!("# HELP {name} ")), "{name}\n{text}");
    }
    let checked = promtool(env!("CARGO_MANIFEST_DIR"), &["check", "metrics"], &text).await;
    assert_eq!(checked, Ok(String::new()), "{text}");
}
