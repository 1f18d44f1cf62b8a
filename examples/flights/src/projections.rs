//! The two projections: one consumes flights, one aircraft, both into the read model.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use annals_consumer::{Projection, RunProgress, RunTotals, Runner, SchemaRegistry};
use annals_store::EventSet;
use anyhow::{Context, Result, bail};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::counts::STANDSTILL_MAX;
use crate::events::{AircraftEvent, FlightEvent};
use crate::figures::grouped;
use crate::lags::Lags;
use crate::read_model::{apply_aircraft, apply_flights};
use crate::run::Run;
use crate::seen::settings;

const BATCH_EVENTS_MAX: u16 = 2_000;

/// Events that are applied to the read model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) flights: u64,
    pub(crate) aircraft: u64,
}

/// The counters that both projections write to.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    pub(crate) applied: watch::Sender<Applied>,
    pub(crate) lags: Lags,
    pub(crate) shutdown: CancellationToken,
}

impl Reports {
    fn tell(&self, progress: &RunProgress<'_>, of: fn(&mut Applied) -> &mut u64) {
        self.lags.record(progress.lags);
        self.applied.send_if_modified(|applied| {
            let before = std::mem::replace(of(applied), progress.totals.events);
            before != progress.totals.events
        });
    }
}

/// Runs the projection of flights until `shutdown`.
pub(crate) async fn run_flights(pool: PgPool, run: Run, reports: Reports) -> Result<RunTotals> {
    let runner = runner::<FlightEvent>(&pool, &run).await?;
    let hook = |progress: &RunProgress<'_>| {
        reports.tell(progress, |applied| &mut applied.flights);
        ControlFlow::Continue(())
    };
    let ended = runner.run_until(&reports.shutdown, hook, apply_flights).await;
    ended.context("apply the events of flights to the read model")
}

/// Runs the projection of aircraft until `shutdown`.
pub(crate) async fn run_aircraft(pool: PgPool, run: Run, reports: Reports) -> Result<RunTotals> {
    let runner = runner::<AircraftEvent>(&pool, &run).await?;
    let hook = |progress: &RunProgress<'_>| {
        reports.tell(progress, |applied| &mut applied.aircraft);
        ControlFlow::Continue(())
    };
    let ended = runner.run_until(&reports.shutdown, hook, apply_aircraft).await;
    ended.context("apply the events of aircraft to the read model")
}

async fn runner<E: EventSet>(pool: &PgPool, run: &Run) -> Result<Runner> {
    let topic = run.topic(E::CATEGORY);
    let name = format!("demo-{}", E::CATEGORY);
    let batch_events_max =
        NonZeroUsize::new(BATCH_EVENTS_MAX.into()).context("a batch of no events")?;
    let projection = Projection::new(&name, &[&topic])?.batch_events_max(batch_events_max);
    projection.prepare(pool).await.context("prepare the projections")?;
    let schemas = SchemaRegistry::new(&run.registry_url)
        .context("use the registry at ANNALS_REGISTRY_URL")?;
    Ok(projection.runner(pool, settings(run, E::CATEGORY), schemas))
}

/// Waits until the projections have applied every expected event. Gives up when nothing moves any
/// more, and names the missing ones.
pub(crate) async fn wait_for(
    applied: &mut watch::Receiver<Applied>,
    expected: Applied,
) -> Result<()> {
    loop {
        let now = *applied.borrow_and_update();
        if now.flights > expected.flights || now.aircraft > expected.aircraft {
            bail!(
                "more events came out of Kafka than were appended: {}",
                side_by_side(now, expected)
            );
        }
        if now == expected {
            return Ok(());
        }
        match tokio::time::timeout(STANDSTILL_MAX, applied.changed()).await {
            Ok(changed) => changed.context("the projections have ended")?,
            Err(_elapsed) => bail!(
                "nothing has come for {} s, and events are missing: {}",
                STANDSTILL_MAX.as_secs(),
                side_by_side(now, expected)
            ),
        }
    }
}

fn side_by_side(now: Applied, expected: Applied) -> String {
    format!(
        "{} of {} events of flights and {} of {} events of aircraft are applied",
        grouped(now.flights),
        grouped(expected.flights),
        grouped(now.aircraft),
        grouped(expected.aircraft)
    )
}
