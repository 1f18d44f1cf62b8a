//! The properties of Kafka clients: defaults, overridden by the configuration, overridden by what
//! the relay relies on.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Config, Kafka, Secret, canonical};

/// Values by property.
pub(crate) type Properties = BTreeMap<String, String>;

/// A broker that returns is found within a second. librdkafka connects to the second of two brokers
/// half of `reconnect.backoff.ms` after the first, which it leaves as soon as it knows the cluster:
/// a relay that starts makes a dozen clients, one after the other.
const DEFAULTS: [(&str, &str); 4] = [
    ("reconnect.backoff.ms", "22"),
    ("socket.timeout.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    ("reconnect.backoff.max.ms", "1000"),
];
/// Kafka refuses a whole batch above a topic's limit, however small its records: hence half of the
/// default limit.
const BATCH_BYTES_MAX: &str = "524288";

/// The certificate authorities of brokers, and those of token providers: the files, and the same as
/// text.
const AUTHORITIES: &[(&str, &str)] = if cfg!(feature = "oidc") {
    &[("ssl.ca.location", "ssl.ca.pem"), ("https.ca.location", "https.ca.pem")]
} else if cfg!(feature = "tls") {
    &[("ssl.ca.location", "ssl.ca.pem")]
} else {
    &[]
};
/// OpenSSL's own variables.
const AUTHORITY_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// For metadata and end offsets.
pub(crate) fn metadata(kafka: &Kafka) -> Properties {
    // A `read_committed` client gets the last stable offset instead of the end offset. The broker
    // answers a commit before it moves the last stable offset: committed records would be missed.
    properties(kafka, &[], &[("isolation.level", "read_uncommitted")])
}

/// For creating and describing topics.
pub(crate) fn admin(kafka: &Kafka) -> Properties {
    properties(kafka, &[], &[])
}

/// For publishing.
pub(crate) fn producer(config: &Config, transactional_id: Option<&str>) -> Properties {
    let timeout = config.kafka.transaction_timeout;
    let timeout_ms = timeout.as_millis().to_string();
    // The longest that librdkafka takes.
    let socket_timeout_ms = timeout.min(Duration::from_secs(10)).as_millis().to_string();
    let kind = match transactional_id {
        Some(id) => vec![
            ("transactional.id", id),
            ("transaction.timeout.ms", &timeout_ms),
            ("message.timeout.ms", &timeout_ms),
        ],
        // If librdkafka itself gave up a record, later ones would overtake it. The sender has a
        // deadline, after which it drops the producer with all its records.
        None => vec![("enable.gapless.guarantee", "true"), ("message.timeout.ms", "0")],
    };
    let must_be = [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("partitioner", "murmur2_random"),
        ("compression.type", &config.kafka.compression),
        // Acknowledged records need no report: that saves a callback for each.
        ("delivery.report.only.error", "true"),
    ];
    let defaults = [
        ("linger.ms", "0"),
        ("batch.size", BATCH_BYTES_MAX),
        ("topic.metadata.propagation.max.ms", "5000"),
        ("socket.timeout.ms", &socket_timeout_ms),
    ];
    properties(&config.kafka, &defaults, &[&must_be[..], &kind].concat())
}

/// For writing a few records that only their key identifies. It is not idempotent: librdkafka asks
/// for the id that an idempotent producer needs half a second after its creation. Without retries
/// of what may be written, nothing is written twice.
pub(crate) fn single_writer(config: &Config) -> Properties {
    let must_be = [
        ("enable.idempotence", "false"),
        ("acks", "all"),
        ("retries", "0"),
        ("max.in.flight.requests.per.connection", "1"),
        ("delivery.report.only.error", "true"),
        // The caller has a deadline.
        ("message.timeout.ms", "0"),
    ];
    let defaults = [("linger.ms", "0"), ("topic.metadata.propagation.max.ms", "5000")];
    properties(&config.kafka, &defaults, &must_be)
}

/// For records that every broker refuses, once it has checked the right to write: none takes two
/// acknowledgements, and none looks at a record before.
pub(crate) fn refused_writer(config: &Config) -> Properties {
    let must_be = [
        ("enable.idempotence", "false"),
        ("acks", "2"),
        ("retries", "0"),
        ("linger.ms", "0"),
        ("message.timeout.ms", "5000"),
    ];
    properties(&config.kafka, &[], &must_be)
}

/// For transactions that are not begun: brokers refuse their time-out of 23 days, once they have
/// checked the right to use the transactional id. librdkafka adds to it: the largest number would
/// overflow.
pub(crate) fn refused_transactions(config: &Config) -> Properties {
    let id = format!("{}-check", config.transactional_id_prefix());
    let must_be = [
        ("transactional.id", id.as_str()),
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("transaction.timeout.ms", "2000000000"),
        ("linger.ms", "0"),
        ("message.timeout.ms", "5000"),
    ];
    properties(&config.kafka, &[], &must_be)
}

/// For reading from the end of a partition.
pub(crate) fn end_reader(kafka: &Kafka) -> Properties {
    let must_be = [
        ("enable.partition.eof", "true"),
        // librdkafka requires a group, and never joins it.
        ("group.id", "annals-check"),
        ("enable.auto.commit", "false"),
        ("fetch.wait.max.ms", "20"),
    ];
    properties(kafka, &[], &must_be)
}

/// For reading the ends of the partitions of topics, of which `topic` is the first.
pub(crate) fn tail_reader(kafka: &Kafka, topic: &str, topics: usize) -> Properties {
    // The statistics have all partitions each time.
    let interval_ms = if topics > 1 { "100" } else { "10" };
    let must_be = [
        ("isolation.level", "read_committed"),
        // Partitions are assigned manually. librdkafka requires a group, and never joins it.
        ("group.id", topic),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "earliest"),
        ("fetch.wait.max.ms", "20"),
        // Only the statistics have the next offset to fetch, control records included.
        ("statistics.interval.ms", interval_ms),
    ];
    // A command that goes through topics is bounded in memory by these queues.
    let defaults = [("queued.max.messages.kbytes", "8192"), ("queued.min.messages", "5000")];
    properties(kafka, &defaults, &must_be)
}

fn properties(kafka: &Kafka, defaults: &[(&str, &str)], must_be: &[(&str, &str)]) -> Properties {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut properties: Properties = DEFAULTS.iter().chain(defaults).map(owned).collect();
    let configured = kafka.properties.iter();
    // By one name each: librdkafka would take either of two.
    let by_name =
        |(name, value): (&String, &Secret)| (canonical(name).to_owned(), value.expose().to_owned());
    properties.extend(configured.map(by_name));
    properties.extend(must_be.iter().map(owned));
    if AUTHORITY_VARIABLES.iter().all(|name| std::env::var_os(name).is_none()) {
        trust_the_system(&mut properties);
    }
    properties.insert("bootstrap.servers".to_owned(), kafka.bootstrap_servers.clone());
    // A topic that the broker creates by itself has the broker's retention: it would lose events.
    properties.insert("allow.auto.create.topics".to_owned(), "false".to_owned());
    properties
}

/// Where no authority is configured, librdkafka searches for those of the system. The OpenSSL that
/// is linked in would only look into its own directory, which no system has.
fn trust_the_system(properties: &mut Properties) {
    for (location, text) in AUTHORITIES {
        if !properties.contains_key(*text) {
            properties.entry((*location).to_owned()).or_insert_with(|| "probe".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_replaces_defaults_and_nothing_that_exactly_once_relies_on() {
        let mut config = Config::example();
        for (name, value) in [("linger.ms", "5"), ("acks", "1"), ("sasl.username", "relay")] {
            config.kafka.properties.insert(name.to_owned(), Secret::new(value));
        }
        let properties = producer(&config, Some("annals.a"));
        assert_eq!(properties["linger.ms"], "5");
        assert_eq!(properties["sasl.username"], "relay");
        assert_eq!(properties["acks"], "all");
        assert_eq!(properties["batch.size"], "524288");
    }

    #[test]
    fn nothing_is_written_twice_by_a_property_that_has_another_name() {
        let mut config = Config::example();
        for name in ["message.send.max.retries", "max.in.flight", "queue.buffering.max.ms"] {
            config.kafka.properties.insert(name.to_owned(), Secret::new("7"));
        }
        let properties = single_writer(&config);
        assert!(!properties.contains_key("message.send.max.retries"));
        assert!(!properties.contains_key("max.in.flight"));
        assert_eq!(properties["retries"], "0");
        assert_eq!(properties["max.in.flight.requests.per.connection"], "1");
        assert_eq!(properties["linger.ms"], "7", "it replaces the default");
    }

    #[test]
    #[cfg(feature = "tls")]
    fn the_authorities_of_the_system_are_trusted_unless_others_are_configured() {
        let trusted = |configured: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let mut properties: Properties = configured.iter().map(owned).collect();
            trust_the_system(&mut properties);
            properties.get("ssl.ca.location").cloned()
        };
        assert_eq!(trusted(&[]).as_deref(), Some("probe"));
        assert_eq!(trusted(&[("ssl.ca.location", "/a.pem")]).as_deref(), Some("/a.pem"));
        assert_eq!(trusted(&[("ssl.ca.pem", "-----BEGIN")]), None);
    }

    #[test]
    fn end_offsets_come_from_a_client_that_gets_the_true_ones() {
        let kafka = Config::example().kafka;
        assert_eq!(metadata(&kafka)["isolation.level"], "read_uncommitted");
        assert_eq!(tail_reader(&kafka, "t", 1)["isolation.level"], "read_committed");
    }
}
