//! Sessions of the pool that began while the database did not let them write.
//!
//! A session takes over what its database and login have set when it begins, `default_transaction_read_only` among it, and
//! stays on the server that it began on, a standby for instance. So it can be read-only for longer than the database.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgPool;

/// Which sessions are not to be used any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions {
    /// All that began before this.
    stale_before: Arc<Mutex<Option<Instant>>>,
}

impl Sessions {
    /// Ends the sessions there are: idle ones now, those in use instead of their next use, where the pool asks.
    pub(crate) fn end(&self, pool: &PgPool) {
        *self.stale_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        for _ in 0..pool.size() {
            let Some(idle) = pool.try_acquire() else { break };
            drop(idle.detach());
        }
    }

    /// Whether a session of this age is to be ended instead of being used.
    pub(crate) fn are_stale_at(&self, age: Duration) -> bool {
        let stale_before = *self.stale_before.lock().unwrap_or_else(PoisonError::into_inner);
        stale_before.is_some_and(|moment| age >= moment.elapsed())
    }
}
