//! The relay: one session after the other, and what each failure leads to.

use std::sync::Arc;
use std::time::Duration;

use annals_store::Store;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::encode::Encoder;
use crate::failure::{Failure, Outcome};
use crate::lease::{Lease, Leases, Taken};
use crate::registry::Registry;
use crate::session::{self, Setup};
use crate::waiting::Waiting;

/// Publishes the outbox until `shutdown`. Outages are waited for; the error is one that waiting does
/// not mend.
///
/// # Errors
/// [`Failure`] of the kinds that need a person: a fork of the database's history, a record that Kafka
/// refuses, a checkpoint that cannot be read.
pub async fn run(config: Config, store: Store, shutdown: CancellationToken) -> Result<(), Failure> {
    let config = Arc::new(config);
    let registry = Registry::connect(&config, &store)?;
    let encoder = Encoder::new(&config, &store, registry);
    let mut setup = Setup { config: Arc::clone(&config), store, encoder };
    let mut waiting =
        Waiting::new(Backoff::new(config.relay.backoff_min, config.relay.backoff_max));
    let mut first_of_process = true;
    while !shutdown.is_cancelled() {
        let ended = match acquire(&setup, first_of_process, &shutdown).await {
            Ok(Some(lease)) => {
                first_of_process = false;
                let ended = session::run(&mut setup, &lease, &mut waiting, &shutdown).await;
                // Said before the lease is given back, which takes its time when the database is away.
                if let Err(failure) = &ended
                    && failure.outcome() == Outcome::Wait
                {
                    waiting.say(failure);
                }
                release(&lease).await;
                ended
            }
            Ok(None) => return Ok(()),
            Err(failure) => Err(failure),
        };
        let Err(failure) = ended else { return Ok(()) };
        match failure.outcome() {
            Outcome::Halt => return Err(failure),
            Outcome::Wait => {
                waiting.say(&failure);
                waiting.pause(&shutdown).await;
            }
        }
    }
    Ok(())
}

/// Waits until the lease is ours; `None` at shutdown.
async fn acquire(
    setup: &Setup,
    first_of_process: bool,
    shutdown: &CancellationToken,
) -> Result<Option<Lease>, Failure> {
    let leases = Leases::new(setup.store.pool(), setup.store.schema(), &setup.config);
    let mut said = false;
    while !shutdown.is_cancelled() {
        let holder = match leases.take(first_of_process).await? {
            Taken::Ours(lease) => return Ok(Some(lease)),
            Taken::Others(holder) => holder,
        };
        if !said {
            tracing::info!(
                instance = holder.instance,
                "standing by: another instance publishes this deployment"
            );
            said = true;
        }
        let pause = holder.remaining.clamp(Duration::from_millis(50), Duration::from_secs(1));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => {}
        }
    }
    Ok(None)
}

/// A lease that is not given back ends by itself: not worth a failure, worth a line.
async fn release(lease: &Lease) {
    if let Err(failure) = lease.release().await {
        tracing::warn!(
            error = &failure as &dyn std::error::Error,
            "the lease was not released and will expire"
        );
    }
}
