//! Which topics are wanted, which of them exist, and that their partitions stay as many as they were.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::consumer::ConsumeError;
use crate::kafka::Reader;

/// How soon to look again for what is missing or away.
const SOON: Duration = Duration::from_secs(1);

/// The topics of one consumer. Its methods are safe to cancel.
#[derive(Debug)]
pub(crate) struct Topics {
    wanted: Vec<Arc<str>>,
    known: BTreeMap<Arc<str>, i32>,
    said_missing: bool,
    due: Instant,
    interval: Duration,
}

impl Topics {
    pub(crate) fn new(topics: &[&str], interval: Duration) -> Self {
        let mut wanted: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
        wanted.sort();
        wanted.dedup();
        let known = BTreeMap::new();
        Self { wanted, known, said_missing: false, due: Instant::now(), interval }
    }

    /// When [`check`](Self::check) wants to be called next.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// The topics found so far, with their partition counts.
    pub(crate) fn known(&self) -> &BTreeMap<Arc<str>, i32> {
        &self.known
    }

    /// Looks at the topics now; returns those that were found for the first time.
    pub(crate) async fn check(
        &mut self,
        reader: &mut Reader,
    ) -> Result<BTreeMap<Arc<str>, i32>, ConsumeError> {
        let found = reader.partition_counts(&self.wanted).await.unwrap_or_default();
        let appeared = self.compare(found)?;
        self.report_missing(reader);
        let soon = reader.is_away() || self.known.len() < self.wanted.len();
        self.due = Instant::now() + if soon { SOON.min(self.interval) } else { self.interval };
        Ok(appeared)
    }

    /// The order of a stream rests on its key always meaning the same partition.
    fn compare(
        &mut self,
        found: BTreeMap<Arc<str>, i32>,
    ) -> Result<BTreeMap<Arc<str>, i32>, ConsumeError> {
        let mut appeared = BTreeMap::new();
        for (topic, found) in found {
            match self.known.get(&topic) {
                Some(&known) if known != found => {
                    return Err(ConsumeError::Repartitioned { topic, known, found });
                }
                Some(_) => {}
                None => {
                    appeared.insert(topic, found);
                }
            }
        }
        self.known.extend(appeared.clone());
        Ok(appeared)
    }

    fn report_missing(&mut self, reader: &Reader) {
        let missing: Vec<&str> = self
            .wanted
            .iter()
            .filter(|t| !self.known.contains_key(*t))
            .map(AsRef::as_ref)
            .collect();
        if missing.is_empty() || self.said_missing || reader.is_away() {
            return;
        }
        self.said_missing = true;
        tracing::info!(
            topics = missing.join(","),
            "waiting for topics that do not exist yet: the relay creates them with their first event"
        );
    }
}
