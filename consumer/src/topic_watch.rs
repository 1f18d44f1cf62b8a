//! Tracks which of a consumer's topics exist, and that their partition counts stay the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ConsumeError;
use crate::kafka::{PartitionCounts, RecordFetcher};

/// Interval of the check while topics are missing or brokers are unavailable.
const RECHECK: Duration = Duration::from_secs(1);

/// The topics of one consumer. Its methods are safe to cancel.
#[derive(Debug)]
pub(crate) struct TopicWatch {
    wanted: Vec<Arc<str>>,
    known: PartitionCounts,
    missing: BTreeSet<Arc<str>>,
    due: Instant,
    interval: Duration,
}

/// Topics that did not exist at the last check, with their partition counts.
#[derive(Debug, Default)]
pub(crate) struct TopicChanges {
    /// Found for the first time.
    pub(crate) created: PartitionCounts,
    /// Found again after they were missing: possibly deleted and created again.
    pub(crate) recreated: PartitionCounts,
}

impl TopicWatch {
    pub(crate) fn new(topics: &[&str], interval: Duration) -> Self {
        let mut wanted: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
        wanted.sort();
        wanted.dedup();
        let (known, missing) = (BTreeMap::new(), BTreeSet::new());
        Self { wanted, known, missing, due: Instant::now(), interval }
    }

    /// When the next [`check`](Self::check) is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Makes [`check`](Self::check) due now.
    pub(crate) fn check_now(&mut self) {
        self.due = Instant::now();
    }

    /// The topics found so far, with their partition counts.
    pub(crate) fn known(&self) -> &PartitionCounts {
        &self.known
    }

    /// Queries the topics.
    pub(crate) async fn check(
        &mut self,
        fetcher: &mut RecordFetcher,
    ) -> Result<TopicChanges, ConsumeError> {
        let changes = match fetcher.partition_counts(&self.wanted).await {
            Some(found) => self.compare(&found)?,
            None => TopicChanges::default(),
        };
        let soon = fetcher.is_unavailable() || !self.missing.is_empty();
        self.due = Instant::now() + if soon { RECHECK.min(self.interval) } else { self.interval };
        Ok(changes)
    }

    fn compare(&mut self, found: &PartitionCounts) -> Result<TopicChanges, ConsumeError> {
        let mut changes = TopicChanges::default();
        for topic in &self.wanted {
            let Some(&count) = found.get(topic) else {
                report_missing(&mut self.missing, topic);
                continue;
            };
            let was_missing = self.missing.remove(topic);
            let topic = Arc::clone(topic);
            match self.known.get(&topic).copied() {
                None => {
                    self.known.insert(Arc::clone(&topic), count);
                    changes.created.insert(topic, count);
                }
                // A stream keeps its order only while its key maps to the same partition.
                Some(known) if known != count => {
                    return Err(ConsumeError::Repartitioned { topic, known, found: count });
                }
                Some(_) if was_missing => {
                    changes.recreated.insert(topic, count);
                }
                Some(_) => {}
            }
        }
        Ok(changes)
    }
}

/// Logs once each time that a topic becomes missing.
fn report_missing(missing: &mut BTreeSet<Arc<str>>, topic: &Arc<str>) {
    if missing.insert(Arc::clone(topic)) {
        tracing::info!(
            %topic,
            "waiting for a topic that does not exist: the relay creates it with its first event"
        );
    }
}
