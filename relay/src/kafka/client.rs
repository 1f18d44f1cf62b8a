//! Creation of Kafka clients, and the context that takes their events.

use annals_store::Position;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::error::{code, sort};
use crate::kafka::client_events::ClientEvents;
use crate::kafka::properties::Properties;
use crate::report::kafka_failure::{KafkaFailure, RecordId};
use crate::report::threads::locked;
use crate::telemetry::metrics::metrics;

/// The deadline of one request to the brokers.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The deadline of a request about many topics.
pub(super) const BULK_TIMEOUT: Duration = Duration::from_secs(30);
/// The most records of a refused batch that are named.
const REFUSED_RECORDS_MAX: usize = 1_000;

pub(super) type Result<T, E = KafkaFailure> = std::result::Result<T, E>;

/// Takes librdkafka's events.
#[derive(Default)]
pub(super) struct EventContext {
    pub(super) events: ClientEvents,
    /// Records that were not delivered.
    pub(super) undelivered: Mutex<Vec<(Code, RecordId)>>,
}

impl EventContext {
    pub(super) fn failure(&self, action: &'static str, error: &KafkaError) -> KafkaFailure {
        sort(action, code(error), self.events.explain(error.to_string()))
    }
}

impl ClientContext for EventContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match facility {
            "FAIL" => self.events.connection_failed(message),
            _ => self.events.record(),
        }
        // Errors come by `error` as well, and are logged where they are handled.
        tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        metrics().clients.kafka_error();
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        match code(&error) {
            // It follows the error that says why.
            Code::AllBrokersDown => self.events.record(),
            _ => self.events.broker_error(reason),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.events.statistics(statistics);
    }
}

impl ConsumerContext for EventContext {}

impl ProducerContext for EventContext {
    /// The event's position.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, position: usize) {
        self.events.record();
        let Err((error, message)) = result else { return };
        let mut undelivered = locked(&self.undelivered);
        if undelivered.len() < REFUSED_RECORDS_MAX {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            let position = i64::try_from(position).ok().and_then(Position::new);
            let position = position.unwrap_or(Position::ORIGIN);
            undelivered
                .push((code(error), RecordId { topic: message.topic().to_owned(), key, position }));
        }
    }
}

pub(super) fn create<T: FromClientConfigAndContext<EventContext>>(
    properties: Properties,
) -> Result<T> {
    // An operator who sets librdkafka's own property wants to read what it says.
    let is_debugged = properties.contains_key("debug");
    let level = if is_debugged { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info };
    let mut settings: ClientConfig = properties.into_iter().collect();
    settings.set_log_level(level);
    settings.create_with_context(EventContext::default()).map_err(|error| KafkaFailure::Settings {
        reason: match error {
            // The value can be a secret.
            KafkaError::ClientConfig(_, _, name, _) => {
                format!("librdkafka does not take {name}, or not with this value")
            }
            other => other.to_string(),
        },
    })
}
