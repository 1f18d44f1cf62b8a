//! The survey: reads the lag and the state of the deployment every few seconds, for the metrics,
//! and reports this relay to operators. Publishing does not depend on it.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use annals_store::Store;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::Config;
use crate::report::failure::Failure;
use crate::state::lag::lags;
use crate::state::overview::{self, DeploymentState};
use crate::telemetry::Vitals;
use crate::telemetry::metrics::metrics;
use crate::telemetry::survey::Survey;

/// The interval of surveys.
const INTERVAL: Duration = Duration::from_secs(5);
/// The deadline of one.
const DEADLINE: Duration = Duration::from_secs(10);

/// Surveys the deployment until the process ends.
pub(super) async fn survey(config: &Config, store: &Store, vitals: &Vitals) -> Infallible {
    let publication = config.publication();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let readiness = vitals.readiness();
        let reported = overview::report(store, &publication, &config.relay.instance, &readiness);
        log(timeout(DEADLINE, reported).await.unwrap_or_else(late));
        tokio::select! {
            // The status for operators changes at once.
            () = vitals.changed() => {}
            _ = ticks.tick() => {
                let read = timeout(DEADLINE, read(store, &publication)).await.unwrap_or_else(late);
                log(read.map(|survey| metrics().survey.took(survey)));
            }
        }
    }
}

async fn read(store: &Store, publication: &str) -> Result<Survey, Failure> {
    let began = Instant::now();
    let lags = lags(store, publication).await?;
    let state = overview::deployment(store, publication).await?;
    let DeploymentState { generation, outbox_partitions, droppable_partitions, .. } = state;
    let quarantined = overview::quarantined(store, publication).await?;
    let transactions = overview::open_transactions(store).await?;
    let oldest = |ages: &mut dyn Iterator<Item = f64>| ages.fold(0.0, f64::max);
    Ok(Survey {
        lags,
        shards: state.shards,
        quarantined_seconds: oldest(&mut quarantined.iter().map(|of| of.seconds)),
        quarantined: quarantined.into_iter().map(|of| ([of.kind, of.cause], of.entries)).collect(),
        generation: generation.unwrap_or(1),
        unfenced: state.unfenced_transactional_ids,
        partitions: outbox_partitions,
        droppable: droppable_partitions,
        open_transaction_seconds: oldest(&mut transactions.iter().filter_map(|of| of.seconds)),
        took: began.elapsed(),
    })
}

fn late<T>(elapsed: tokio::time::error::Elapsed) -> Result<T, Failure> {
    Err(Failure::late("survey the deployment", elapsed))
}

/// The event loop logs outages.
fn log(done: Result<(), Failure>) {
    if let Err(failure) = done {
        let error = failure.in_full();
        tracing::debug!(error, "the deployment was not surveyed");
    }
}
