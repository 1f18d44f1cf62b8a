//! The keys that can be written, and their defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::settings::Delivery;

/// All keys. Texts and whole numbers only: `check` checks the allowed values, with their origin.
/// Not `Debug`: it has secrets.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct RawConfig {
    pub(crate) database: RawDatabase,
    pub(crate) kafka: RawKafka,
    pub(crate) registry: RawRegistry,
    pub(crate) topics: RawTopics,
    pub(crate) relay: RawRelay,
    pub(crate) http: RawHttp,
    pub(crate) trace: RawTrace,
    pub(crate) log: RawLog,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawDatabase {
    pub(crate) url: String,
    pub(crate) url_file: String,
    pub(crate) password: String,
    pub(crate) password_file: String,
    pub(crate) schema: String,
    pub(crate) connections_max: i64,
    pub(crate) allow_fsync_off: bool,
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
    pub(crate) password_file: String,
    pub(crate) token: String,
    pub(crate) token_file: String,
    pub(crate) tls_authority: String,
    pub(crate) tls_certificate: String,
    pub(crate) tls_key: String,
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
    pub(crate) framing: String,
    pub(crate) layouts: BTreeMap<String, String>,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) categories: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawRelay {
    pub(crate) deployment: String,
    pub(crate) instance: String,
    pub(crate) source: String,
    pub(crate) delivery: String,
    pub(crate) durability: String,
    pub(crate) standbys: String,
    pub(crate) batch_events_max: i64,
    pub(crate) batch_bytes_max: i64,
    pub(crate) poll_idle_ms_max: i64,
    pub(crate) lease_ms: i64,
    pub(crate) stall_ms_max: i64,
    pub(crate) backoff_ms_min: i64,
    pub(crate) backoff_ms_max: i64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawHttp {
    pub(crate) listen: String,
    pub(crate) token: String,
    pub(crate) token_file: String,
    pub(crate) tls_certificate: String,
    pub(crate) tls_key: String,
    pub(crate) allow_insecure: bool,
    pub(crate) hung_ms_max: i64,
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct RawTrace {
    pub(crate) otlp_url: String,
    pub(crate) token: String,
    pub(crate) token_file: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawLog {
    pub(crate) format: String,
    pub(crate) level: String,
}

impl Default for RawDatabase {
    fn default() -> Self {
        Self {
            url: String::new(),
            url_file: String::new(),
            password: String::new(),
            password_file: String::new(),
            schema: "annals".to_owned(),
            connections_max: 4,
            allow_fsync_off: false,
        }
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
            password_file: String::new(),
            token: String::new(),
            token_file: String::new(),
            tls_authority: String::new(),
            tls_certificate: String::new(),
            tls_key: String::new(),
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
            framing: "prefix".to_owned(),
            layouts: BTreeMap::new(),
            config: BTreeMap::new(),
            categories: BTreeMap::new(),
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
            standbys: String::new(),
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

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9464".to_owned(),
            token: String::new(),
            token_file: String::new(),
            tls_certificate: String::new(),
            tls_key: String::new(),
            allow_insecure: false,
            hung_ms_max: 10_000,
        }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self { format: "text".to_owned(), level: "info".to_owned() }
    }
}
