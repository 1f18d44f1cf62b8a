//! Evidence that the database still has everything that was published: looked for before anything is published, at every start
//! and whenever the database may have another history.

use std::sync::{Arc, Mutex};

use annals_store::Store;
use annals_store::outbox::{Bound, LogEnd};
use uuid::Uuid;

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::copy::{Ends, record_ends};
use crate::failure::Failure;
use crate::heard::locked;
use crate::published::{Behind, Comparison, line};

/// Diverging versions that a failure names.
const NAMED_MAX: usize = 10;

/// Looks for the evidence, and remembers of which run of the database it was found.
#[derive(Clone)]
pub(crate) struct Evidence {
    config: Arc<Config>,
    store: Store,
    verified: Arc<Mutex<Option<Arc<str>>>>,
}

impl Evidence {
    pub(crate) fn new(config: &Arc<Config>, store: &Store) -> Self {
        Self { config: Arc::clone(config), store: store.clone(), verified: Arc::default() }
    }

    /// What was found does not hold any more.
    pub(crate) fn forget(&self) {
        *locked(&self.verified) = None;
    }

    /// Looks once in each run of the database whether everything is there that topics have beyond their recorded ends.
    ///
    /// # Errors
    /// [`Failure::Diverged`] where something is not there, or something else is.
    pub(crate) async fn verify(&self, end: &LogEnd) -> Result<(), Failure> {
        if locked(&self.verified).as_ref() == Some(&end.incarnation) {
            return Ok(());
        }
        let mut comparison = Comparison::begin(&self.config, &self.store, Behind::Recorded).await?;
        let (mut named, mut diverging) = (Vec::new(), 0_usize);
        while let Some(compared) = comparison.next().await? {
            diverging += compared.diverging.len();
            let room = NAMED_MAX.saturating_sub(named.len());
            named.extend(compared.diverging.iter().take(room).map(line));
            if diverging == 0 {
                // What was compared once is not compared again.
                let ends = (Ends::Stored, &compared.ends);
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
        tracing::debug!(records = comparison.records(), "what is published is in the store");
        *locked(&self.verified) = Some(Arc::clone(&end.incarnation));
        Ok(())
    }

    /// Looks whether these checkpoints are of this store, and the events at their ends are in it.
    ///
    /// # Errors
    /// [`Failure::OtherStore`]; [`Failure::Diverged`].
    pub(crate) async fn verify_ends(
        &self,
        checkpoints: &[Checkpoint],
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
        let missing = self.store.outbox_missing(&mut connection, ends).await?;
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

/// The events that a checkpoint says were there: the last one that was published, and those at the ends of windows.
fn ends(checkpoint: &Checkpoint) -> impl Iterator<Item = (i64, Uuid)> {
    let progress = checkpoint.holds.iter().filter_map(|progress| progress.place.as_ref());
    let places = progress.chain([&checkpoint.place]);
    let bounds = places.flat_map(|place| [Some(&place.since), place.until.as_ref()]).flatten();
    bounds.filter_map(Bound::last).chain(checkpoint.last.map(|last| (last.position, last.event_id)))
}
