//! Waiting for what a broker knows later than it was decided.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Isolation, POLL_INTERVAL, REQUEST_TIMEOUT, RawRecord, admin, read_topic};
use crate::follow::DEADLINE;
use crate::must::Must;

/// Waits until the broker knows what the controller has decided: that a topic has so many
/// partitions, or none and is deleted.
pub(super) async fn until_known(brokers: &str, topic: &str, partitions: usize) {
    let (brokers, name) = (brokers.to_owned(), topic.to_owned());
    let known = tokio::task::spawn_blocking(move || -> anyhow::Result<bool> {
        let (admin, deadline) = (admin(&brokers)?, Instant::now() + DEADLINE);
        while Instant::now() < deadline {
            let metadata = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT)?;
            let found = metadata.topics().iter().find(|topic| topic.name() == name);
            if found.map_or(0, |topic| topic.partitions().len()) == partitions {
                return Ok(true);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(false)
    });
    let known = known.await.must("ask for a topic").must("ask for a topic");
    assert!(known, "topic {topic} has not {partitions} partitions within {DEADLINE:?}");
}

/// Waits until the broker has forgotten so many transactional ids that begin with `prefix`, and has
/// no other.
///
/// # Panics
/// If it does not forget them.
pub async fn until_forgotten(brokers: &str, prefix: &str, count: usize) {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        let records = read_topic(brokers, "__transaction_state", Isolation::Uncommitted).await;
        let of_prefix = |record: &RawRecord| {
            // The id follows a version and its length.
            let id = record.key.as_ref().and_then(|key| key.get(4..));
            id.is_some_and(|id| id.starts_with(prefix.as_bytes()))
        };
        let known: BTreeMap<_, _> = records
            .into_iter()
            .filter(of_prefix)
            .map(|record| (record.key, record.value.is_some()))
            .collect();
        // The last record of an id shows whether it still exists.
        if known.len() >= count && known.values().all(|is_known| !is_known) {
            return;
        }
    }
    panic!("{count} transactional ids were not forgotten within {DEADLINE:?}");
}

/// Waits until so many brokers have joined.
pub(crate) async fn until_brokers(brokers: &str, count: usize) {
    let admin = admin(brokers).must("ask for brokers");
    let come = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            let metadata = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT);
            if metadata.must("ask for brokers").brokers().len() >= count {
                return true;
            }
        }
        false
    });
    assert!(come.await.must("ask for brokers"), "{count} brokers were not there in {DEADLINE:?}");
}
