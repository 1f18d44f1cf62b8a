//! The relay: what is made once for a process, around the shell.

use std::sync::Arc;
use std::time::Duration;

use annals_store::{SchemaName, Store};
use sqlx::{PgPool, Row};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Delivery};
use crate::copy::{Committed, Copier};
use crate::encode::Encoder;
use crate::failure::{Failure, Outcome};
use crate::ownership;
use crate::reader::Reads;
use crate::registry::Registry;
use crate::shell::Shell;
use crate::waiting::Waiting;
use crate::wake::Wake;

/// Publishes the outbox until `shutdown`. Outages are waited for; the error is one that waiting does
/// not mend.
///
/// # Errors
/// [`Failure`] of the kinds that need a person: a fork of the database's history, a checkpoint that cannot be read.
pub async fn run(config: Config, store: Store, shutdown: CancellationToken) -> Result<(), Failure> {
    let Some((config, shards)) = begin(&config, &store, &shutdown).await? else { return Ok(()) };
    let config = Arc::new(config);
    let committed = watch::Sender::new(Committed::default());
    let copier = Copier::new(&store, &config, committed.clone());
    let reads = reads(&config, &store)?;
    let wake = Wake::listen(&store, &config.publication());
    let (shell, reports) = Shell::new(&config, &store, shards, committed, reads);
    let ended = tokio::select! {
        ended = shell.run(reports, wake, &shutdown) => ended,
        never = copier.run() => match never {},
    };
    copier.last().await;
    ended
}

/// A reader, with everything that it needs.
pub(crate) fn reads(config: &Arc<Config>, store: &Store) -> Result<Reads, Failure> {
    let registry = Registry::connect(config, store)?;
    Ok(Reads::start(config, store, Encoder::new(config, store, registry)))
}

/// What the database knows of the deployment.
struct Deployment {
    generation: u32,
    shards: u16,
}

/// The configuration in its store and generation, and the number of shards, as soon as they are known and the topics are
/// this publication's; `None` at shutdown.
async fn begin(
    config: &Config,
    store: &Store,
    shutdown: &CancellationToken,
) -> Result<Option<(Config, u16)>, Failure> {
    let mut waiting = Waiting::new(&config.relay);
    while !shutdown.is_cancelled() {
        match attempt(config, store).await {
            Ok(begun) => {
                waiting.begun();
                return Ok(Some(begun));
            }
            Err(failure) => match failure.outcome() {
                Outcome::Halt => return Err(failure),
                Outcome::Wait => waiting.say(&failure),
            },
        }
        let pause: Duration = waiting.next_delay();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => {}
        }
    }
    Ok(None)
}

async fn attempt(config: &Config, store: &Store) -> Result<(Config, u16), Failure> {
    let (config, claiming) = ownership::begin(config.clone(), store).await?;
    let Deployment { generation, shards } =
        deployment(&config, store.pool(), store.schema()).await?;
    let config = config.in_generation(generation);
    if config.relay.delivery == Delivery::ExactlyOnce {
        ownership::claim_checkpoints(&config, claiming).await?;
    }
    Ok((config, shards))
}

async fn deployment(
    config: &Config,
    pool: &PgPool,
    schema: &SchemaName,
) -> Result<Deployment, Failure> {
    let failed = |source| Failure::database("read what the deployment is")(source);
    let delivery = config.relay.delivery.name();
    let row = sqlx::query(schema.statement(include_str!("../../sql/deployment_register.sql")))
        .bind(config.publication())
        .bind(delivery)
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    let found: String = row.try_get("delivery").map_err(failed)?;
    if found != delivery {
        return Err(Failure::Delivery { configured: delivery, found });
    }
    let generation: i32 = row.try_get("generation").map_err(failed)?;
    let shards: i16 = row.try_get("shards").map_err(failed)?;
    match u16::try_from(shards) {
        Ok(shards) if shards > 0 => {
            Ok(Deployment { generation: generation.unsigned_abs(), shards })
        }
        Ok(_) | Err(_) => Err(Failure::Shards(shards)),
    }
}
