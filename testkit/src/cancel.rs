//! Drops a future halfway, as a caller's time-out or a disconnected client does.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Polls a future each time it is woken, at most so many times, then drops it. `None` if it was
/// dropped before its end.
pub async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            // This was the last poll: nothing will wake this task on behalf of a dropped future.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_future_is_dropped_at_the_await_point_asked_for() {
        let work = || async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            7
        };
        assert_eq!(dropped_after(0, work()).await, None);
        assert_eq!(dropped_after(2, work()).await, None);
        assert_eq!(dropped_after(3, work()).await, Some(7));
    }
}
