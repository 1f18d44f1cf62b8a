//! The subcommands of the binary.

use std::io::Write;
use std::path::PathBuf;

use annals_store::{Adoption, Identity, Store, StoreOptions};
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{PgConnection, Row};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Config;
use crate::ownership;
use crate::quarantine::{self, Quarantine};
use crate::rebase;
use crate::settings::ConfigError;

/// Publishes the outbox of an Annals event store to Kafka.
#[derive(Debug, Parser)]
#[command(name = "annals-relay", version)]
pub struct Arguments {
    /// The configuration; every key can also be set in the environment, which goes first:
    /// `ANNALS_RELAY__SECTION__KEY`, and in short `ANNALS_DATABASE_URL`, `ANNALS_KAFKA`, `ANNALS_REGISTRY_URL`.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the relay can be told to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Publish, until SIGTERM or SIGINT.
    Run,
    /// Create or upgrade the store's tables, and end.
    Migrate,
    /// Say how far the deployment has got, a line a shard, and end.
    Status,
    /// See what is held because it cannot be published, and say what to do about it.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Change what consumers of the deployment are promised, while none of its relays runs, and end.
    Deliver {
        /// `exactly-once` or `at-least-once`.
        #[arg(value_parser = ["exactly-once", "at-least-once"])]
        delivery: String,
    },
    /// Change the number of shards of the installation, while everything is published and no relay runs, and end.
    Reshard {
        /// How many.
        shards: i32,
    },
    /// Go on after the database lost a part of its history, or Kafka the checkpoints: list what is published and not in the
    /// store, and begin the deployment anew behind what is published. No relay of it may run.
    Rebase {
        /// Only list.
        #[arg(long)]
        dry_run: bool,
        /// What happened; for the record.
        #[arg(long)]
        reason: String,
    },
    /// Take the store over into the database cluster that it is in now, after a dump and restore, a logical copy or an upgrade,
    /// and end. Needs the role `annals_admin`.
    Adopt {
        /// The store goes on where it came from, too: this one becomes a store of its own, and never publishes into the first
        /// one's topics.
        #[arg(long)]
        copy: bool,
        /// What happened; for the record.
        #[arg(long)]
        reason: String,
    },
    /// Give up the topics that a publication has claimed, so that another deployment or another store can publish into
    /// them, and end: when the publication is gone for good. No relay of it may run.
    ReleaseTopics {
        /// Another store's, by its id; if not given, this one's.
        #[arg(long)]
        store: Option<Uuid>,
        /// Which publication: the deployment, and behind an `@` what its topics begin with. If not given, the configured one.
        #[arg(long)]
        publication: Option<String>,
        /// Only list.
        #[arg(long)]
        dry_run: bool,
        /// Why; for the record.
        #[arg(long)]
        reason: String,
    },
    /// Check the configuration, and end.
    CheckConfig,
}

impl Arguments {
    /// Reads the configuration: the file, if one is named, under the environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every key that is unknown or wrong.
    pub fn read_config(&self) -> Result<Config, ConfigError> {
        // A variable that is not UTF-8 is none of ours.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Config::read(self.config.as_deref(), variables)
    }
}

/// Does what `command` says.
///
/// # Errors
/// What needs a person: nothing that waiting would mend, as far as `run` is concerned.
pub async fn execute(command: Command, config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let store = store(&config)?;
    match command {
        Command::Run => {
            let told = until_told()?;
            // Once this is said, a signal to end is obeyed.
            tracing::info!(
                event = "started",
                version = env!("CARGO_PKG_VERSION"),
                deployment = config.relay.deployment,
                instance = config.relay.instance,
                "started"
            );
            Ok(crate::run(config, store, told).await?)
        }
        Command::Migrate => Ok(store.migrate().await?),
        Command::Status => status(&config, &store).await,
        Command::Quarantine(wish) => {
            let text = quarantine::execute(&wish, &store, &config.publication()).await?;
            say(&text)
        }
        Command::Deliver { delivery } => {
            let statement = store.schema().statement(include_str!("../sql/deliver.sql"));
            let query = sqlx::query(statement).bind(config.publication()).bind(&delivery);
            query.execute(store.pool()).await.map_err(refusal)?;
            let deployment = config.publication();
            say(&format!(
                "deployment {deployment} delivers {delivery} from now on: set relay.delivery to it\n"
            ))
        }
        Command::Reshard { shards } => {
            let statement = store.schema().statement(include_str!("../sql/reshard.sql"));
            sqlx::query(statement).bind(shards).execute(store.pool()).await.map_err(refusal)?;
            say(&format!("the installation has {shards} shards from now on\n"))
        }
        Command::Rebase { dry_run, reason } => {
            let (config, _) = ownership::begin(config, &store).await?;
            rebase::execute(config, &store, dry_run, &reason, |text| {
                std::io::stdout().write_all(text.as_bytes())
            })
            .await
        }
        Command::Adopt { copy, reason } => {
            let adoption = if copy { Adoption::Copy } else { Adoption::Moved };
            let adopted = store.adopt(&reason, adoption).await.map_err(|error| match error {
                annals_store::Error::Database { source, .. } => refusal(source),
                other => other.into(),
            })?;
            let Identity { store_id, history, system_identifier, settled } = adopted;
            say(&format!(
                "store {store_id} is at home in database cluster {system_identifier} from now on (history {history}); everything up \
                 to position {settled} counts as visible\n"
            ))
        }
        Command::ReleaseTopics { store: other, publication, dry_run, reason } => {
            let of = (other, publication);
            say(&ownership::release(config, &store, of, &reason, dry_run).await?)
        }
        Command::CheckConfig => Ok(()),
    }
}

fn say(text: &str) -> Result<(), Box<dyn std::error::Error>> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// What the database refuses, with what to do instead.
fn refusal(error: sqlx::Error) -> Box<dyn std::error::Error> {
    let hint = error.as_database_error().and_then(|error| {
        let hint = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?.hint()?;
        Some(format!("{}. {hint}", error.message()))
    });
    hint.map_or_else(|| error.into(), Into::into)
}

/// The relay's view of the store: a few connections, made when they are needed.
fn store(config: &Config) -> Result<Store, sqlx::Error> {
    let url: PgConnectOptions = config.database.url.expose().parse()?;
    // Windows are read by key. A plan made while the tables were small must not scan them later, and
    // compiling a query of microseconds takes longer than running it.
    let options =
        url.application_name("annals-relay").options([("enable_seqscan", "off"), ("jit", "off")]);
    let pool = PgPoolOptions::new()
        .max_connections(config.database.connections_max.get())
        .acquire_timeout(std::time::Duration::from_secs(5))
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(may_write(connection)))
        .connect_lazy_with(options);
    Ok(StoreOptions::default().schema(config.database.schema.clone()).with_pool(pool))
}

/// Whether a connection is alive, and its session may write: one that began while the database was read-only stays so, and
/// is replaced. A new one is used as it is.
async fn may_write(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(include_str!("../sql/may_write.sql")).fetch_one(connection).await
}

/// Cancelled at the first SIGTERM or SIGINT: what is under way is finished. At the second the process
/// ends as the system would end it; nothing is lost by that, either.
fn until_told() -> Result<CancellationToken, std::io::Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let told = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        tracing::info!(event = "stopping", "told to stop: finishing what is under way");
        told.cancel();
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(token)
}

async fn status(config: &Config, store: &Store) -> Result<(), Box<dyn std::error::Error>> {
    let statement = store.schema().statement(include_str!("../sql/status.sql"));
    let publication = config.publication();
    let rows = sqlx::query(statement).bind(&publication).fetch_all(store.pool()).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "deployment {publication}")?;
    writeln!(
        out,
        "{:>5} {:>14} {:>10}  {:<20}  published by",
        "shard", "position", "waiting", "checkpoint of"
    )?;
    let mut waiting = 0;
    for row in &rows {
        waiting += row.try_get::<i64, _>("waiting")?;
        writeln!(out, "{}", status_line(row)?)?;
    }
    writeln!(out, "{waiting} events wait to be published")?;
    let held = store.schema().statement(include_str!("../sql/held_count.sql"));
    let held: i64 = sqlx::query_scalar(held).bind(&publication).fetch_one(store.pool()).await?;
    if held > 0 {
        writeln!(out, "{held} streams or categories are held: see `annals-relay quarantine list`")?;
    }
    Ok(())
}

fn status_line(row: &PgRow) -> Result<String, sqlx::Error> {
    let shard: i16 = row.try_get("shard")?;
    let position: Option<i64> = row.try_get("position")?;
    let waiting: i64 = row.try_get("waiting")?;
    let recorded_us: Option<i64> = row.try_get("recorded_us")?;
    let recorded = recorded_us.and_then(|us| Timestamp::from_microsecond(us).ok());
    let recorded = recorded.map_or_else(|| "never".to_owned(), |time| format!("{time:.0}"));
    let position = position.map_or_else(|| "-".to_owned(), |position| position.to_string());
    let owner: Option<String> = row.try_get("owner")?;
    let owner = owner.unwrap_or_else(|| "nobody".to_owned());
    Ok(format!("{shard:>5} {position:>14} {waiting:>10}  {recorded:<20}  {owner}"))
}
