//! Debezium's outbox router, exactly once, beside the relay: on the same broker and database, with
//! the same keys and values.

mod http;
mod worker;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use self::worker::Worker;
use crate::process::Used;

/// A replication slot is released when the connector's connection has ended.
const SLOT_DEADLINE: Duration = Duration::from_secs(30);
const SLOT_POLL: Duration = Duration::from_millis(20);

/// The peer that publishes beside the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// Debezium's outbox router in a worker of Kafka Connect, exactly once.
    Debezium,
}

/// A worker of Kafka Connect, warm once it has published something, with at most one connector.
pub(crate) struct Debezium {
    worker: Worker,
    database_url: String,
}

/// One connector: its own replication slot and topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connector<'a> {
    /// Names the connector and its slot.
    pub(crate) name: &'a str,
    /// The existing topic.
    pub(crate) topic: &'a str,
}

impl Debezium {
    /// Starts the worker and creates the outbox table in a database; `peers` is the directory of
    /// bench/peers/install.
    pub(crate) async fn start(
        peers: &Path,
        directory: &Path,
        database_url: &str,
    ) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(database_url).await?;
        let level: String = sqlx::query_scalar(include_str!("../../sql/wal_level.sql"))
            .fetch_one(&mut connection)
            .await?;
        anyhow::ensure!(level == "logical", "Debezium needs wal_level=logical, which is {level}");
        sqlx::raw_sql(include_str!("../../sql/debezium_setup.sql"))
            .execute(&mut connection)
            .await
            .context("make Debezium's table")?;
        let worker = Worker::start(&peers.join("debezium"), directory).await?;
        Ok(Self { worker, database_url: database_url.to_owned() })
    }

    /// Creates the connector's slot: later rows of the table will be published.
    pub(crate) async fn begin(&self, connector: Connector<'_>) -> anyhow::Result<()> {
        sqlx::query(include_str!("../../sql/debezium_slot_create.sql"))
            .bind(connector.name)
            .execute(&mut self.connection().await?)
            .await
            .context("make a replication slot")?;
        Ok(())
    }

    /// Writes the store's events to the table.
    pub(crate) async fn fill(&self) -> anyhow::Result<()> {
        let mut connection = self.connection().await?;
        let fill = sqlx::raw_sql(include_str!("../../sql/debezium_fill.sql"));
        fill.execute(&mut connection).await.context("fill Debezium's table")?;
        Ok(())
    }

    /// Lets the connector publish.
    pub(crate) async fn publish(&self, connector: Connector<'_>) -> anyhow::Result<()> {
        let settings = settings(&self.database_url, connector)?;
        self.worker.connect(connector.name, &settings).await
    }

    /// Ends the connector, and drops its slot.
    pub(crate) async fn end(&self, connector: Connector<'_>) -> anyhow::Result<()> {
        self.worker.disconnect(connector.name).await?;
        let mut connection = self.connection().await?;
        let began = Instant::now();
        while has_slot(&mut connection, connector.name).await? {
            anyhow::ensure!(began.elapsed() < SLOT_DEADLINE, "the slot {} is kept", connector.name);
            tokio::time::sleep(SLOT_POLL).await;
        }
        Ok(())
    }

    /// The database with the table.
    pub(crate) fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The worker's resource use since its start.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        self.worker.used()
    }

    /// Ends the worker.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.worker.stop().await
    }

    async fn connection(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.database_url).await?)
    }
}

/// Drops the slot if it has no reader; whether it still exists.
async fn has_slot(connection: &mut PgConnection, name: &str) -> anyhow::Result<bool> {
    let dropped = sqlx::query_scalar(include_str!("../../sql/debezium_slot_drop.sql"));
    dropped.bind(name).fetch_one(connection).await.context("drop a replication slot")
}

/// The fastest settings found.
fn settings(database_url: &str, connector: Connector<'_>) -> anyhow::Result<Value> {
    let Connector { name, topic } = connector;
    let options: PgConnectOptions = database_url.parse()?;
    let password = options.to_url_lossy().password().unwrap_or_default().to_owned();
    Ok(json!({
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "exactly.once.support": "required",
        "transaction.boundary": "poll",
        "database.hostname": options.get_host(),
        "database.port": options.get_port().to_string(),
        "database.user": options.get_username(),
        "database.password": password,
        "database.dbname": options.get_database().unwrap_or_default(),
        "topic.prefix": name,
        "plugin.name": "pgoutput",
        "slot.name": name,
        "publication.name": "bench_outbox",
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "no_data",
        "table.include.list": "public.outbox",
        "binary.handling.mode": "bytes",
        "tombstones.on.delete": "false",
        "statistics.metrics.enabled": "false",
        "max.batch.size": "8192",
        "max.queue.size": "32768",
        "poll.interval.ms": "10",
        "producer.override.linger.ms": "5",
        "producer.override.batch.size": "262144",
        "producer.override.compression.type": "lz4",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "io.debezium.converters.BinaryDataConverter",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.route.topic.replacement": topic,
    }))
}
