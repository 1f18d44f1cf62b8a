//! What can be set: read from a file and the environment, checked once, complete from then on.
//!
//! `relay.example.toml` explains every key. How file and environment are put together stands in
//! [`settings`](crate::settings).

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals_store::SchemaName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config_check::check;
use crate::settings::{ConfigError, Settings};

/// The configuration of a relay, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// PostgreSQL.
    pub database: Database,
    /// Kafka.
    pub kafka: Kafka,
    /// The schema registry.
    pub registry: Registry,
    /// How topics are named and made.
    pub topics: Topics,
    /// The relay itself.
    pub relay: Relay,
    /// Its log.
    pub log: Log,
    /// How often the deployment was begun anew; the database says it.
    pub(crate) generation: u32,
    /// Which store this is; the database says it.
    pub(crate) store: Arc<StoreFacts>,
}

/// Which store a database has, and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// Drawn when the store was made; a copy of the database has it, too.
    pub id: Uuid,
    /// How often the store was adopted by another cluster.
    pub history: i32,
    /// The cluster.
    pub system_identifier: String,
    /// The database in it.
    pub database_oid: i64,
    /// The databases of the cluster, by oid.
    pub databases: BTreeMap<i64, String>,
}

/// Where the event store is.
#[derive(Debug, Clone)]
pub struct Database {
    /// `postgres://user:password@host:port/database`.
    pub url: Secret,
    /// The database schema that Annals lives in.
    pub schema: SchemaName,
    /// How many connections the relay opens at most.
    pub connections_max: NonZeroU32,
}

/// Where Kafka is, and how to talk to it.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// After how long the broker gives up a transaction of a relay that hangs.
    pub transaction_timeout: Duration,
    /// The codec of record batches, by Kafka's name for it.
    pub compression: String,
    /// Further properties of librdkafka; any of them may be a secret.
    pub properties: BTreeMap<String, Secret>,
}

/// Where the schema registry is, and what may be done there.
#[derive(Debug, Clone)]
pub struct Registry {
    /// The base of its Confluent API, without a slash at the end, and without a login.
    pub url: String,
    /// Whether schemas that it does not know are registered.
    pub auto_register: bool,
    /// How to log in.
    pub login: Login,
    /// How long a request may take.
    pub timeout: Duration,
}

/// How the relay logs in to the registry.
#[derive(Debug, Clone)]
pub enum Login {
    /// Not at all.
    None,
    /// With HTTP basic authentication.
    Basic {
        /// The user; with some registries a key, and half of the secret.
        username: Secret,
        /// The password.
        password: Secret,
    },
    /// With a bearer token.
    Token(Secret),
}

/// How topics are named and made.
#[derive(Debug, Clone)]
pub struct Topics {
    /// What the name of every topic begins with.
    pub prefix: String,
    /// The topic in which every publication says which topics are its own.
    pub claims: String,
    /// Whether other stores may publish into the same topics.
    pub shared: bool,
    /// Whether the relay makes topics that are not there.
    pub create: bool,
    /// How many partitions a topic is made with.
    pub partitions: NonZeroU16,
    /// On how many brokers; -1 is the brokers' default.
    pub replication_factor: i32,
    /// Settings beside those of the relay's policy, or instead of them.
    pub config: BTreeMap<String, String>,
}

/// The relay itself.
#[derive(Debug, Clone)]
pub struct Relay {
    /// What is published; relays of one deployment stand in for each other.
    pub deployment: String,
    /// Which relay of the deployment this is.
    pub instance: String,
    /// The `ce_source` of every message.
    pub source: String,
    /// What consumers are promised.
    pub delivery: Delivery,
    /// When an event is safe enough to be published.
    pub durability: Durability,
    /// How many events go into one Kafka transaction at most.
    pub batch_events_max: NonZeroUsize,
    /// How many bytes go into one Kafka transaction at most, but for a single larger event.
    pub batch_bytes_max: usize,
    /// How long an idle relay waits at most before it looks again.
    pub poll_idle_max: Duration,
    /// How long a lease lasts unless it is prolonged.
    pub lease: Duration,
    /// How long work may be under way without an answer, beyond the deadlines that it has.
    pub stall_max: Duration,
    /// How long to wait after the first failure.
    pub backoff_min: Duration,
    /// How long to wait at most after many.
    pub backoff_max: Duration,
}

/// What consumers are promised; each stream comes in order with both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Readers of committed records get each event once.
    ExactlyOnce,
    /// After a failure some events come again.
    AtLeastOnce,
}

impl Delivery {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }

    /// The other way round.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::ExactlyOnce, Self::AtLeastOnce].into_iter().find(|delivery| delivery.name() == name)
    }
}

/// When an event is safe enough to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is committed.
    Local,
    /// Once a standby has it on its disk, too: what is published survives the loss of the primary.
    Standby,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Log {
    /// One line or one JSON object an entry.
    pub format: LogFormat,
    /// The filter: a level, or directives of `tracing`'s `EnvFilter`.
    pub level: String,
}

/// The two forms of log entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A text that never appears in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for handing it on.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Config {
    /// Reads the file, if one is named, and the environment, which overrides it.
    ///
    /// # Errors
    /// [`ConfigError`] names every key that is unknown or wrong, where it stands, and what is allowed.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Settings::new();
        if let Some(path) = file {
            settings.file(path)?;
        }
        settings.environment(environment);
        check(settings)
    }

    /// The same for a text instead of a file, and no environment.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut settings = Settings::new();
        settings.text("the configuration", text)?;
        check(settings)
    }

    /// The topic of a category.
    #[must_use]
    pub fn topic(&self, category: &str) -> String {
        format!("{}{category}", self.topics.prefix)
    }

    /// What the database keeps a deployment under: with other topics it is another publication, from the first event
    /// on. Neither name has an `@`.
    #[must_use]
    pub fn publication(&self) -> String {
        let (deployment, prefix) = (&self.relay.deployment, &self.topics.prefix);
        if prefix.is_empty() { deployment.clone() } else { format!("{deployment}@{prefix}") }
    }

    /// The topic of this deployment's checkpoints. A category has no `-`, so it is nobody else's, and another store's
    /// has another name. Each generation has its own: what an earlier one wrote means nothing to it.
    #[must_use]
    pub fn checkpoint_topic(&self) -> Arc<str> {
        let store = &self.store.id.simple().to_string()[..12];
        let first = format!("{}{}-checkpoints-{store}", self.topics.prefix, self.relay.deployment);
        match self.generation {
            1 => first.into(),
            later => format!("{first}-{later}").into(),
        }
    }

    /// The same configuration in a generation of the deployment; see `relay_deployments`.
    #[must_use]
    pub fn in_generation(self, generation: u32) -> Self {
        Self { generation, ..self }
    }

    /// The same configuration for a store.
    #[must_use]
    pub fn of_store(self, store: StoreFacts) -> Self {
        Self { store: Arc::new(store), ..self }
    }

    /// What the transactional ids of this deployment's relays begin with.
    #[must_use]
    pub fn transactional_id_prefix(&self) -> String {
        format!("{}{}", self.topics.prefix, self.relay.deployment)
    }

    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let text = "database.url = 'postgres://h/d'\nkafka.bootstrap_servers = 'k:1'\nregistry.url = 'http://r'";
        Self::parse(text).unwrap()
    }
}

/// What can be written, with what holds where nothing is. Texts and whole numbers only: what they may
/// be is checked with their place at hand. Not `Debug`: it holds secrets.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct RawConfig {
    pub(crate) database: RawDatabase,
    pub(crate) kafka: RawKafka,
    pub(crate) registry: RawRegistry,
    pub(crate) topics: RawTopics,
    pub(crate) relay: RawRelay,
    pub(crate) log: RawLog,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawDatabase {
    pub(crate) url: String,
    pub(crate) schema: String,
    pub(crate) connections_max: i64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawKafka {
    pub(crate) bootstrap_servers: String,
    pub(crate) transaction_timeout_ms: i64,
    pub(crate) compression: String,
    pub(crate) properties: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawRegistry {
    pub(crate) url: String,
    pub(crate) auto_register: bool,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) token: String,
    pub(crate) timeout_ms: i64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawTopics {
    pub(crate) prefix: String,
    pub(crate) claims: String,
    pub(crate) shared: bool,
    pub(crate) create: bool,
    pub(crate) partitions: i64,
    pub(crate) replication_factor: i64,
    pub(crate) config: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawRelay {
    pub(crate) deployment: String,
    pub(crate) instance: String,
    pub(crate) source: String,
    pub(crate) delivery: String,
    pub(crate) durability: String,
    pub(crate) batch_events_max: i64,
    pub(crate) batch_bytes_max: i64,
    pub(crate) poll_idle_ms_max: i64,
    pub(crate) lease_ms: i64,
    pub(crate) stall_ms_max: i64,
    pub(crate) backoff_ms_min: i64,
    pub(crate) backoff_ms_max: i64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawLog {
    pub(crate) format: String,
    pub(crate) level: String,
}

impl Default for RawDatabase {
    fn default() -> Self {
        Self { url: String::new(), schema: "annals".to_owned(), connections_max: 4 }
    }
}

impl Default for RawKafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: String::new(),
            transaction_timeout_ms: 10_000,
            compression: "lz4".to_owned(),
            properties: BTreeMap::new(),
        }
    }
}

impl Default for RawRegistry {
    fn default() -> Self {
        Self {
            url: String::new(),
            auto_register: false,
            username: String::new(),
            password: String::new(),
            token: String::new(),
            timeout_ms: 5_000,
        }
    }
}

impl Default for RawTopics {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            claims: "annals-topics".to_owned(),
            shared: false,
            create: true,
            partitions: 12,
            replication_factor: -1,
            config: BTreeMap::new(),
        }
    }
}

impl Default for RawRelay {
    fn default() -> Self {
        Self {
            deployment: "annals".to_owned(),
            instance: String::new(),
            source: "annals".to_owned(),
            delivery: Delivery::ExactlyOnce.name().to_owned(),
            durability: "local".to_owned(),
            batch_events_max: 3_500,
            batch_bytes_max: 8_388_608,
            poll_idle_ms_max: 20,
            lease_ms: 3_000,
            stall_ms_max: 60_000,
            backoff_ms_min: 50,
            backoff_ms_max: 5_000,
        }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self { format: "text".to_owned(), level: "info".to_owned() }
    }
}
