//! What a run tells of its progress: to its hook, and as metrics.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use annals_testkit::in_time;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;

/// The metrics with the label of a projection; of a histogram, the number of values.
fn metrics_of(snapshotter: &Snapshotter, projection: &str) -> BTreeMap<String, f64> {
    let count = |count: u64| f64::from(u32::try_from(count).unwrap());
    let found = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let labels: Vec<_> = key.key().labels().map(|it| (it.key(), it.value())).collect();
        assert_eq!(labels, [("projection", projection)]);
        let value = match value {
            DebugValue::Counter(value) => count(value),
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => count(values.len() as u64),
        };
        (key.key().name().to_owned(), value)
    });
    found.collect()
}

#[tokio::test]
async fn hook_and_metrics_tell_what_is_applied_and_what_is_left() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // This test runs on one thread, and this recorder is that thread's.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    let drafts = book::orders(&bed, 20, 0..10);
    bed.write(&topic, &drafts).await;
    bed.write(&topic, &drafts[..15]).await;

    let size = NonZeroUsize::new(50).unwrap();
    let projection = bed.projection(&[&topic]).await.batch_events_max(size);
    let (shutdown, mut told) = (CancellationToken::new(), Vec::new());
    let hook = |progress: &annals_consumer::RunProgress<'_>| {
        let totals = progress.totals;
        if let Some(left) = progress.records_left {
            // Those behind this batch, as the topic was when the run began.
            assert_eq!(left, 215 - totals.events - totals.duplicates);
        }
        assert_eq!(progress.time_left.is_some(), progress.records_left.is_some());
        assert!(progress.records_per_second > 0.0, "{progress:?}");
        told.push((progress.records_left, progress.time_left));
        book::to_the_end(progress)
    };
    let run = bed.runner(&projection).run_until(&shutdown, hook, book::add);
    let totals = in_time(run).await.unwrap();
    assert_eq!((totals.events, totals.duplicates), (200, 15));
    assert_eq!(told.last(), Some(&(Some(0), Some(Duration::ZERO))));

    let found = metrics_of(&snapshotter, "totals");
    let batches = f64::from(u32::try_from(totals.batches).unwrap());
    let expected = [
        ("annals_projection_batch_seconds", batches),
        ("annals_projection_batches_total", batches),
        ("annals_projection_dead_letters_total", 0.0),
        ("annals_projection_duplicates_total", 15.0),
        ("annals_projection_events_total", 200.0),
        ("annals_projection_lag_seconds", 0.0),
        ("annals_projection_records_left", 0.0),
    ];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)).into());
}
