//! The relay: what is made once for a process, around the shell.

use std::sync::Arc;
use std::time::Duration;

use annals_store::{SchemaName, Store};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::copy::{Committed, Copier};
use crate::encode::Encoder;
use crate::failure::{Failure, Outcome};
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
    let config = Arc::new(config);
    let Some(shards) = shards(&config, &store, &shutdown).await? else { return Ok(()) };
    let (committed, seen) = watch::channel(Committed::default());
    let copier = Copier::new(&store, &config.relay.deployment, seen);
    let reads = reads(&config, &store)?;
    let wake = Wake::listen(&store, &config.relay.deployment);
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

/// How many shards the installation has, as soon as the database says it; `None` at shutdown.
async fn shards(
    config: &Config,
    store: &Store,
    shutdown: &CancellationToken,
) -> Result<Option<u16>, Failure> {
    let mut waiting = Waiting::new(&config.relay);
    while !shutdown.is_cancelled() {
        match shard_count(store.pool(), store.schema()).await {
            Ok(shards) => return Ok(Some(shards)),
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

async fn shard_count(pool: &PgPool, schema: &SchemaName) -> Result<u16, Failure> {
    let action = "read the number of shards";
    let statement = schema.statement(include_str!("../sql/shard_count.sql"));
    let shards: i16 =
        sqlx::query_scalar(statement).fetch_one(pool).await.map_err(Failure::database(action))?;
    match u16::try_from(shards) {
        Ok(shards) if shards > 0 => Ok(shards),
        Ok(_) | Err(_) => Err(Failure::Shards(shards)),
    }
}
