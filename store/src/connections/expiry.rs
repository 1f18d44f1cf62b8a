//! Expiry of pooled sessions that began while the database was read-only.
//!
//! A session takes over the settings of its database and login when it begins, including
//! `default_transaction_read_only`, and stays on its server, which can be a standby. So a session
//! can stay read-only for longer than the database.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgPool;

/// The time before which pooled sessions are expired.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionExpiry {
    expired_before: Arc<Mutex<Option<Instant>>>,
}

impl SessionExpiry {
    /// Expires all present sessions: closes idle ones now, and others before their next use.
    pub(crate) fn expire_all(&self, pool: &PgPool) {
        *self.expired_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        for _ in 0..pool.size() {
            let Some(idle) = pool.try_acquire() else { break };
            drop(idle.detach());
        }
    }

    /// Whether a session of this age is expired.
    pub(crate) fn is_expired(&self, age: Duration) -> bool {
        let before = *self.expired_before.lock().unwrap_or_else(PoisonError::into_inner);
        before.is_some_and(|moment| age >= moment.elapsed())
    }
}
