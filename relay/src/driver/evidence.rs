//! Evidence that the database has all published events: verified before anything is published, at
//! every start and whenever the database may have another history.

use std::sync::{Arc, Mutex};

use annals_store::Position;
use annals_store::Store;
use annals_store::outbox::{Bound, LogEnd};
use uuid::Uuid;

use crate::config::{Config, Delivery};
use crate::driver::comparison::{Comparison, describe};
use crate::driver::strangers::fence_strangers;
use crate::model::checkpoint::ShardCheckpoint;
use crate::report::failure::Failure;
use crate::report::threads::locked;
use crate::state::RelayTables;
use crate::state::topic_ends::{EndsOrigin, StartOffset, record_ends};

/// The most diverging versions that a failure names.
const NAMED_MAX: usize = 10;

/// Verifies the evidence, once for each incarnation of the database.
#[derive(Clone)]
pub(crate) struct EvidenceCheck {
    config: Arc<Config>,
    store: Store,
    verified: Arc<Mutex<Option<Arc<str>>>>,
}

impl EvidenceCheck {
    pub(crate) fn new(config: &Arc<Config>, store: &Store) -> Self {
        Self { config: Arc::clone(config), store: store.clone(), verified: Arc::default() }
    }

    /// Has it verified again.
    pub(crate) fn forget(&self) {
        *locked(&self.verified) = None;
    }

    /// Whether it is verified for this incarnation of the database.
    fn is_verified(&self, end: &LogEnd) -> bool {
        locked(&self.verified).as_ref() == Some(&end.incarnation)
    }

    /// Verifies that the store has all records that topics have beyond their recorded end offsets.
    ///
    /// # Errors
    /// [`Failure::Diverged`] if an event is missing, or another one has its version.
    pub(crate) async fn verify(&self, tables: &RelayTables, end: &LogEnd) -> Result<(), Failure> {
        if self.is_verified(end) {
            return Ok(());
        }
        if self.config.relay.delivery == Delivery::ExactlyOnce {
            // First: a stranger could publish more behind the records that are compared.
            fence_strangers(&self.config, tables, &end.incarnation).await?;
        }
        let mut comparison =
            Comparison::begin(&self.config, &self.store, StartOffset::Recorded).await?;
        let (mut named, mut diverging) = (Vec::new(), 0_usize);
        while let Some(compared) = comparison.next().await? {
            diverging += compared.diverging.len();
            let room = NAMED_MAX.saturating_sub(named.len());
            named.extend(compared.diverging.iter().take(room).map(describe));
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
        tracing::debug!(records = comparison.records(), "all published events are in the store");
        *locked(&self.verified) = Some(Arc::clone(&end.incarnation));
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
        let acquired = self.store.pool().acquire().await;
        let mut connection = acquired.map_err(Failure::database("connect"))?;
        let ends = checkpoints.iter().flat_map(ends);
        let missing = self.store.missing_events(&mut connection, ends).await?;
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

/// The events that a checkpoint names: the last published one, and the last ones of its windows.
fn ends(checkpoint: &ShardCheckpoint) -> impl Iterator<Item = (Position, Uuid)> {
    let progress = checkpoint.quarantine.iter().filter_map(|progress| progress.cursor.as_ref());
    let cursors = progress.chain([&checkpoint.cursor]);
    let bounds = cursors.flat_map(|cursor| [Some(&cursor.since), cursor.until.as_ref()]).flatten();
    bounds
        .filter_map(Bound::last_event)
        .chain(checkpoint.last.map(|last| (last.position, last.event_id)))
}
