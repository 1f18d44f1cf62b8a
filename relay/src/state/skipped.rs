//! Skipped events: an operator skipped them, or the topics have them already.

use annals_store::{Position, Store};

use crate::report::failure::Failure;

/// The most positions in memory.
const POSITIONS_MAX: i64 = 50_000;

/// The skipped events of a deployment, loaded in ranges of positions: after a rebase there can be
/// many.
pub(crate) struct SkippedEvents {
    store: Store,
    deployment: String,
    loaded: Option<LoadedRange>,
}

/// The skipped events from a position on.
struct LoadedRange {
    first: Position,
    /// The last position of the range; none: it has no end.
    last: Option<Position>,
    positions: Vec<Position>,
}

impl LoadedRange {
    fn covers(&self, position: Position) -> bool {
        position >= self.first && self.last.is_none_or(|last| position <= last)
    }
}

impl SkippedEvents {
    pub(crate) fn new(store: &Store, deployment: &str) -> Self {
        Self { store: store.clone(), deployment: deployment.to_owned(), loaded: None }
    }

    /// Has them loaded again: an operator may have skipped one.
    pub(crate) fn forget(&mut self) {
        self.loaded = None;
    }

    /// Whether the event at this position is skipped.
    pub(crate) async fn contains(&mut self, position: Position) -> Result<bool, Failure> {
        let loaded = match self.loaded.take().filter(|loaded| loaded.covers(position)) {
            Some(loaded) => loaded,
            None => self.load(position).await?,
        };
        let is_skipped = loaded.positions.binary_search(&position).is_ok();
        self.loaded = Some(loaded);
        Ok(is_skipped)
    }

    async fn load(&self, position: Position) -> Result<LoadedRange, Failure> {
        let statement = self.store.schema().statement(include_str!("../../sql/skipped.sql"));
        let positions: Vec<Position> = sqlx::query_scalar(statement)
            .bind(&self.deployment)
            .bind(position)
            .bind(POSITIONS_MAX)
            .fetch_all(self.store.pool())
            .await
            .map_err(Failure::database("read the skipped events"))?;
        let is_all = i64::try_from(positions.len()).is_ok_and(|found| found < POSITIONS_MAX);
        let last = if is_all { None } else { positions.last().copied() };
        Ok(LoadedRange { first: position, last, positions })
    }
}
