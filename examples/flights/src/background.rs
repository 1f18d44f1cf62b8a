//! What runs beside the demo: the two projections, and the watch over the topics.

use std::future::Future;

use annals_consumer::RunTotals;
use annals_store::EventSet;
use anyhow::{Context, Result, bail};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::events::{AircraftEvent, FlightEvent};
use crate::projections::{self, Reports};
use crate::run::Run;
use crate::seen::{self, Seen};

/// Tasks that must not end before they are told to.
#[derive(Debug)]
pub(crate) struct Background {
    tasks: JoinSet<Result<RunTotals>>,
    shutdown: CancellationToken,
}

impl Background {
    /// Starts them all.
    pub(crate) fn start(
        pool: &PgPool,
        run: &Run,
        reports: &Reports,
        seen: &watch::Sender<Seen>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(projections::run_flights(pool.clone(), run.clone(), reports.clone()));
        tasks.spawn(projections::run_aircraft(pool.clone(), run.clone(), reports.clone()));
        let shutdown = reports.shutdown.clone();
        let (run, seen, until) = (run.clone(), seen.clone(), shutdown.clone());
        tasks.spawn(async move {
            let topics = [FlightEvent::CATEGORY, AircraftEvent::CATEGORY].map(|it| run.topic(it));
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let watch = seen::watch(&run, &topics, &seen);
            until.run_until_cancelled(watch).await.unwrap_or(Ok(()))?;
            Ok(RunTotals::default())
        });
        Self { tasks, shutdown }
    }

    /// What comes of `work`, or the error of the task that fails meanwhile.
    pub(crate) async fn while_it_runs<T>(
        &mut self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            Some(ended) = self.tasks.join_next() => {
                ended.context("a task of the demo broke")??;
                bail!("a projection ended before it was told to")
            }
        }
    }

    /// Ends them, and adds up what the projections did.
    pub(crate) async fn end(&mut self) -> Result<RunTotals> {
        self.shutdown.cancel();
        let mut sum = RunTotals::default();
        while let Some(ended) = self.tasks.join_next().await {
            let totals = ended.context("a task of the demo broke")??;
            sum.events += totals.events;
            sum.duplicates += totals.duplicates;
            sum.skipped += totals.skipped;
            sum.batches += totals.batches;
        }
        Ok(sum)
    }
}
