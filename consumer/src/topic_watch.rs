//! Tracks which of a consumer's topics exist, and how many partitions they have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ConsumeError;
use crate::kafka::{CountsAnswer, PartitionCounts, RecordFetcher};

/// Interval of the check while topics are missing or brokers are unavailable.
const RECHECK: Duration = Duration::from_secs(1);

/// The topics of one consumer. Its methods are safe to cancel.
#[derive(Debug)]
pub(crate) struct TopicWatch {
    wanted: Vec<Arc<str>>,
    known: PartitionCounts,
    missing: BTreeSet<Arc<str>>,
    /// The topics that had fewer partitions at the last check than before.
    fewer: BTreeSet<Arc<str>>,
    /// The start of the next query; none while one is under way and no other was requested since.
    due: Option<Instant>,
    interval: Duration,
    was_answered: bool,
}

/// Topics that did not exist at the last check, or had fewer partitions, with their partition
/// counts.
#[derive(Debug, Default)]
pub(crate) struct TopicChanges {
    /// Found for the first time.
    pub(crate) created: PartitionCounts,
    /// Found again after they were missing: possibly deleted and created again.
    pub(crate) recreated: PartitionCounts,
    /// Found with more partitions than before.
    pub(crate) grown: BTreeMap<Arc<str>, AddedPartitions>,
}

/// The partition counts of a topic before and after partitions were added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddedPartitions {
    pub(crate) recorded: i32,
    pub(crate) found: i32,
}

impl TopicChanges {
    /// The partition counts of all these topics.
    pub(crate) fn into_counts(self) -> PartitionCounts {
        let grown = self.grown.into_iter().map(|(topic, added)| (topic, added.found));
        self.created.into_iter().chain(self.recreated).chain(grown).collect()
    }
}

impl AddedPartitions {
    /// Logs them. The relay goes on using the first ones, so that each stream keeps its order.
    pub(crate) fn report(self, topic: &str) {
        let Self { recorded, found } = self;
        tracing::warn!(
            event = "partitions_added",
            topic,
            recorded,
            found,
            "a topic has more partitions than before: the added ones are read as well"
        );
    }
}

impl TopicWatch {
    pub(crate) fn new(topics: &[&str], interval: Duration) -> Self {
        let mut wanted: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
        wanted.sort();
        wanted.dedup();
        Self {
            wanted,
            known: BTreeMap::new(),
            missing: BTreeSet::new(),
            fewer: BTreeSet::new(),
            due: Some(Instant::now()),
            interval,
            was_answered: false,
        }
    }

    /// When the next [`check`](Self::check) is due. The end of a query under way makes one due,
    /// too.
    pub(crate) fn due(&self, fetcher: &RecordFetcher) -> Instant {
        let due = self.due.filter(|_| !fetcher.is_asking());
        due.unwrap_or_else(|| Instant::now() + self.interval)
    }

    /// Requests a query, after the one under way.
    pub(crate) fn check_now(&mut self) {
        self.due = Some(Instant::now());
    }

    /// The topics found so far, with their partition counts.
    pub(crate) fn known(&self) -> &PartitionCounts {
        &self.known
    }

    /// Whether it is known which of the topics exist.
    pub(crate) const fn was_answered(&self) -> bool {
        self.was_answered
    }

    /// Takes the answer of a query, or begins one if it is due. Does not wait: records are read
    /// meanwhile.
    pub(crate) fn check(
        &mut self,
        fetcher: &mut RecordFetcher,
    ) -> Result<TopicChanges, ConsumeError> {
        let changes = match fetcher.take_partition_counts()? {
            CountsAnswer::None => {
                if !fetcher.is_asking() && self.due.is_some_and(|due| due <= Instant::now()) {
                    fetcher.ask_partition_counts(&self.wanted);
                    self.due = None;
                }
                return Ok(TopicChanges::default());
            }
            CountsAnswer::Unavailable => TopicChanges::default(),
            CountsAnswer::Found(found) => {
                self.was_answered = true;
                self.compare(&found.counts)?
            }
        };
        let is_unclear = !self.missing.is_empty() || !self.fewer.is_empty();
        let soon = fetcher.is_unavailable() || is_unclear;
        let interval = if soon { RECHECK.min(self.interval) } else { self.interval };
        self.due.get_or_insert_with(|| Instant::now() + interval);
        Ok(changes)
    }

    /// Queries the topics, and waits for the answer.
    pub(crate) async fn check_and_wait(
        &mut self,
        fetcher: &mut RecordFetcher,
    ) -> Result<TopicChanges, ConsumeError> {
        fetcher.ask_partition_counts(&self.wanted);
        fetcher.answered().await;
        self.due = None;
        self.check(fetcher)
    }

    fn compare(&mut self, found: &PartitionCounts) -> Result<TopicChanges, ConsumeError> {
        let mut changes = TopicChanges::default();
        for topic in &self.wanted {
            let Some(&count) = found.get(topic) else {
                report_missing(&mut self.missing, topic);
                continue;
            };
            let was_missing = self.missing.remove(topic);
            let was_fewer = self.fewer.remove(topic);
            let topic = Arc::clone(topic);
            match self.known.get(&topic).copied() {
                None => {
                    self.known.insert(Arc::clone(&topic), count);
                    changes.created.insert(topic, count);
                }
                Some(known) if count < known && was_fewer => {
                    return Err(ConsumeError::Repartitioned { topic, known, found: count });
                }
                // A broker may not know of added partitions yet.
                Some(known) if count < known => {
                    self.fewer.insert(topic);
                }
                Some(recorded) if count > recorded => {
                    self.known.insert(Arc::clone(&topic), count);
                    changes.grown.insert(topic, AddedPartitions { recorded, found: count });
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
