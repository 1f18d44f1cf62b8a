//! When a follower polls: at once while there are events, then after growing pauses.

use std::time::Duration;

use tokio::sync::watch;

/// The first pause of an idle follower; each further pause is twice as long.
const POLL_IDLE_MIN: Duration = Duration::from_millis(1);

/// The result of a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polled {
    Something,
    Nothing,
}

/// The pauses between the polls of a follower. A notification ends a pause.
pub(super) struct PollTimer {
    notifications: watch::Receiver<()>,
    pause: Duration,
    poll_idle_max: Duration,
}

impl PollTimer {
    pub(super) const fn new(notifications: watch::Receiver<()>, poll_idle_max: Duration) -> Self {
        Self { notifications, pause: Duration::ZERO, poll_idle_max }
    }

    /// Call before each poll: a notification that arrives from now on ends the pause after it.
    pub(super) fn before_poll(&mut self) {
        self.notifications.mark_unchanged();
    }

    /// Waits until the next poll is due.
    pub(super) async fn after_poll(&mut self, polled: Polled) {
        if polled == Polled::Something {
            self.pause = Duration::ZERO;
            return;
        }
        self.pause = (self.pause * 2).max(POLL_IDLE_MIN).min(self.poll_idle_max);
        // Ends by timeout or notification; an error means that no more notifications arrive.
        let notified = tokio::time::timeout(self.pause, self.notifications.changed()).await;
        if let Ok(Err(_sender_dropped)) = notified {
            tokio::time::sleep(self.pause).await;
        }
    }
}
