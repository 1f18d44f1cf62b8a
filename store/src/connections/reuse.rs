//! Connection reuse: an append that begins right after another one takes over its connection.
//!
//! The pool pings each connection that it gets back, and the next append would wait for this round
//! trip. So an append offers its connection to a spawned task that returns it to the pool, and an
//! append that begins before the task has run takes the connection over. Other users of the pool
//! wait only for this task.
//!
//! The server has replied on an offered connection, and its transaction has ended: the reply to an
//! append proves both. So the next append needs no proof of its own that it is not in a transaction
//! block.

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

impl ReusableConnection {
    /// Whether the reply to an earlier append proves that the connection is not in a transaction
    /// block. A connection of the pool can be in one: see decision 5.
    pub(crate) const fn is_outside_a_transaction(&self) -> bool {
        self.appends > 1
    }
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

/// The offered connections, the latest one last. Those that were returned to the pool are removed
/// when they are the latest.
#[derive(Debug)]
pub(crate) struct ConnectionReuse {
    policy: ReusePolicy,
    offers: Mutex<Vec<Weak<Offer>>>,
}

impl ConnectionReuse {
    pub(crate) const fn new(policy: ReusePolicy) -> Self {
        Self { policy, offers: Mutex::new(Vec::new()) }
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
        let mut offers = locked(&self.offers);
        while let Some(offer) = offers.pop() {
            let taken = offer.upgrade().and_then(|offer| locked(&offer).take());
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    /// Offers a connection on which an append was answered, until the returning task runs.
    pub(crate) fn offer(&self, reusable: ReusableConnection) {
        if self.policy == ReusePolicy::ReturnToPool || reusable.appends >= CONSECUTIVE_APPENDS_MAX {
            return;
        }
        let offer = Arc::new(Mutex::new(Some(reusable)));
        let mut offers = locked(&self.offers);
        while offers.pop_if(|offer| offer.strong_count() == 0).is_some() {}
        offers.push(Arc::downgrade(&offer));
        drop(offers);
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
