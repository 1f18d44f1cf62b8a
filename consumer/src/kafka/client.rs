//! Makes the Kafka clients: their options, and the log of librdkafka.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::group::GroupChanges;
use crate::settings::ConsumerSettings;

pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that librdkafka may fetch ahead, over all partitions.
const FETCHED_AHEAD_KBYTES_MAX: &str = "32768";
/// The age up to which a connection is new, as for librdkafka.
const NEW_CONNECTION_MS_MAX: u64 = 2_000;

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

/// Kafka or librdkafka reported a permanent error.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct KafkaClientError {
    pub(super) action: String,
    pub(super) source: KafkaError,
}

/// Kafka does not answer: the error of the request, and librdkafka's last connection error.
#[derive(Debug, thiserror::Error)]
#[error("{error}; {connection_error}")]
pub(super) struct Unavailable {
    pub(super) error: KafkaError,
    pub(super) connection_error: String,
}

/// The last connection error that librdkafka logged.
#[derive(Debug, Clone, Default)]
pub(super) struct LastConnectionError(Arc<Mutex<String>>);

impl LastConnectionError {
    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, text: &str) {
        text.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The options that all clients of a consumer share.
pub(super) fn config(settings: &ConsumerSettings, isolation_level: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        // Independent of the log crate's level: connection errors are among these lines.
        .set_log_level(RDKafkaLogLevel::Info)
        .set("queued.max.messages.kbytes", FETCHED_AHEAD_KBYTES_MAX)
        // A new client connects to a second broker, after half of this, once it knows the cluster.
        .set("reconnect.backoff.ms", "22")
        // The default of 10 s would delay reading by that much after the broker is back.
        .set("reconnect.backoff.max.ms", "1000");
    for (name, value) in &settings.options {
        config.set(name, value);
    }
    if AUTHORITY_VARIABLES.iter().all(|name| std::env::var_os(name).is_none()) {
        trust_the_system(&mut config);
    }
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", &settings.client_id)
        .set("isolation.level", isolation_level)
        .set("allow.auto.create.topics", "false");
    config
}

/// Where no authority is configured, librdkafka searches for those of the system. The OpenSSL that
/// is linked in would only look into its own directory, which no system has.
fn trust_the_system(config: &mut ClientConfig) {
    for (location, text) in AUTHORITIES {
        if config.get(location).is_none() && config.get(text).is_none() {
            config.set(*location, "probe");
        }
    }
}

pub(super) fn create<T: FromClientConfigAndContext<ClientCallbacks>>(
    config: &ClientConfig,
    connection_error: &LastConnectionError,
    group: &Arc<GroupChanges>,
) -> Result<T, KafkaClientError> {
    let (connection_error, group) = (connection_error.clone(), Arc::clone(group));
    let context = ClientCallbacks { connection_error, group };
    config
        .create_with_context(context)
        .map_err(failure(|| "make a Kafka consumer: check the options in its settings".to_owned()))
}

/// Names the action that failed.
pub(super) fn failure(
    action: impl FnOnce() -> String,
) -> impl FnOnce(KafkaError) -> KafkaClientError {
    |source| KafkaClientError { action: action(), source }
}

/// Runs a blocking request of librdkafka on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(KafkaError::Canceled))
}

pub(super) fn is_topic_missing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
    )
}

/// Errors of one connection or of all. Other connections may work, or work again.
pub(super) fn is_connection_lost(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::OperationTimedOut
    )
}

/// The callbacks of librdkafka. Logs its lines at debug level only:
/// [`Outage`](crate::outage::Outage) logs outages.
pub(super) struct ClientCallbacks {
    connection_error: LastConnectionError,
    group: Arc<GroupChanges>,
}

impl ClientContext for ClientCallbacks {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {message}");
        if facility == "FAIL" {
            self.connection_error.set(&with_likely_cause(message));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "librdkafka: {reason}");
    }
}

/// A log entry about a failed connection; with the likely cause if the broker closed a new one. A
/// listener that expects TLS closes it at the first request, and one that expects a login at the
/// second one. librdkafka 2.12 has a sentence for each, and prints neither.
fn with_likely_cause(entry: &str) -> String {
    let age_and_state = || entry.split_once("(after ")?.1.split_once("ms in state ");
    let is_closed_while_new = entry.contains("Disconnected")
        && age_and_state().is_some_and(|(age, state)| {
            let is_new = age.parse().is_ok_and(|age: u64| age < NEW_CONNECTION_MS_MAX);
            state.starts_with("APIVERSION_QUERY") || (state.starts_with("UP") && is_new)
        });
    if is_closed_while_new {
        format!("{entry}: security.protocol may not be that of the broker's listener")
    } else {
        entry.to_owned()
    }
}

impl ConsumerContext for ClientCallbacks {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        self.group.rebalance(consumer, code, list);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "the consumer group did not take offsets");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::with_likely_cause;

    #[test]
    fn a_new_connection_that_a_broker_closes_names_the_security_protocol() {
        let is_named = |state: &str| {
            let entry = format!("127.0.0.1:9092/1: Disconnected (after {state})");
            with_likely_cause(&entry).contains("security.protocol")
        };
        assert!(is_named("1ms in state APIVERSION_QUERY"));
        assert!(is_named("6ms in state UP, 1 identical error(s) suppressed"));
        assert!(!is_named("2000ms in state UP"));
        assert!(!is_named("1ms in state SSL_HANDSHAKE"));
    }
}
