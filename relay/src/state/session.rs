//! Sessions of relays, and the numbers of their writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use uuid::Uuid;

use crate::config::Config;

/// A session: from joining the deployment to the loss of the lease or the end of the process.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(super) id: Uuid,
    writes: Arc<AtomicI64>,
    pub(crate) transactional_ids: TransactionalIds,
}

/// The transactional ids of a session, in pairs: one id for each producer. New for each session, so
/// that fencing an old one never hits a new one.
///
/// One pair is used. A transaction that has written to a partition with too few replicas does not
/// end before the partition has them again, and Kafka begins no other one under its id: then the
/// session goes on with the next pair.
#[derive(Debug, Clone)]
pub(crate) struct TransactionalIds {
    pairs: Arc<[[String; 2]]>,
    present: Arc<AtomicUsize>,
}

/// A takeover fences all ids of a session; and each further pair is of use only if another topic
/// loses its replicas while those of the first are missing.
const PAIRS: [[char; 2]; 3] = [['a', 'b'], ['c', 'd'], ['e', 'f']];

impl TransactionalIds {
    fn new(start: &str) -> Self {
        let pairs = PAIRS.map(|pair| pair.map(|letter| format!("{start}.{letter}")));
        Self { pairs: pairs.into(), present: Arc::default() }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<String> {
        self.pairs.iter().flatten().cloned().collect()
    }

    /// The pairs, the present one first.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, &[String; 2])> {
        let numbered = self.pairs.iter().enumerate();
        numbered.cycle().skip(self.present.load(Ordering::Relaxed)).take(self.pairs.len())
    }

    /// This pair is used from now on.
    pub(crate) fn use_pair(&self, number: usize) {
        self.present.store(number, Ordering::Relaxed);
    }
}

/// The number of a write: PostgreSQL refuses a write once it has admitted one with a higher number.
/// So a statement that was given up, and is executed late, changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteNumber {
    pub(super) session: Uuid,
    pub(super) number: i64,
}

impl Session {
    pub(crate) fn new(config: &Config) -> Self {
        let id = Uuid::now_v7();
        let start = format!("{}.{}", config.transactional_id_prefix(), id.simple());
        Self { id, writes: Arc::default(), transactional_ids: TransactionalIds::new(&start) }
    }

    /// The number of the next write, drawn in the order in which the causes of the writes happened.
    pub(crate) fn next_write(&self) -> WriteNumber {
        let number = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        WriteNumber { session: self.id, number }
    }
}
