//! Waiting for a condition that nothing notifies.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

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

/// The longest wait while a count still rises, in deadlines.
const RISING_MAX: u32 = 10;

/// Whether a count that rises fulfils a condition in time: however slow the machine is, as long as
/// the count rises within each [`DEADLINE`]. None if nobody counts any more.
pub(crate) async fn until_counted(
    mut count: watch::Receiver<usize>,
    mut holds: impl FnMut(usize) -> bool,
) -> Option<bool> {
    let end = Instant::now() + RISING_MAX * DEADLINE;
    loop {
        let counted = *count.borrow_and_update();
        if holds(counted) {
            return Some(true);
        }
        let left = end.saturating_duration_since(Instant::now()).min(DEADLINE);
        match tokio::time::timeout(left, count.changed()).await {
            Ok(changed) => changed.ok()?,
            Err(_elapsed) => return Some(false),
        }
    }
}

/// The result of some work.
///
/// # Panics
/// If it lasts longer than [`DEADLINE`]: a test that hangs fails.
pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.must("end in time")
}
