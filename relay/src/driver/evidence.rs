//! Evidence that the database has all published events: verified before anything is published, at
//! every start and whenever the database may have another history.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_relay_machine::Operation;
use annals_store::Position;
use annals_store::Store;
use annals_store::outbox::{Bound, LogEnd};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::config::{Config, Delivery};
use crate::driver::comparison::{ComparedTopics, Comparison, describe};
use crate::driver::strangers::fence_strangers;
use crate::kafka::topic_admin::ByTopic;
use crate::model::checkpoint::ShardCheckpoint;
use crate::publish::ReaderHandle;
use crate::publish::uncompared::UncomparedTopics;
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;
use crate::report::threads::locked;
use crate::report::{Report, Reporter};
use crate::state::RelayTables;
use crate::state::topic_ends::{EndsOrigin, StartOffset, record_ends};

/// The most diverging versions that a failure names.
const NAMED_MAX: usize = 10;

/// The interval at which topics that could not be read are compared again.
const COMPARISON_INTERVAL: Duration = Duration::from_secs(5);

/// Verifies the evidence, once for each incarnation of the database.
#[derive(Clone)]
pub(crate) struct EvidenceCheck {
    comparer: Comparer,
    verified: Arc<Mutex<Option<Verified>>>,
}

/// Compares topics with the store.
#[derive(Clone)]
struct Comparer {
    config: Arc<Config>,
    store: Store,
    uncompared: Arc<UncomparedTopics>,
}

struct Verified {
    incarnation: Arc<str>,
    /// Compares the topics that could not be read.
    _later: JoinSet<()>,
}

impl EvidenceCheck {
    pub(crate) fn new(
        config: &Arc<Config>,
        store: &Store,
        uncompared: Arc<UncomparedTopics>,
    ) -> Self {
        let (config, store) = (Arc::clone(config), store.clone());
        Self { comparer: Comparer { config, store, uncompared }, verified: Arc::default() }
    }

    /// The topics that could not be read.
    pub(crate) const fn uncompared(&self) -> &Arc<UncomparedTopics> {
        &self.comparer.uncompared
    }

    /// Has it verified again.
    pub(crate) fn forget(&self) {
        *locked(&self.verified) = None;
    }

    /// Whether it is verified for this incarnation of the database.
    fn is_verified(&self, end: &LogEnd) -> bool {
        locked(&self.verified).as_ref().is_some_and(|of| of.incarnation == end.incarnation)
    }

    /// Verifies that the store has all records that topics have beyond their recorded end offsets.
    /// Topics that cannot be read at the moment are left to a task: the categories of these wait.
    ///
    /// # Errors
    /// [`Failure::Diverged`] if an event is missing, or another one has its version.
    pub(crate) async fn verify(
        &self,
        tables: &RelayTables,
        end: &LogEnd,
        (reader, reporter): (&ReaderHandle, &Reporter),
    ) -> Result<(), Failure> {
        if self.is_verified(end) {
            return Ok(());
        }
        // A task of an earlier verification ends.
        self.forget();
        let Comparer { config, uncompared, .. } = &self.comparer;
        if config.relay.delivery == Delivery::ExactlyOnce {
            // First: a stranger could publish more behind the records that are compared.
            fence_strangers(config, tables, &end.incarnation).await?;
        }
        let unread = self.comparer.compare(ComparedTopics::All, end, Some(reporter)).await?;
        let mut later = JoinSet::new();
        if !unread.is_empty() {
            unread.iter().for_each(log_unread);
            // One of them may be in use.
            reader.forget_topics();
            later.spawn(self.comparer.clone().compare_later(end.clone()));
        }
        uncompared.replace(unread);
        let incarnation = Arc::clone(&end.incarnation);
        *locked(&self.verified) = Some(Verified { incarnation, _later: later });
        Ok(())
    }

    /// Verifies that these checkpoints are of this store, and that it has their last events.
    ///
    /// # Errors
    /// [`Failure::OtherStore`]; [`Failure::Diverged`].
    pub(crate) async fn verify_ends(
        &self,
        checkpoints: &[ShardCheckpoint],
        end: &LogEnd,
    ) -> Result<(), Failure> {
        let other = checkpoints.iter().find(|of| of.history.store_id != end.history.store_id);
        if let Some(other) = other {
            let published = Box::new(other.history.clone());
            let found = Box::new(end.history.clone());
            return Err(Failure::OtherStore { published, found });
        }
        let store = &self.comparer.store;
        let acquired = store.pool().acquire().await;
        let mut connection = acquired.map_err(Failure::database("connect"))?;
        let ends = checkpoints.iter().flat_map(ends);
        let missing = store.missing_events(&mut connection, ends).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let named = missing.iter().take(NAMED_MAX);
        let named =
            named.map(|id| format!("diverges: event {id}, at the end of a checkpoint")).collect();
        let found = Box::new(end.history.clone());
        Err(Failure::Diverged { diverging: missing.len(), named, found })
    }
}

impl Comparer {
    /// Compares the topics that could not be read, until all of them are compared.
    async fn compare_later(self, end: LogEnd) {
        loop {
            tokio::time::sleep(COMPARISON_INTERVAL).await;
            let topics = self.uncompared.names();
            match self.compare(ComparedTopics::Some(topics), &end, None).await {
                Ok(unread) if unread.is_empty() => return self.uncompared.replace(unread),
                Ok(unread) => self.uncompared.replace(unread),
                Err(failure) if failure.class().halts() => {
                    return self.uncompared.refuse(failure);
                }
                Err(failure) => {
                    let error = failure.in_full();
                    tracing::debug!(error, "cannot compare topics with the store");
                }
            }
        }
    }

    /// Compares topics with the store, and reports the progress to a driver that waits for it;
    /// returns those that cannot be read, with the reason.
    async fn compare(
        &self,
        topics: ComparedTopics,
        end: &LogEnd,
        waiting: Option<&Reporter>,
    ) -> Result<ByTopic<KafkaFailure>, Failure> {
        let of = (topics, StartOffset::Recorded);
        let mut comparison = Comparison::begin(&self.config, &self.store, of).await?;
        let (mut named, mut diverging) = (Vec::new(), 0_usize);
        let mut unread = ByTopic::new();
        while let Some(compared) = comparison.next().await? {
            if let Some(reporter) = waiting {
                reporter.send(Report::Advanced(Operation::ReadCheckpoints)).await;
            }
            diverging += compared.diverging.len();
            let room = NAMED_MAX.saturating_sub(named.len());
            named.extend(compared.diverging.iter().take(room).map(describe));
            unread.extend(compared.unread);
            if diverging == 0 {
                // The next verification begins behind these records.
                let ends = (EndsOrigin::Stored, &compared.ends);
                record_ends(&self.store, &self.config, &end.incarnation, ends).await?;
            }
        }
        if diverging > 0 {
            return Err(Failure::Diverged {
                diverging,
                named,
                found: Box::new(end.history.clone()),
            });
        }
        tracing::debug!(records = comparison.records(), "the published events are in the store");
        Ok(unread)
    }
}

fn log_unread((topic, failure): (&String, &KafkaFailure)) {
    tracing::warn!(
        event = "topic_not_compared",
        topic,
        error = failure.to_string(),
        "cannot compare the records of topic {topic} with the store: its category waits until they can be read"
    );
}

/// The events that a checkpoint names: the last published one, and the last ones of its windows.
fn ends(checkpoint: &ShardCheckpoint) -> impl Iterator<Item = (Position, Uuid)> {
    let progress = checkpoint.quarantine.iter().filter_map(|progress| progress.cursor.as_ref());
    let cursors = progress.chain([&checkpoint.cursor]);
    let bounds = cursors.flat_map(|cursor| [Some(&cursor.since), cursor.until.as_ref()]).flatten();
    bounds
        .filter_map(Bound::last_event)
        .chain(checkpoint.last.map(|last| (last.position, last.event_id)))
}
