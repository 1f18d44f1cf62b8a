//! Events that a deployment does not publish: an operator skipped them, or its topics have them already.

use annals_store::Store;

use crate::failure::Failure;

/// Most positions in memory.
const POSITIONS_MAX: i64 = 50_000;

/// Which events are passed, read as they are asked for: after a rebase there can be many.
pub(crate) struct Passed {
    store: Store,
    deployment: String,
    known: Option<Known>,
}

/// The passed events from a position on.
struct Known {
    first: i64,
    /// The last position of which it is known; none: of all.
    last: Option<i64>,
    positions: Vec<i64>,
}

impl Known {
    fn covers(&self, position: i64) -> bool {
        position >= self.first && self.last.is_none_or(|last| position <= last)
    }
}

impl Passed {
    pub(crate) fn new(store: &Store, deployment: &str) -> Self {
        Self { store: store.clone(), deployment: deployment.to_owned(), known: None }
    }

    /// They are read again: an operator may have skipped one.
    pub(crate) fn forget(&mut self) {
        self.known = None;
    }

    /// Whether the event at this position is passed.
    pub(crate) async fn contains(&mut self, position: i64) -> Result<bool, Failure> {
        let known = match self.known.take().filter(|known| known.covers(position)) {
            Some(known) => known,
            None => self.read(position).await?,
        };
        let is_passed = known.positions.binary_search(&position).is_ok();
        self.known = Some(known);
        Ok(is_passed)
    }

    async fn read(&self, position: i64) -> Result<Known, Failure> {
        let statement = self.store.schema().statement(include_str!("../../sql/skipped.sql"));
        let positions: Vec<i64> = sqlx::query_scalar(statement)
            .bind(&self.deployment)
            .bind(position)
            .bind(POSITIONS_MAX)
            .fetch_all(self.store.pool())
            .await
            .map_err(Failure::database("read which events are passed"))?;
        let is_all = i64::try_from(positions.len()).is_ok_and(|found| found < POSITIONS_MAX);
        let last = if is_all { None } else { positions.last().copied() };
        Ok(Known { first: position, last, positions })
    }
}
