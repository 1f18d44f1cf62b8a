//! A connection goes straight from an append that was answered to the next one, where that begins at once.
//!
//! The pool asks every connection that comes back for a sign of life, and whoever appends again at once waits for that
//! round trip. So an append leaves its connection with a task that gives it back, and an append that begins
//! before this task has run takes it over. Nobody else waits longer for it than for the pool's own task.
//!
//! What is handed over was just answered, and its transaction committed: the answer to an append proves both.

use std::sync::{Arc, Weak};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

/// Appends in a row on one connection, after which it goes back: others may be waiting for it.
const APPENDS_IN_A_ROW_MAX: u32 = 16;

/// A connection of the pool, and how many appends it was used for since it came from there.
pub(crate) struct Borrowed {
    pub(crate) connection: PoolConnection<Postgres>,
    appends: u32,
}

/// Held by the task that gives it back, so that it cannot stay here.
type Left = Mutex<Option<Borrowed>>;

/// Where an append finds what the one before has left.
#[derive(Debug)]
pub(crate) struct Handover {
    is_on: bool,
    last: Mutex<Weak<Left>>,
}

impl Handover {
    /// Off for a pool of the application's own: its hooks want to see every use of a connection.
    pub(crate) const fn new(is_on: bool) -> Self {
        Self { is_on, last: Mutex::new(Weak::new()) }
    }

    /// What was left just now, or else a connection of the pool.
    pub(crate) async fn acquire(&self, pool: &PgPool) -> Result<Borrowed, sqlx::Error> {
        match self.take().filter(|_| !pool.is_closed()) {
            Some(Borrowed { connection, appends }) => {
                Ok(Borrowed { connection, appends: appends + 1 })
            }
            None => Ok(Borrowed { connection: pool.acquire().await?, appends: 1 }),
        }
    }

    fn take(&self) -> Option<Borrowed> {
        let left = locked(&self.last).upgrade()?;
        locked(&left).take()
    }

    /// Leaves a connection whose append was answered, for as long as a task needs to begin.
    pub(crate) fn leave(&self, borrowed: Borrowed) {
        if !self.is_on || borrowed.appends >= APPENDS_IN_A_ROW_MAX {
            return;
        }
        let left = Arc::new(Mutex::new(Some(borrowed)));
        *locked(&self.last) = Arc::downgrade(&left);
        tokio::spawn(async move { drop(left) });
    }
}

/// Nothing that is done under these locks can leave anything half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Borrowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Borrowed").field("appends", &self.appends).finish_non_exhaustive()
    }
}
