//! Connection reuse: an append that begins right after another one takes over its connection.
//!
//! The pool pings each connection that it gets back, and the next append would wait for this round
//! trip. So an append offers its connection to a spawned task that returns it to the pool, and an
//! append that begins before the task has run takes the connection over. Other users of the pool
//! wait only for this task.
//!
//! The server has replied on an offered connection, and its transaction has ended: the reply to an
//! append proves both.

use std::sync::{Arc, Weak};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};

/// Maximum number of consecutive appends on one connection before it returns to the pool, where
/// others can be waiting for it.
const CONSECUTIVE_APPENDS_MAX: u32 = 16;

/// A connection of the pool, and the number of its appends since it left the pool.
pub(crate) struct ReusableConnection {
    pub(crate) connection: PoolConnection<Postgres>,
    appends: u32,
}

/// Owned by the task that returns the connection to the pool.
type Offer = Mutex<Option<ReusableConnection>>;

/// Whether appends take over each other's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReusePolicy {
    Reuse,
    /// For a pool of the application: its hooks must see each use of a connection.
    ReturnToPool,
}

/// The latest offered connection.
#[derive(Debug)]
pub(crate) struct ConnectionReuse {
    policy: ReusePolicy,
    latest: Mutex<Weak<Offer>>,
}

impl ConnectionReuse {
    pub(crate) const fn new(policy: ReusePolicy) -> Self {
        Self { policy, latest: Mutex::new(Weak::new()) }
    }

    /// The offered connection, or else a connection of the pool.
    pub(crate) async fn acquire(&self, pool: &PgPool) -> Result<ReusableConnection, sqlx::Error> {
        match self.take().filter(|_| !pool.is_closed()) {
            Some(ReusableConnection { connection, appends }) => {
                Ok(ReusableConnection { connection, appends: appends + 1 })
            }
            None => Ok(ReusableConnection { connection: pool.acquire().await?, appends: 1 }),
        }
    }

    fn take(&self) -> Option<ReusableConnection> {
        let offer = locked(&self.latest).upgrade()?;
        locked(&offer).take()
    }

    /// Offers a connection on which an append was answered, until the returning task runs.
    pub(crate) fn offer(&self, reusable: ReusableConnection) {
        if self.policy == ReusePolicy::ReturnToPool || reusable.appends >= CONSECUTIVE_APPENDS_MAX {
            return;
        }
        let offer = Arc::new(Mutex::new(Some(reusable)));
        *locked(&self.latest) = Arc::downgrade(&offer);
        tokio::spawn(async move { drop(offer) });
    }
}

/// No operation under these locks can leave a partial state.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for ReusableConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReusableConnection").field("appends", &self.appends).finish_non_exhaustive()
    }
}
