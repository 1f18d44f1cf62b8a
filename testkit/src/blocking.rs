//! Cleanup from a destructor, which cannot await.

use std::future::Future;

/// Runs a future to its end on a thread of its own; works inside and outside a runtime.
pub(crate) fn run<T: Send + 'static>(
    future: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(future)
    });
    thread.join().map_err(|_panicked| anyhow::anyhow!("the clean-up panicked"))?
}
