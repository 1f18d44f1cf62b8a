//! A session: from holding the lease to the first failure or the end. The one file that sees all stages.
//!
//! The order of its beginning is what makes publishing exactly once (docs/decisions/0003): lease, then
//! fence whoever published before, then the checkpoints, then records.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use annals_store::{SchemaName, Store};
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::batch::Limits;
use crate::checkpoint::{Checkpoint, Cursors};
use crate::config::Config;
use crate::copy::Copier;
use crate::encode::Encoder;
use crate::failure::Failure;
use crate::kafka;
use crate::lease::Lease;
use crate::reader::{Outgoing, Reader};
use crate::sender::{Committed, Sender};
use crate::waiting::Waiting;

/// Batches that wait for the sender: one is sent, one waits, one is being collected.
const BATCHES_WAITING_MAX: usize = 1;

/// What a session needs, made once for a process.
pub(crate) struct Setup {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    pub(crate) encoder: Encoder,
}

/// Publishes under a lease until `shutdown`, which ends it cleanly, or until something fails.
pub(crate) async fn run(
    setup: &mut Setup,
    lease: &Lease,
    waiting: &mut Waiting,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let shards = shard_count(setup.store.pool(), setup.store.schema()).await?;
    let producer = fence(Arc::clone(&setup.config), shards).await?;
    // Whoever took the lease until here is seen; whoever takes it from now on fences this producer.
    lease.renew().await?;
    let cursors = checkpoints(setup, shards).await?;
    setup.encoder.forget();
    waiting.began();
    let position = cursors.iter().map(|(_, checkpoint)| checkpoint.position()).min();
    // While one topic or schema is waited for, each try begins a session: that is not news.
    if waiting.is_on() {
        tracing::debug!(epoch = lease.epoch, shards, position, "trying again to publish");
    } else {
        tracing::info!(epoch = lease.epoch, shards, position, "publishing");
    }

    let (batches, received) = mpsc::channel(BATCHES_WAITING_MAX);
    let (committed, seen) = watch::channel(Committed::default());
    let topic = setup.config.checkpoint_topic();
    let sender = Sender::start(producer, topic, received, committed)?;
    let copier = Copier::new(&setup.store, &setup.config.relay.deployment, seen.clone());
    let ended = tokio::select! {
        ended = read(setup, cursors, Outgoing::new(batches, seen.clone(), shutdown.clone())) => ended,
        lost = lease.keep() => Err(lost),
        stuck = copier.run() => Err(stuck),
        never = publishes(seen, waiting) => match never {},
    };
    // The way to the sender is closed by now: it finishes what it was given and ends.
    let sent = sender.join().await;
    match ended {
        // The cause stands with the sender.
        Err(Failure::SenderEnded) => sent.and(Err(Failure::SenderEnded)),
        Ok(()) | Err(Failure::Stopped) => sent.and(copier.once().await),
        Err(failure) => Err(failure),
    }
}

/// Says that publishing goes on, once the first batch is committed.
async fn publishes(mut seen: watch::Receiver<Committed>, waiting: &mut Waiting) -> Infallible {
    if seen.wait_for(|committed| committed.batches > 0).await.is_ok() {
        waiting.over();
    }
    std::future::pending().await
}

async fn read(setup: &mut Setup, cursors: Cursors, outgoing: Outgoing) -> Result<(), Failure> {
    let mut connection =
        setup.store.pool().acquire().await.map_err(Failure::database("connect"))?;
    let config = &setup.config.relay;
    let mut reader = Reader {
        store: &setup.store,
        connection: &mut connection,
        encoder: &mut setup.encoder,
        cursors,
        limits: Limits { events_max: config.batch_events_max, bytes_max: config.batch_bytes_max },
        poll_idle_max: config.poll_idle_max,
        outgoing,
    };
    let ended = reader.run().await;
    // Rows may be on their way still: the connection is not for anybody else.
    drop(connection.detach());
    ended
}

/// Makes the producer. The broker aborts what the deployment's producer before it left open, and
/// refuses what that one still sends.
async fn fence(config: Arc<Config>, shards: i16) -> Result<kafka::Producer, Failure> {
    blocking(move || {
        kafka::ensure_checkpoint_topic(&config, shards.unsigned_abs())?;
        let producer = kafka::Producer::connect(&config)?;
        producer.init()?;
        Ok(producer)
    })
    .await
}

/// Where each shard goes on: after its checkpoint in Kafka, or from the beginning of history.
async fn checkpoints(setup: &Setup, shards: i16) -> Result<Cursors, Failure> {
    let config = Arc::clone(&setup.config);
    let records =
        blocking(move || Ok(kafka::read_checkpoints(&config, shards.unsigned_abs())?)).await?;
    let mut connection =
        setup.store.pool().acquire().await.map_err(Failure::database("connect"))?;
    let (cluster, _) = setup.store.outbox_bound(&mut connection).await?;
    let mut cursors = BTreeMap::new();
    for shard in 0..shards {
        let number = shard.unsigned_abs();
        let cursor = match records.get(&number) {
            Some(bytes) => Checkpoint::from_bytes(number, bytes)?,
            None => Checkpoint::origin(cluster.clone()),
        };
        cursors.insert(shard, cursor);
    }
    Ok(Cursors::new(cursors))
}

async fn shard_count(pool: &PgPool, schema: &SchemaName) -> Result<i16, Failure> {
    let action = "read the number of shards";
    let statement = schema.statement(include_str!("../sql/shard_count.sql"));
    let shards: i16 =
        sqlx::query_scalar(statement).fetch_one(pool).await.map_err(Failure::database(action))?;
    if shards > 0 { Ok(shards) } else { Err(Failure::Shards(shards)) }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Failure::Panicked("kafka")))
}
