//! How a consumer reaches Kafka.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What this crate decides itself; another value would break what it promises.
const DECIDED_HERE: [&str; 9] = [
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
];

/// Where Kafka is and how to talk to it.
#[derive(Clone)]
pub struct Settings {
    pub(crate) brokers: String,
    pub(crate) client_id: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) topic_check_interval: Duration,
}

/// An option that this crate does not let anybody change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("option {name} is decided by annals-consumer: remove it from the settings")]
pub struct RefusedOption {
    /// The option's name.
    pub name: String,
}

impl Settings {
    /// Talks to these brokers (`host:port`, separated by commas) without encryption or authentication.
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
    /// [`RefusedOption`] for those that this crate's promises rest on, such as `isolation.level`. An
    /// option that librdkafka does not know is refused when the consumer is made.
    pub fn option(mut self, name: &str, value: &str) -> Result<Self, RefusedOption> {
        if DECIDED_HERE.contains(&name) {
            return Err(RefusedOption { name: name.to_owned() });
        }
        self.options.insert(name.to_owned(), value.to_owned());
        Ok(self)
    }

    /// Looks this often whether a topic's partition count has changed (30 s unless set). While a
    /// topic is missing or the brokers are away, it looks every second, or this often if that is oftener.
    #[must_use]
    pub fn topic_check_interval(mut self, interval: Duration) -> Self {
        self.topic_check_interval = interval;
        self
    }
}

/// Names the options without their values, which may be passwords.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
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
    fn options_the_promises_rest_on_are_refused() {
        let refused = Settings::new("b:9092").option("isolation.level", "read_uncommitted");
        assert_eq!(refused.unwrap_err().name, "isolation.level");
    }

    #[test]
    fn debug_output_hides_values_of_options() {
        let settings = Settings::new("b:9092").option("sasl.password", "hunter2").unwrap();
        let text = format!("{settings:?}");
        assert!(text.contains("sasl.password") && !text.contains("hunter2"), "{text}");
    }
}
