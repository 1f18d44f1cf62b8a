//! The configuration, complete and checked. `relay.example.toml` explains every key.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annals_schemas::{Framing, Layout};
use annals_store::SchemaName;
use uuid::Uuid;

/// The configuration of a relay, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// PostgreSQL.
    pub database: Database,
    /// Kafka.
    pub kafka: Kafka,
    /// The schema registry.
    pub registry: Registry,
    /// The names and the properties of topics.
    pub topics: Topics,
    /// The relay itself.
    pub relay: Relay,
    /// Its HTTP server: health and metrics.
    pub http: Http,
    /// Its traces.
    pub trace: Option<Trace>,
    /// Its log.
    pub log: Log,
    /// The generation of the deployment, from the database.
    pub(crate) generation: u32,
    /// Which store this is, from the database.
    pub(crate) store: Arc<StoreFacts>,
}

/// The oid of a database in its cluster.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct DatabaseOid(pub(crate) i64);

/// Which store and which cluster a database is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// The store id; a copy of the database has the same.
    pub id: Uuid,
    /// How often the store was adopted by another cluster.
    pub history: i32,
    /// The cluster.
    pub system_identifier: String,
    /// The oid of the database.
    pub database_oid: DatabaseOid,
    /// The databases of the cluster, by oid.
    pub databases: BTreeMap<DatabaseOid, String>,
}

/// The event store.
#[derive(Debug, Clone)]
pub struct Database {
    /// `postgres://user:password@host:port/database`.
    pub url: Secret,
    /// The password, instead of the one in the URL.
    pub password: Option<Secret>,
    /// The database schema that Annals lives in.
    pub schema: SchemaName,
    /// The most connections that the relay opens.
    pub connections_max: NonZeroU32,
    /// Whether a server with `fsync = off` is accepted.
    pub allow_fsync_off: bool,
}

/// Kafka and its client.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// The time after which the broker aborts the transaction of a hung relay.
    pub transaction_timeout: Duration,
    /// The codec of record batches, by Kafka's name.
    pub compression: String,
    /// Further properties of librdkafka; any of them may be a secret.
    pub properties: BTreeMap<String, Secret>,
}

/// The schema registry.
#[derive(Debug, Clone)]
pub struct Registry {
    /// The base of its Confluent API, without a slash at the end, and without a login.
    pub url: String,
    /// Whether the relay registers unknown schemas.
    pub auto_register: bool,
    /// The login.
    pub login: Login,
    /// The certificates.
    pub tls: RegistryTls,
    /// The deadline of a request.
    pub timeout: Duration,
}

/// The certificates of the connection to the registry.
#[derive(Debug, Clone, Default)]
pub struct RegistryTls {
    /// The file with the certificates of authorities that are trusted besides those of the system.
    pub authority: Option<PathBuf>,
    /// The relay's own certificate.
    pub client: Option<TlsFiles>,
}

/// The login to the registry.
#[derive(Debug, Clone)]
pub enum Login {
    /// None.
    None,
    /// HTTP basic authentication.
    Basic {
        /// The user; with some registries a key, and half of the secret.
        username: Secret,
        /// The password.
        password: Secret,
    },
    /// A bearer token.
    Token(Secret),
}

/// The names and the properties of topics.
#[derive(Debug, Clone)]
pub struct Topics {
    /// The prefix of every topic name.
    pub prefix: String,
    /// The topic of claims.
    pub claims: String,
    /// Whether other stores may publish to the same topics.
    pub shared: bool,
    /// Whether the relay creates missing topics.
    pub create: bool,
    /// The partition count of new topics.
    pub partitions: NonZeroU16,
    /// The replication factor of new topics; -1 is the brokers' default.
    pub replication_factor: i32,
    /// Where a message names the schema of its value.
    pub framing: Framing,
    /// The layout of the values of categories that do not have the default.
    pub layouts: BTreeMap<String, Layout>,
    /// Settings of new topics; they override those of the relay.
    pub config: BTreeMap<String, String>,
    /// Properties of the topics of single categories; they override all others.
    pub categories: BTreeMap<String, CategoryTopic>,
}

/// The properties of the topic of a category that differ from those of other topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CategoryTopic {
    /// The partition count.
    pub partitions: Option<NonZeroU16>,
    /// The replication factor.
    pub replication_factor: Option<i32>,
    /// Settings.
    pub config: BTreeMap<String, String>,
}

/// The relay itself.
#[derive(Debug, Clone)]
pub struct Relay {
    /// The deployment; its relays share the shards.
    pub deployment: String,
    /// The name of this relay in the deployment.
    pub instance: String,
    /// The `ce_source` of every message.
    pub source: String,
    /// The delivery guarantee.
    pub delivery: Delivery,
    /// When an event may be published.
    pub durability: Durability,
    /// The names of the standbys that count for the durability; none: every physical standby.
    pub standbys: Vec<String>,
    /// The most events in one Kafka transaction.
    pub batch_events_max: NonZeroUsize,
    /// The most bytes in one Kafka transaction, a single larger event excepted.
    pub batch_bytes_max: usize,
    /// The longest interval at which an idle relay polls.
    pub poll_idle_max: Duration,
    /// The duration of a lease.
    pub lease: Duration,
    /// The longest time without progress, in addition to the deadlines of operations.
    pub stall_max: Duration,
    /// The pause after the first failure.
    pub backoff_min: Duration,
    /// The longest pause after many failures.
    pub backoff_max: Duration,
}

/// The delivery guarantee; both keep the order of each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// `read_committed` consumers get each event once.
    ExactlyOnce,
    /// After a failure, some events are published again.
    AtLeastOnce,
}

impl Delivery {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }

    /// The delivery of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::ExactlyOnce, Self::AtLeastOnce].into_iter().find(|delivery| delivery.name() == name)
    }
}

/// When an event may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is committed.
    Local,
    /// Once a standby has flushed it: published events survive the loss of the primary.
    Standby,
}

/// The HTTP server.
#[derive(Debug, Clone)]
pub struct Http {
    /// The address; `None` for no server. With port 0 the system chooses a port.
    pub listen: Option<SocketAddr>,
    /// The bearer token that metrics and reasons need.
    pub token: Option<Secret>,
    /// The files with the certificate and its key, for TLS.
    pub tls: Option<TlsFiles>,
    /// The time without a turn of the event loop after which the relay counts as hung.
    pub hung_after: Duration,
}

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those of its issuers.
    pub certificate: PathBuf,
    /// Its private key, in PKCS#8.
    pub key: PathBuf,
}

/// Where spans are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The collector's URL for OTLP over HTTP, which may have a login.
    pub otlp_url: Secret,
    /// The bearer token.
    pub token: Option<Secret>,
}

/// The log.
#[derive(Debug, Clone)]
pub struct Log {
    /// The format of entries.
    pub format: LogFormat,
    /// The filter: a level, or directives of `tracing`'s `EnvFilter`.
    pub level: String,
}

/// The formats of log entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object.
    Json,
}

/// A text that never appears in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
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

impl Topics {
    /// The layout of a category's values.
    #[must_use]
    pub fn layout(&self, category: &str) -> Layout {
        self.layouts.get(category).copied().unwrap_or_default()
    }
}

impl Config {
    /// The topic of a category.
    #[must_use]
    pub fn topic(&self, category: &str) -> String {
        format!("{}{category}", self.topics.prefix)
    }

    /// The category of a topic of events; none for the topics of checkpoints and claims.
    #[must_use]
    pub fn category<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let category = topic.strip_prefix(&*self.topics.prefix)?;
        (topic != self.topics.claims && !category.contains('-')).then_some(category)
    }

    /// The name of the deployment in the database: with another prefix it is another publication,
    /// from the first event on. Neither part has an `@`.
    #[must_use]
    pub fn publication(&self) -> String {
        let (deployment, prefix) = (&self.relay.deployment, &self.topics.prefix);
        if prefix.is_empty() { deployment.clone() } else { format!("{deployment}@{prefix}") }
    }

    /// The topic with the progress of this deployment's replays, named like that of its
    /// checkpoints.
    #[must_use]
    pub(crate) fn replays_topic(&self) -> Arc<str> {
        let store = &self.store.id.simple().to_string()[..12];
        format!("{}{}-replays-{store}", self.topics.prefix, self.relay.deployment).into()
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

    /// The prefix of the transactional ids of this deployment's relays.
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
