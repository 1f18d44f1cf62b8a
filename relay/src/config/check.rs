//! Checks every value once, and collects all problems.

use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals_store::SchemaName;
use tracing_subscriber::EnvFilter;

use crate::config::defaults::{RawConfig, RawDatabase, RawKafka, RawLog, RawRelay};
use crate::config::effective::Effective;
use crate::config::error::{ConfigError, Problem};
use crate::config::host::host_name;
use crate::config::kafka_properties::faults;
use crate::config::settings::{
    Config, Database, Delivery, Durability, Kafka, Log, LogFormat, Relay, Secret,
};
use crate::config::sources::{Sources, variable_of};

const COMPRESSIONS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

impl Config {
    /// Reads the file, if one is given, and the environment, which overrides it.
    ///
    /// # Errors
    /// [`ConfigError`] names every key that is unknown or wrong, its origin, and the
    /// allowed values.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Effective), ConfigError> {
        let mut sources = Sources::new();
        if let Some(path) = file {
            sources.file(path)?;
        }
        sources.environment(environment);
        check(sources)
    }

    /// The same for a text instead of a file, and no environment.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_with_origins(text).map(|(config, _)| config)
    }

    pub(super) fn parse_with_origins(text: &str) -> Result<(Self, Effective), ConfigError> {
        let mut sources = Sources::new();
        sources.text("the configuration", text)?;
        check(sources)
    }
}

pub(crate) fn check(sources: Sources) -> Result<(Config, Effective), ConfigError> {
    let (raw, effective) = sources.finish()?;
    let RawConfig { database, kafka, registry, topics, relay, http, trace, log } = raw;
    let mut checker = Checker { effective, problems: Vec::new() };
    let config = Config {
        database: checker.database(database),
        kafka: checker.kafka(kafka),
        registry: checker.registry(registry),
        topics: checker.topics(topics),
        relay: checker.relay(relay),
        http: checker.http(http),
        trace: checker.trace(trace),
        log: checker.log(log),
        generation: 1,
        store: Arc::default(),
    };
    let Checker { effective, problems } = checker;
    if problems.is_empty() { Ok((config, effective)) } else { Err(ConfigError::Wrong(problems)) }
}

/// Collects problems; a wrong value is replaced by a harmless one, so that the check continues.
pub(super) struct Checker {
    effective: Effective,
    problems: Vec<Problem>,
}

impl Checker {
    fn database(&mut self, raw: RawDatabase) -> Database {
        let url = self.needed("database.url", raw.url, "ANNALS_DATABASE_URL");
        if !url.is_empty()
            && !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme))
        {
            self.problem("database.url", "must begin with postgres:// or postgresql://".to_owned());
        }
        let schema = SchemaName::new(raw.schema).unwrap_or_else(|error| {
            self.problem("database.schema", format!("is wrong: {error}"));
            SchemaName::default()
        });
        let connections = self.number("database.connections_max", raw.connections_max, 3..=100);
        let connections_max =
            u32::try_from(connections).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let password = Some(raw.password).filter(|password| !password.is_empty());
        Database {
            url: Secret::new(url),
            password: password.map(Secret::new),
            schema,
            connections_max,
            allow_fsync_off: raw.allow_fsync_off,
        }
    }

    fn kafka(&mut self, raw: RawKafka) -> Kafka {
        let transaction_timeout = self.duration(
            "kafka.transaction_timeout_ms",
            raw.transaction_timeout_ms,
            1_000..=900_000,
        );
        if !COMPRESSIONS.contains(&raw.compression.as_str()) {
            let what =
                format!("is {:?}, and must be one of {}", raw.compression, COMPRESSIONS.join(", "));
            self.problem("kafka.compression", what);
        }
        for what in faults(&raw.properties) {
            self.problem("kafka.properties", what);
        }
        Kafka {
            bootstrap_servers: self.needed(
                "kafka.bootstrap_servers",
                raw.bootstrap_servers,
                "ANNALS_KAFKA",
            ),
            transaction_timeout,
            compression: raw.compression,
            properties: raw
                .properties
                .into_iter()
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
        }
    }

    fn relay(&mut self, raw: RawRelay) -> Relay {
        let instance = if raw.instance.is_empty() { host_name() } else { raw.instance };
        self.name("relay.deployment", &raw.deployment, 1..=100);
        self.name("relay.instance", &instance, 1..=100);
        if raw.source.is_empty() {
            self.problem("relay.source", "must not be empty: CloudEvents need a source".to_owned());
        }
        let delivery = Delivery::of(&raw.delivery).unwrap_or_else(|| {
            let what = format!("is {:?}, and must be exactly-once or at-least-once", raw.delivery);
            self.problem("relay.delivery", what);
            Delivery::ExactlyOnce
        });
        let durability = match raw.durability.as_str() {
            "local" => Durability::Local,
            "standby" => Durability::Standby,
            other => {
                let what = format!("is {other:?}, and must be local or standby");
                self.problem("relay.durability", what);
                Durability::Local
            }
        };
        let events = self.number("relay.batch_events_max", raw.batch_events_max, 1..=100_000);
        let bytes = self.number("relay.batch_bytes_max", raw.batch_bytes_max, 1_024..=268_435_456);
        let backoff_min = self.duration("relay.backoff_ms_min", raw.backoff_ms_min, 1..=60_000);
        let backoff_max = self.duration("relay.backoff_ms_max", raw.backoff_ms_max, 1..=600_000);
        if backoff_max < backoff_min {
            self.problem(
                "relay.backoff_ms_max",
                "must not be below relay.backoff_ms_min".to_owned(),
            );
        }
        Relay {
            deployment: raw.deployment,
            instance,
            source: raw.source,
            delivery,
            durability,
            standbys: names(&raw.standbys),
            batch_events_max: NonZeroUsize::new(size(events)).unwrap_or(NonZeroUsize::MIN),
            batch_bytes_max: size(bytes),
            poll_idle_max: self.duration(
                "relay.poll_idle_ms_max",
                raw.poll_idle_ms_max,
                1..=10_000,
            ),
            lease: self.duration("relay.lease_ms", raw.lease_ms, 500..=600_000),
            stall_max: self.duration("relay.stall_ms_max", raw.stall_ms_max, 1_000..=3_600_000),
            backoff_min,
            backoff_max,
        }
    }

    fn log(&mut self, raw: RawLog) -> Log {
        let format = match raw.format.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                self.problem("log.format", format!("is {other:?}, and must be text or json"));
                LogFormat::Text
            }
        };
        if let Err(error) = EnvFilter::try_new(&raw.level) {
            let what = format!(
                "is {:?}, and must be error, warn, info, debug, trace or directives: {error}",
                raw.level
            );
            self.problem("log.level", what);
        }
        Log { format, level: raw.level }
    }

    pub(super) fn needed(&mut self, key: &str, text: String, variable: &str) -> String {
        if text.is_empty() {
            let what =
                format!("must be set: in the file, or as {variable} or {}", variable_of(key));
            self.problem(key, what);
        }
        text
    }

    pub(super) fn number(&mut self, key: &str, number: i64, allowed: RangeInclusive<i64>) -> u64 {
        if !allowed.contains(&number) {
            let (first, last) = (allowed.start(), allowed.end());
            self.problem(key, format!("is {number}, and must be {first} to {last}"));
        }
        number.clamp(*allowed.start(), *allowed.end()).unsigned_abs()
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        ms: i64,
        allowed: RangeInclusive<i64>,
    ) -> Duration {
        Duration::from_millis(self.number(key, ms, allowed))
    }

    /// A name becomes a part of topic names and transactional ids.
    pub(super) fn name(&mut self, key: &str, text: &str, bytes: RangeInclusive<usize>) {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !bytes.contains(&text.len()) || !text.bytes().all(legal) {
            let (first, last) = (bytes.start(), bytes.end());
            let what =
                format!("is {text:?}, and must be {first} to {last} letters, digits, dots, _ or -");
            self.problem(key, what);
        }
    }

    pub(super) fn problem(&mut self, key: &str, what: String) {
        self.problems.push(self.effective.problem(key, what));
    }
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreFacts;

    const NEEDED: &str = "database.url = 'postgres://h/d'\nkafka.bootstrap_servers = 'k:1'\nregistry.url = 'http://r'\n";

    fn problems(text: &str) -> Vec<String> {
        match Config::parse(&format!("{NEEDED}{text}")) {
            Err(ConfigError::Wrong(problems)) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_value_out_of_bounds_is_reported_with_the_allowed_ones() {
        let said = problems(
            "topics = { partitions = 0, replication_factor = 0, prefix = 'a/b' }\n\
             relay = { lease_ms = 1, batch_events_max = -1, source = '', backoff_ms_min = 10, backoff_ms_max = 9 }\n\
             log = { format = 'xml', level = 'a=b=c' }\n\
             kafka.compression = 'rar'\nkafka.transaction_timeout_ms = 10\nkafka.properties = { acks = '1' }",
        );
        let expected = [
            (4, "topics.prefix is \"a/b\", and must be 0 to 100 letters, digits, dots, _ or -"),
            (4, "topics.partitions is 0, and must be 1 to 10000"),
            (
                4,
                "topics.replication_factor is 0, and must be -1 (the brokers' default) or 1 to 100",
            ),
            (5, "relay.lease_ms is 1, and must be 500 to 600000"),
            (5, "relay.batch_events_max is -1, and must be 1 to 100000"),
            (5, "relay.source must not be empty: CloudEvents need a source"),
            (5, "relay.backoff_ms_max must not be below relay.backoff_ms_min"),
            (6, "log.format is \"xml\", and must be text or json"),
            (7, "kafka.compression is \"rar\", and must be one of none, gzip, snappy, lz4, zstd"),
            (8, "kafka.transaction_timeout_ms is 10, and must be 1000 to 900000"),
            (9, "kafka.properties has acks, which the relay sets itself"),
        ];
        for (line, expected) in expected {
            let whole = format!("the configuration:{line}: {expected}");
            assert!(said.contains(&whole), "{whole}\nnot in\n{}", said.join("\n"));
        }
        assert!(
            said.iter().any(|said| said.contains("log.level is \"a=b=c\"")),
            "{}",
            said.join("\n")
        );
        assert_eq!(said.len(), expected.len() + 1, "{}", said.join("\n"));
    }

    #[test]
    fn a_missing_value_is_reported_with_the_ways_to_set_it() {
        let error = Config::parse("").unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(
            lines,
            [
                "nowhere given: database.url must be set: in the file, or as ANNALS_DATABASE_URL or \
                 ANNALS_RELAY__DATABASE__URL",
                "nowhere given: kafka.bootstrap_servers must be set: in the file, or as ANNALS_KAFKA or \
                 ANNALS_RELAY__KAFKA__BOOTSTRAP_SERVERS",
                "nowhere given: registry.url must be set: in the file, or as ANNALS_REGISTRY_URL or \
                 ANNALS_RELAY__REGISTRY__URL",
            ]
        );
    }

    #[test]
    fn the_instance_is_named_like_the_machine_unless_it_is_named() {
        let named = Config::parse(&format!("{NEEDED}relay.instance = 'a'")).unwrap();
        assert_eq!(named.relay.instance, "a");
        assert_eq!(Config::parse(NEEDED).unwrap().relay.instance, host_name());
    }

    #[test]
    fn names_of_one_deployment_are_unique() {
        let text = format!("{NEEDED}topics.prefix = 'air.'\nrelay.deployment = 'port'");
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.topic("flight"), "air.flight");
        assert_eq!(config.publication(), "port@air.");
        let id = uuid::Uuid::from_u128(0x0123_4567_89ab_cdef << 64);
        let config = config.of_store(StoreFacts { id, ..StoreFacts::default() });
        assert_eq!(&*config.checkpoint_topic(), "air.port-checkpoints-0123456789ab");
        let later = config.clone().in_generation(3);
        assert_eq!(&*later.checkpoint_topic(), "air.port-checkpoints-0123456789ab-3");
        assert_eq!(config.transactional_id_prefix(), "air.port");
    }
}
