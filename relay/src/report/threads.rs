//! Blocking work in threads of its own, and state that threads share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::report::failure::Failure;

/// Runs blocking work in a thread; `what` names it if it panics.
pub(crate) async fn in_a_thread<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Failure::Panicked(what)))
}

/// Locks shared state. A poisoned lock means that its holder panicked; each holder replaces the
/// state as a whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
