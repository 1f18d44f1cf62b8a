//! From what was written to what can be used: every value is checked once, and all problems are said.

use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use annals_store::SchemaName;
use percent_encoding::percent_decode_str;
use tracing_subscriber::EnvFilter;

use crate::config::{
    Config, Database, Delivery, Durability, Kafka, Log, LogFormat, Login, RawConfig, RawDatabase,
    RawKafka, RawLog, RawRegistry, RawRelay, RawTopics, Registry, Relay, Secret, Topics,
};
use crate::settings::{ConfigError, Origins, Problem, Settings, variable_of};

const COMPRESSIONS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// What exactly-once publishing rests on: the relay sets these itself.
const PROPERTIES_OF_THE_RELAY: [&str; 12] = [
    "acks",
    "allow.auto.create.topics",
    "bootstrap.servers",
    "compression.type",
    "delivery.report.only.error",
    "enable.idempotence",
    "group.id",
    "isolation.level",
    "message.timeout.ms",
    "partitioner",
    "transaction.timeout.ms",
    "transactional.id",
];

pub(crate) fn check(settings: Settings) -> Result<Config, ConfigError> {
    let (raw, origins) = settings.finish()?;
    let RawConfig { database, kafka, registry, topics, relay, log } = raw;
    let mut checker = Checker { origins, problems: Vec::new() };
    let config = Config {
        database: checker.database(database),
        kafka: checker.kafka(kafka),
        registry: checker.registry(registry),
        topics: checker.topics(topics),
        relay: checker.relay(relay),
        log: checker.log(log),
        generation: 1,
        store: Arc::default(),
    };
    if checker.problems.is_empty() { Ok(config) } else { Err(ConfigError::Wrong(checker.problems)) }
}

/// Collects problems, and goes on with something harmless in place of what is wrong.
struct Checker {
    origins: Origins,
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
        Database { url: Secret::new(url), schema, connections_max }
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
        for name in
            raw.properties.keys().filter(|name| PROPERTIES_OF_THE_RELAY.contains(&name.as_str()))
        {
            self.problem("kafka.properties", format!("has {name}, which the relay sets itself"));
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

    fn registry(&mut self, raw: RawRegistry) -> Registry {
        let url = self.needed("registry.url", raw.url, "ANNALS_REGISTRY_URL");
        if !url.is_empty() && !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
        {
            self.problem("registry.url", "must begin with http:// or https://".to_owned());
        }
        let (url, in_url) = self.without_login(url);
        let login = match (raw.username.is_empty(), raw.password.is_empty(), raw.token.is_empty()) {
            (true, true, true) => in_url.unwrap_or(Login::None),
            (true, true, false) if in_url.is_none() => Login::Token(Secret::new(raw.token)),
            (false, _, true) if in_url.is_none() => Login::Basic {
                username: Secret::new(raw.username),
                password: Secret::new(raw.password),
            },
            (_, _, _) => {
                self.problem(
                    "registry.username",
                    "and password, or token, or both in registry.url: one of these ways".to_owned(),
                );
                Login::None
            }
        };
        let timeout = self.duration("registry.timeout_ms", raw.timeout_ms, 100..=60_000);
        let url = url.trim_end_matches('/').to_owned();
        Registry { url, auto_register: raw.auto_register, login, timeout }
    }

    /// A registry's URL, and the login in it: apart from each other, so that no log and no error has it.
    fn without_login(&mut self, url: String) -> (String, Option<Login>) {
        let Some((scheme, rest)) = url.split_once("://") else { return (url, None) };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains('@') {
            let what = "has an @ behind its host: in a user or a password, write / as %2F, ? as %3F, # as %23 and @ as %40";
            self.problem("registry.url", what.to_owned());
            return (format!("{scheme}://"), None);
        }
        let Some((login, host)) = authority.rsplit_once('@') else { return (url, None) };
        let (username, password) = login.split_once(':').unwrap_or((login, ""));
        let [username, password] =
            [username, password].map(|text| percent_decode_str(text).decode_utf8());
        let (Ok(username), Ok(password)) = (username, password) else {
            self.problem("registry.url", "has a user or a password that is not UTF-8".to_owned());
            return (format!("{scheme}://{host}{path}"), None);
        };
        let (username, password) = (Secret::new(username), Secret::new(password));
        (format!("{scheme}://{host}{path}"), Some(Login::Basic { username, password }))
    }

    fn topics(&mut self, raw: RawTopics) -> Topics {
        self.name("topics.prefix", &raw.prefix, 0..=100);
        self.name("topics.claims", &raw.claims, 1..=249);
        let partitions = self.number("topics.partitions", raw.partitions, 1..=10_000);
        let replication = raw.replication_factor;
        if replication != -1 && !(1..=100).contains(&replication) {
            let what =
                format!("is {replication}, and must be -1 (the brokers' default) or 1 to 100");
            self.problem("topics.replication_factor", what);
        }
        Topics {
            prefix: raw.prefix,
            claims: raw.claims,
            shared: raw.shared,
            create: raw.create,
            partitions: u16::try_from(partitions)
                .ok()
                .and_then(NonZeroU16::new)
                .unwrap_or(NonZeroU16::MIN),
            replication_factor: i32::try_from(replication).unwrap_or(-1),
            config: raw.config,
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

    fn needed(&mut self, key: &str, text: String, variable: &str) -> String {
        if text.is_empty() {
            let what =
                format!("must be set: in the file, or as {variable} or {}", variable_of(key));
            self.problem(key, what);
        }
        text
    }

    fn number(&mut self, key: &str, number: i64, allowed: RangeInclusive<i64>) -> u64 {
        if !allowed.contains(&number) {
            let (first, last) = (allowed.start(), allowed.end());
            self.problem(key, format!("is {number}, and must be {first} to {last}"));
        }
        number.clamp(*allowed.start(), *allowed.end()).unsigned_abs()
    }

    fn duration(&mut self, key: &str, ms: i64, allowed: RangeInclusive<i64>) -> Duration {
        Duration::from_millis(self.number(key, ms, allowed))
    }

    /// Names become parts of topics' names and of transactional ids.
    fn name(&mut self, key: &str, text: &str, bytes: RangeInclusive<usize>) {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !bytes.contains(&text.len()) || !text.bytes().all(legal) {
            let (first, last) = (bytes.start(), bytes.end());
            let what =
                format!("is {text:?}, and must be {first} to {last} letters, digits, dots, _ or -");
            self.problem(key, what);
        }
    }

    fn problem(&mut self, key: &str, what: String) {
        self.problems.push(self.origins.problem(key, what));
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The machine's name: on Linux the kernel says it, elsewhere a program that is everywhere.
pub(crate) fn host_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = kernel.or_else(|_absent| {
        let output = std::process::Command::new("hostname").output()?;
        String::from_utf8(output.stdout).map_err(std::io::Error::other)
    });
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
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
    fn every_value_out_of_bounds_is_said_with_what_is_allowed() {
        let said = problems(
            "topics = { partitions = 0, replication_factor = 0, prefix = 'a/b' }\n\
             relay = { lease_ms = 1, batch_events_max = -1, source = '', backoff_ms_min = 10, backoff_ms_max = 9 }\n\
             log = { format = 'xml', level = 'a=b=c' }\n\
             kafka.compression = 'rar'\nkafka.transaction_timeout_ms = 10\nkafka.properties = { acks = '1' }",
        );
        let expected = [
            "topics.prefix is \"a/b\", and must be 0 to 100 letters, digits, dots, _ or -",
            "topics.partitions is 0, and must be 1 to 10000",
            "topics.replication_factor is 0, and must be -1 (the brokers' default) or 1 to 100",
            "relay.lease_ms is 1, and must be 500 to 600000",
            "relay.batch_events_max is -1, and must be 1 to 100000",
            "relay.source must not be empty: CloudEvents need a source",
            "relay.backoff_ms_max must not be below relay.backoff_ms_min",
            "log.format is \"xml\", and must be text or json",
            "kafka.compression is \"rar\", and must be one of none, gzip, snappy, lz4, zstd",
            "kafka.transaction_timeout_ms is 10, and must be 1000 to 900000",
            "kafka.properties has acks, which the relay sets itself",
        ];
        for expected in expected {
            let whole = format!("the configuration: {expected}");
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
    fn what_is_needed_is_said_with_the_ways_to_give_it() {
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
    fn one_way_to_log_in_is_enough() {
        let said = problems("registry.username = 'u'\nregistry.token = 't'");
        assert_eq!(
            said,
            [
                "the configuration: registry.username and password, or token, or both in registry.url: one of these ways"
            ]
        );
    }

    #[test]
    fn a_login_in_the_registrys_url_is_used_and_does_not_stay_there() {
        let of = |url: &str| {
            Config::parse(&NEEDED.replace("http://r", url)).map(|config| config.registry)
        };
        let registry = of("https://ann:hunter%2f2@r:8081/apis/v7/").unwrap();
        assert_eq!(registry.url, "https://r:8081/apis/v7");
        assert!(!format!("{registry:?}").contains("hunter"), "{registry:?}");
        assert!(!format!("{registry:?}").contains("ann"), "{registry:?}");
        let Login::Basic { username, password } = registry.login else { panic!("no login") };
        assert_eq!((username.expose(), password.expose()), ("ann", "hunter/2"));
        let Login::Basic { username, password } = of("http://key:p@ss@r").unwrap().login else {
            panic!("no login")
        };
        assert_eq!((username.expose(), password.expose()), ("key", "p@ss"));
        assert!(matches!(of("http://r").unwrap().login, Login::None));
    }

    #[test]
    fn a_login_that_cannot_be_told_from_the_url_is_refused_without_being_shown() {
        for url in ["http://ann:hunter/2@r", "http://ann:hunter?2@r/", "http://ann:hunter#2@r"] {
            let text = NEEDED.replace("http://r", url);
            let said = Config::parse(&text).unwrap_err().to_string();
            assert!(said.contains("registry.url has an @ behind its host"), "{said}");
            assert!(!said.contains("hunter"), "{said}");
        }
        let said = problems("registry.token = 't'\nregistry.username = 'u'");
        assert_eq!(said.len(), 1, "{said:?}");
        let twice = NEEDED.replace("http://r", "http://ann:hunter2@r");
        let said = Config::parse(&format!("{twice}registry.token = 't'")).unwrap_err().to_string();
        assert!(said.contains("one of these ways") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn the_instance_is_named_like_the_machine_unless_it_is_named() {
        let named = Config::parse(&format!("{NEEDED}relay.instance = 'a'")).unwrap();
        assert_eq!(named.relay.instance, "a");
        assert_eq!(Config::parse(NEEDED).unwrap().relay.instance, host_name());
    }

    #[test]
    fn names_of_one_deployment_are_nobody_elses() {
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
