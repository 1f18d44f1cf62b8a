//! Connection settings of a consumer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Options that this crate sets itself: its guarantees depend on their values.
const RESERVED: [&str; 11] = [
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "metadata.broker.list",
];

/// The brokers, and the options of the Kafka clients.
///
/// ```
/// use annals_consumer::ConsumerSettings;
///
/// let kafka = ConsumerSettings::new("broker-1:9093,broker-2:9093")
///     .client_id("billing")
///     .option("security.protocol", "SASL_SSL")?
///     .option("sasl.mechanism", "SCRAM-SHA-512")?;
/// # Ok::<(), annals_consumer::ReservedOptionError>(())
/// ```
#[derive(Clone)]
pub struct ConsumerSettings {
    pub(crate) brokers: String,
    pub(crate) client_id: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) topic_check_interval: Duration,
}

/// An option that this crate sets itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("option {name} is reserved by annals-consumer: remove it from the settings")]
pub struct ReservedOptionError {
    /// The option's name.
    pub name: String,
}

impl ConsumerSettings {
    /// Connects to these brokers (`host:port`, separated by commas) without encryption or
    /// authentication.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: "annals-consumer".to_owned(),
            options: BTreeMap::new(),
            topic_check_interval: Duration::from_secs(30),
        }
    }

    /// Names this client in the broker's logs and quotas.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }

    /// Sets an option of librdkafka: `security.protocol`, `sasl.username` and the like
    /// (<https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>).
    ///
    /// # Errors
    /// [`ReservedOptionError`] for options that this crate sets itself, such as `isolation.level`.
    /// An option that librdkafka does not know is an error when the consumer is made.
    pub fn option(mut self, name: &str, value: &str) -> Result<Self, ReservedOptionError> {
        if RESERVED.contains(&name) {
            return Err(ReservedOptionError { name: name.to_owned() });
        }
        self.options.insert(name.to_owned(), value.to_owned());
        Ok(self)
    }

    /// Checks at this interval whether partitions were added to a topic (30 s by default).
    /// While a topic is missing or the brokers are unavailable, the interval is at most 1 s.
    #[must_use]
    pub fn topic_check_interval(mut self, interval: Duration) -> Self {
        self.topic_check_interval = interval;
        self
    }
}

/// Omits the values of the options, which may be passwords.
impl fmt::Debug for ConsumerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerSettings")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("options", &self.options.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_options_are_refused() {
        for name in ["isolation.level", "metadata.broker.list"] {
            let refused = ConsumerSettings::new("b:9092").option(name, "read_uncommitted");
            assert_eq!(refused.unwrap_err().name, name);
        }
    }

    #[test]
    fn debug_output_hides_values_of_options() {
        let settings = ConsumerSettings::new("b:9092").option("sasl.password", "hunter2").unwrap();
        let text = format!("{settings:?}");
        assert!(text.contains("sasl.password") && !text.contains("hunter2"), "{text}");
    }
}
