//! A relay process from its start to its end.

use std::sync::Arc;

use annals_store::{Error, MigrationError, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Delivery, Deployments};
use crate::driver::event_loop::Driver;
use crate::driver::generations::latest_generation;
use crate::driver::housekeeping::{Committed, Housekeeping};
use crate::driver::listener::Listener;
use crate::driver::outage::Outage;
use crate::driver::survey::survey;
use crate::driver::topic_claims;
use crate::report::failure::Failure;
use crate::report::in_full;
use crate::state::deployment::Deployment;
use crate::telemetry::metrics::metrics;
use crate::telemetry::{Access, Served, Vitals, serve, spans};

/// Publishes the outbox until `shutdown`. Of later versions of the configuration it takes the keys
/// in [`RELOADED`](crate::config::RELOADED) that concern it. It waits for outages to end; it
/// returns a failure that does not end by itself.
///
/// # Errors
/// [`Failure`] of the kinds that need an operator: a diverged history of the database, a
/// checkpoint that cannot be read, an address of the HTTP server that is in use.
pub async fn run(
    configs: watch::Receiver<Config>,
    store: Store,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let config = configs.borrow().clone();
    let vitals = Arc::new(Vitals::new(&config));
    spans::export(&config);
    let served = serve(&config, &vitals).map_err(|error| Failure::Http(error.into()))?;
    drop(tokio::spawn(reload_access(served, configs.clone())));
    let started = vitals.beating(start(&config, &store, &shutdown, &vitals)).await?;
    let Some((config, shards)) = started else { return Ok(()) };
    let config = Arc::new(config);
    let committed = watch::Sender::new(Committed::default());
    let housekeeping = Housekeeping::new(&store, &config, committed.clone());
    let listener = Listener::start(&store, &config.publication());
    metrics().shards.set(i64::from(shards));
    let (driver, received) = Driver::new((&config, configs), &store, shards, committed, &vitals)?;
    let ended = tokio::select! {
        ended = driver.run(received, listener, &shutdown) => ended,
        never = housekeeping.run() => match never {},
        never = survey(&config, &store, &vitals) => match never {},
    };
    housekeeping.last_copy().await;
    ended
}

/// Gives the HTTP server the token and the certificate of each version of the configuration.
async fn reload_access(served: Option<Served>, mut configs: watch::Receiver<Config>) {
    let Some(served) = served else { return };
    while configs.changed().await.is_ok() {
        let http = configs.borrow_and_update().http.clone();
        match Access::load(&http) {
            Ok(access) => served.give(access),
            Err(error) => tracing::error!(
                event = "reload_failed",
                error = in_full(&error),
                "the HTTP server keeps its certificate and its token"
            ),
        }
    }
}

/// Waits until the deployment is registered and the topics are claimed; returns the configuration
/// with its store and generation, and the number of shards. `None` at shutdown.
async fn start(
    config: &Config,
    store: &Store,
    shutdown: &CancellationToken,
    vitals: &Arc<Vitals>,
) -> Result<Option<(Config, u16)>, Failure> {
    let mut outage = Outage::new(&config.relay, vitals);
    while !shutdown.is_cancelled() {
        match try_to_start(config, store).await {
            Ok(started) => {
                outage.over();
                return Ok(Some(started));
            }
            Err(failure) if failure.class().halts() => return Err(failure),
            Err(failure) => {
                metrics().failed(failure.class());
                outage.failed(&failure);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(outage.next_delay()) => {}
            () = shutdown.cancelled() => {}
        }
    }
    Ok(None)
}

async fn try_to_start(config: &Config, store: &Store) -> Result<(Config, u16), Failure> {
    // What else is wrong with the database, the statements below report.
    if let Err(
        error @ Error::Migrate(
            MigrationError::OfALaterVersion { .. } | MigrationError::ServerTooOld { .. },
        ),
    ) = store.check().await
    {
        return Err(Failure::Store(error));
    }
    let (config, claims) = topic_claims::begin(config.clone(), store).await?;
    let Deployment { generation, shards } = Deployment::register(&config, store).await?;
    let config = config.in_generation(generation);
    if config.relay.delivery == Delivery::ExactlyOnce {
        let found = latest_generation(&config, Deployments::Configured).await?;
        if found > generation {
            return Err(Failure::LaterGeneration { found, known: generation });
        }
        topic_claims::claim_checkpoints(&config, claims).await?;
    }
    Ok((config, shards))
}
