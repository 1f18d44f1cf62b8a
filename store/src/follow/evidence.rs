//! Verification that the events which a follower has processed are still in the store.

use std::time::Instant;

use sqlx::{PgConnection, Row};

use super::checkpoint::{Checkpoint, Evidence};
use crate::error::Error;
use crate::outbox::{LogEnd, Window};
use crate::read::stretch::Stretch;
use crate::store::Store;
use crate::stream::Position;

/// Verifies that all events before a checkpoint are in the store.
pub(super) async fn verify(
    store: &Store,
    checkpoint: &Checkpoint,
    end: &LogEnd,
) -> Result<(), Error> {
    let acquired = store.pool().acquire().await;
    let mut connection = acquired.map_err(Error::database("verify a checkpoint"))?;
    let bounds = [Some(&checkpoint.since), checkpoint.until.as_ref()].into_iter().flatten();
    let last_events = bounds.filter_map(|bound| bound.last_event());
    let other_history = |since, processed, present| Error::OtherHistory {
        checkpoint: Box::new((*checkpoint.history).clone()),
        found: Box::new(end.history.clone()),
        since,
        processed,
        present,
    };
    if !store.missing_events(&mut connection, last_events).await?.is_empty() {
        return Err(other_history(checkpoint.since.position.before(), 1, 0));
    }
    let Some(evidence) = &checkpoint.evidence else { return Ok(()) };
    let late = store.late_events(&mut connection, &evidence.since).await?;
    let lowest = late.map_or(evidence.since.position, |late| late.first_position().before());
    let mut start = lowest.max(evidence.start);
    loop {
        let (events, digest) = count_present(store, &mut connection, evidence, start).await?;
        if events == evidence.events && digest == evidence.digest {
            return Ok(());
        }
        if start > evidence.start {
            // A copy without the outbox does not know which events were late.
            start = evidence.start;
            continue;
        }
        return Err(other_history(evidence.since.position, evidence.events, events));
    }
}

/// The number of processed events after a position that are present, and their digest.
async fn count_present(
    store: &Store,
    connection: &mut PgConnection,
    evidence: &Evidence,
    start: Position,
) -> Result<(u64, i64), Error> {
    let (mut start, mut stretch, mut counted) = (start, Stretch::FIRST, (0, 0));
    while start < evidence.after {
        let last = evidence.after.min(start.saturating_add(stretch.positions()));
        let started_at = Instant::now();
        let (events, digest) = count_between(store, connection, evidence, (start, last)).await?;
        counted = (counted.0 + events, counted.1 ^ digest);
        stretch.passed(started_at.elapsed());
        start = last;
    }
    Ok(counted)
}

async fn count_between(
    store: &Store,
    connection: &mut PgConnection,
    Evidence { since, until, filter, .. }: &Evidence,
    (start, last): (Position, Position),
) -> Result<(u64, i64), Error> {
    let window = Window { since, until };
    let row = window
        .bind_to(store.statements().follow_evidence.clone(), start)
        .bind(last)
        .bind(filter.types.as_deref())
        .bind(filter.category.as_deref())
        .fetch_one(connection);
    let row = store.within_deadline(row).await;
    let counted = row.and_then(|row| {
        let events: i64 = row.try_get("events")?;
        Ok((events.unsigned_abs(), row.try_get("digest")?))
    });
    counted.map_err(Error::database("verify a checkpoint"))
}
