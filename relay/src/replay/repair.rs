//! Repair: events that an audit did not find in their topics are published again.

use std::collections::BTreeMap;

use annals_store::Position;
use sqlx::Row;

use crate::replay::plan::{LostEvents, ReplayPart};
use crate::replay::session::ReplayEnd;
use crate::replay::{Replay, ReplayError, ReplaySelection, Replayed, Result};
use crate::report::failure::Failure;

/// The most lost events that are listed.
const LOST_MAX: usize = 1_000_000;
/// The most positions of a part: they are bound to the statement of each of its pages.
const PART_POSITIONS_MAX: usize = 20_000;

/// The lost events that an audit finds.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    positions: BTreeMap<String, Vec<Position>>,
    events: usize,
}

impl Losses {
    /// Adds an event; those of a category come in position order.
    pub(crate) fn add(&mut self, category: &str, position: Position) {
        self.events += 1;
        if self.events <= LOST_MAX {
            self.positions.entry(category.to_owned()).or_default().push(position);
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.events == 0
    }

    fn parts(&self) -> Result<Vec<ReplayPart>> {
        if self.events > LOST_MAX {
            return Err(ReplayError::TooManyLost { max: LOST_MAX });
        }
        let parts = self.positions.iter().flat_map(|(category, positions)| {
            positions.chunks(PART_POSITIONS_MAX).map(|positions| {
                let (category, positions) = (category.clone(), positions.to_vec());
                ReplayPart::Lost(LostEvents { category, positions })
            })
        });
        Ok(parts.collect())
    }
}

impl Replay<'_> {
    /// The last replay before an audit, for [`repair`](Self::repair).
    ///
    /// # Errors
    /// [`ReplayError::Unfinished`]: the audit would not see what it is to publish.
    pub(crate) async fn last_before_audit(&self) -> Result<i64> {
        let (last, unfinished) = self.last(i64::MAX).await?;
        unfinished.map_or(Ok(last), |replay| Err(ReplayError::Unfinished { replay }))
    }

    /// Publishes lost events again, unless another replay ran since the audit began.
    pub(crate) async fn repair(
        &self,
        losses: &Losses,
        (selection, shards): (&ReplaySelection, i16),
        reason: &str,
        last: i64,
    ) -> Result<Replayed> {
        let plan = self.plan_of(losses.parts()?, selection, shards).await?;
        let session = self.begin(Some((&plan, reason))).await?;
        let (replay, _) = self.last(session.replay).await?;
        if replay != last {
            session.end(ReplayEnd::Abandoned, 0).await?;
            return Err(ReplayError::Meanwhile { replay });
        }
        self.execute(session).await
    }

    async fn last(&self, before: i64) -> Result<(i64, Option<i64>)> {
        let action = "read the last replay";
        let statement = self.store.schema().statement(include_str!("../../sql/replay_last.sql"));
        let row = sqlx::query(statement).bind(self.config.publication()).bind(before);
        let row = row.fetch_one(self.store.pool()).await.map_err(Failure::database(action))?;
        let read = || Ok((row.try_get("last")?, row.try_get("unfinished")?));
        Ok(read().map_err(Failure::database(action))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_split_into_parts_of_a_category_and_too_many_are_refused() {
        let position = |number: usize| Position::new(i64::try_from(number).unwrap()).unwrap();
        let mut losses = Losses::default();
        (1..=PART_POSITIONS_MAX + 1).for_each(|number| losses.add("a", position(number)));
        losses.add("b", position(7));
        let sizes: Vec<(String, usize)> = losses
            .parts()
            .unwrap()
            .into_iter()
            .map(|part| match part {
                ReplayPart::Lost(lost) => (lost.category, lost.positions.len()),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [("a", PART_POSITIONS_MAX), ("a", 1), ("b", 1)];
        assert_eq!(sizes, expected.map(|(category, size)| (category.to_owned(), size)));
        (0..LOST_MAX).for_each(|number| losses.add("c", position(number + 1)));
        assert!(matches!(losses.parts(), Err(ReplayError::TooManyLost { .. })));
    }
}
