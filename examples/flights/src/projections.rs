//! The two projections, of flights and of aircraft, in the background.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::Duration;

use annals_consumer::{
    ConsumerSettings, Projection, RunProgress, RunTotals, Runner, SchemaRegistry,
};
use annals_store::EventSet;
use annals_testkit::Testbed;
use anyhow::{Context, Result, bail};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::events::{AircraftEvent, FlightEvent};
use crate::lags::Lags;
use crate::read_model::{apply_aircraft, apply_flights};

const BATCH_EVENTS_MAX: NonZeroUsize = NonZeroUsize::new(2_000).unwrap();
/// The topics do not exist when the projections start.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The longest time in which a count stays below its goal and does not change.
const STANDSTILL_MAX: Duration = Duration::from_secs(60);

/// Both projections.
#[derive(Debug)]
pub(crate) struct Projections {
    tasks: JoinSet<Result<RunTotals>>,
    shutdown: CancellationToken,
    applied: watch::Receiver<usize>,
    pub(crate) lags: Lags,
}

/// The task of one projection.
struct Task {
    runner: Runner,
    applied: watch::Sender<usize>,
    lags: Lags,
    shutdown: CancellationToken,
}

impl Projections {
    /// Starts both.
    pub(crate) async fn start(bed: &Testbed, pool: &PgPool) -> Result<Self> {
        let (applied, lags) = (watch::Sender::new(0), Lags::default());
        let shutdown = CancellationToken::new();
        let task = |runner| Task {
            runner,
            applied: applied.clone(),
            lags: lags.clone(),
            shutdown: shutdown.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(task(runner::<FlightEvent>(bed, pool).await?).flights());
        tasks.spawn(task(runner::<AircraftEvent>(bed, pool).await?).aircraft());
        Ok(Self { tasks, shutdown, applied: applied.subscribe(), lags })
    }

    /// Waits until so many events are applied. Fails with the projection that fails meanwhile.
    pub(crate) async fn until_applied(&mut self, events: usize) -> Result<()> {
        tokio::select! {
            biased;
            applied = until(&mut self.applied, events, "applied events") => applied,
            Some(ended) = self.tasks.join_next() => bail!("a projection ended early: {:?}", ended??),
        }
    }

    /// Ends both. Returns their counts: events, transactions, duplicates.
    pub(crate) async fn end(mut self) -> Result<(u64, u64, u64)> {
        self.shutdown.cancel();
        let mut sum = (0, 0, 0);
        while let Some(ended) = self.tasks.join_next().await {
            let RunTotals { events, batches, duplicates, .. } = ended??;
            sum = (sum.0 + events, sum.1 + batches, sum.2 + duplicates);
        }
        Ok(sum)
    }
}

impl Task {
    async fn flights(self) -> Result<RunTotals> {
        let Self { runner, applied, lags, shutdown } = self;
        let hook = |progress: &RunProgress<'_>| count(&applied, &lags, progress);
        Ok(runner.run_until(&shutdown, hook, apply_flights).await?)
    }

    async fn aircraft(self) -> Result<RunTotals> {
        let Self { runner, applied, lags, shutdown } = self;
        let hook = |progress: &RunProgress<'_>| count(&applied, &lags, progress);
        Ok(runner.run_until(&shutdown, hook, apply_aircraft).await?)
    }
}

fn count(
    applied: &watch::Sender<usize>,
    lags: &Lags,
    progress: &RunProgress<'_>,
) -> ControlFlow<()> {
    lags.record(progress.lags);
    applied.send_modify(|applied| *applied += progress.batch_events);
    ControlFlow::Continue(())
}

async fn runner<E: EventSet>(bed: &Testbed, pool: &PgPool) -> Result<Runner> {
    let projection = Projection::new(&format!("demo-{}", E::CATEGORY), &[&bed.topic(E::CATEGORY)])?;
    let projection = projection.batch_events_max(BATCH_EVENTS_MAX);
    projection.prepare(pool).await?;
    let kafka = ConsumerSettings::new(bed.environment().kafka.as_str());
    let registry = SchemaRegistry::new(&bed.environment().registry_url)?;
    Ok(projection.runner(pool, kafka.topic_check_interval(TOPIC_CHECK_INTERVAL), registry))
}

/// Waits until a count reaches its goal. Fails when it does not change for [`STANDSTILL_MAX`].
pub(crate) async fn until(
    count: &mut watch::Receiver<usize>,
    goal: usize,
    what: &str,
) -> Result<()> {
    loop {
        let now = *count.borrow_and_update();
        if now >= goal {
            return Ok(());
        }
        match tokio::time::timeout(STANDSTILL_MAX, count.changed()).await {
            Ok(changed) => changed.with_context(|| format!("no more {what}: {now} of {goal}"))?,
            Err(_elapsed) => bail!("{what}: {now} of {goal}, unchanged for {STANDSTILL_MAX:?}"),
        }
    }
}
