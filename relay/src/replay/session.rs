//! The row of a replay in PostgreSQL: its events, and the process that replays. The lease
//! only lets two processes refuse each other; what keeps a process that was taken for dead from
//! publishing is the transactional id, which the next one fences.

use std::time::Duration;

use annals_store::Store;
use sqlx::Row;
use sqlx::types::Json;
use uuid::Uuid;

use crate::replay::plan::Plan;
use crate::replay::{ReplayError, Result};
use crate::report::failure::Failure;

/// How much longer than a lease the begin waits for the process of an earlier one.
const PATIENCE: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// A replay that this process has.
#[derive(Debug, Clone)]
pub(crate) struct ReplaySession {
    store: Store,
    pub(super) replay: i64,
    pub(super) plan: Plan,
    session: Uuid,
    lease: Duration,
}

/// The end of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplayEnd {
    /// Everything is published.
    Finished,
    /// An operator gave it up.
    Abandoned,
}

/// The recorded facts of a replay.
struct RecordedReplay {
    outcome: String,
    replay: Option<i64>,
    plan: Option<Plan>,
    left: Duration,
}

impl ReplaySession {
    /// Begins a replay with this plan and reason; or resumes the unfinished one without. Waits for
    /// the lease of a process that has just died.
    pub(super) async fn begin(
        store: &Store,
        deployment: &str,
        new: Option<(&Plan, &str)>,
        lease: Duration,
    ) -> Result<Self> {
        let session = Uuid::now_v7();
        let mut waited = Duration::ZERO;
        loop {
            let RecordedReplay { outcome, replay, plan, left } =
                ask(store, deployment, new, (session, lease)).await?;
            let replay = replay.unwrap_or_default();
            match (outcome.as_str(), plan) {
                ("begun" | "resumed", Some(plan)) => {
                    return Ok(Self { store: store.clone(), replay, plan, session, lease });
                }
                ("running", _) if new.is_none() && waited <= lease + PATIENCE => {
                    let pause = left.min(RETRY_INTERVAL).max(Duration::from_millis(10));
                    tokio::time::sleep(pause).await;
                    waited += pause;
                }
                ("running", _) => return Err(ReplayError::Running { replay }),
                ("unfinished", _) => return Err(ReplayError::Unfinished { replay }),
                _ => return Err(ReplayError::NothingToResume),
            }
        }
    }

    /// Renews the lease.
    ///
    /// # Errors
    /// [`ReplayError::Running`] if another process has the replay.
    pub(super) async fn keep(&self, events: u64) -> Result {
        let statement = self.store.schema().statement(include_str!("../../sql/replay_renew.sql"));
        let renewed: bool = sqlx::query_scalar(statement)
            .bind(self.replay)
            .bind(self.session)
            .bind(millis(self.lease))
            .bind(i64::try_from(events).unwrap_or(i64::MAX))
            .fetch_one(self.store.pool())
            .await
            .map_err(Failure::database("renew the lease of the replay"))?;
        if renewed { Ok(()) } else { Err(ReplayError::Running { replay: self.replay }) }
    }

    /// Ends the replay.
    pub(super) async fn end(&self, end: ReplayEnd, events: u64) -> Result {
        let state = match end {
            ReplayEnd::Finished => "finished",
            ReplayEnd::Abandoned => "abandoned",
        };
        let statement = self.store.schema().statement(include_str!("../../sql/replay_end.sql"));
        let ended: bool = sqlx::query_scalar(statement)
            .bind(self.replay)
            .bind(self.session)
            .bind(state)
            .bind(i64::try_from(events).unwrap_or(i64::MAX))
            .fetch_one(self.store.pool())
            .await
            .map_err(Failure::database("end the replay"))?;
        if ended { Ok(()) } else { Err(ReplayError::Running { replay: self.replay }) }
    }
}

async fn ask(
    store: &Store,
    deployment: &str,
    new: Option<(&Plan, &str)>,
    (session, lease): (Uuid, Duration),
) -> Result<RecordedReplay> {
    let statement = store.schema().statement(include_str!("../../sql/replay_begin.sql"));
    let row = sqlx::query(statement)
        .bind(deployment)
        .bind(new.map(|(plan, _)| Json(plan)))
        .bind(new.map(|(_, reason)| reason))
        .bind(session)
        .bind(millis(lease))
        .fetch_one(store.pool())
        .await
        .map_err(Failure::database("begin a replay"))?;
    let read = || {
        let plan: Option<Json<Plan>> = row.try_get("plan")?;
        let left_ms: Option<i64> = row.try_get("left_ms")?;
        let left = Duration::from_millis(left_ms.unwrap_or_default().unsigned_abs());
        let plan = plan.map(|Json(plan)| plan);
        let (outcome, replay) = (row.try_get("outcome")?, row.try_get("replay")?);
        Ok(RecordedReplay { outcome, replay, plan, left })
    };
    Ok(read().map_err(Failure::database("begin a replay"))?)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
