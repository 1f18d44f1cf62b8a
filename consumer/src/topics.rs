//! Which topics are wanted, which of them exist, and that their partitions stay as many as they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::consumer::ConsumeError;
use crate::kafka::{Counts, Reader};

/// How soon to look again for what is missing or away.
const SOON: Duration = Duration::from_secs(1);

/// The topics of one consumer. Its methods are safe to cancel.
#[derive(Debug)]
pub(crate) struct Topics {
    wanted: Vec<Arc<str>>,
    known: Counts,
    missing: BTreeSet<Arc<str>>,
    due: Instant,
    interval: Duration,
}

/// Topics that were not there when last looked at, with their partition counts.
#[derive(Debug, Default)]
pub(crate) struct Appeared {
    /// Never seen before.
    pub(crate) first: Counts,
    /// Gone for a while: possibly deleted and made anew.
    pub(crate) again: Counts,
}

impl Topics {
    pub(crate) fn new(topics: &[&str], interval: Duration) -> Self {
        let mut wanted: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
        wanted.sort();
        wanted.dedup();
        let (known, missing) = (BTreeMap::new(), BTreeSet::new());
        Self { wanted, known, missing, due: Instant::now(), interval }
    }

    /// When [`check`](Self::check) wants to be called next.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Makes [`check`](Self::check) due at once.
    pub(crate) fn hurry(&mut self) {
        self.due = Instant::now();
    }

    /// The topics found so far, with their partition counts.
    pub(crate) fn known(&self) -> &Counts {
        &self.known
    }

    /// Looks at the topics now.
    pub(crate) async fn check(&mut self, reader: &mut Reader) -> Result<Appeared, ConsumeError> {
        let appeared = match reader.partition_counts(&self.wanted).await {
            Some(found) => self.compare(&found)?,
            None => Appeared::default(),
        };
        let soon = reader.is_away() || !self.missing.is_empty();
        self.due = Instant::now() + if soon { SOON.min(self.interval) } else { self.interval };
        Ok(appeared)
    }

    fn compare(&mut self, found: &Counts) -> Result<Appeared, ConsumeError> {
        let mut appeared = Appeared::default();
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
                    appeared.first.insert(topic, count);
                }
                // The order of a stream rests on its key always meaning the same partition.
                Some(known) if known != count => {
                    return Err(ConsumeError::Repartitioned { topic, known, found: count });
                }
                Some(_) if was_missing => {
                    appeared.again.insert(topic, count);
                }
                Some(_) => {}
            }
        }
        Ok(appeared)
    }
}

/// Once for each time that it goes missing.
fn report_missing(missing: &mut BTreeSet<Arc<str>>, topic: &Arc<str>) {
    if missing.insert(Arc::clone(topic)) {
        tracing::info!(
            %topic,
            "waiting for a topic that does not exist: the relay creates it with its first event"
        );
    }
}
