//! Waiting for a condition that nothing notifies.

use std::time::Duration;

use crate::follow::DEADLINE;
use crate::must::Must;

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Returns when a question is answered with yes.
///
/// It is asked every few milliseconds rather than without a pause: a test that waits leaves the
/// processors to the tests that run beside it.
///
/// # Panics
/// If the answer is not yes within [`DEADLINE`]; the message says `what` was awaited.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        let mut polls = tokio::time::interval(POLL_INTERVAL);
        while !holds().await {
            polls.tick().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, asked).await.is_ok(), "not in {DEADLINE:?}: {what}");
}

/// The result of some work.
///
/// # Panics
/// If it lasts longer than [`DEADLINE`]: a test that hangs fails.
pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.must("end in time")
}
