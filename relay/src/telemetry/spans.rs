//! Traces: a span for each published event whose append was traced and sampled. Its parent is the
//! span of the append, whose context is in the record, too: so it is in one trace with the spans of
//! consumers. Sent as OTLP over HTTP in JSON, by the OpenTelemetry protocol 1.x, section OTLP/HTTP.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::config::{Config, Trace};
use crate::model::message::Message;
use crate::telemetry::clients::SpanOutcome;
use crate::telemetry::metrics::metrics;

/// The most batches of spans that wait for the collector: further ones are dropped.
const BATCHES_MAX: usize = 64;
/// The most spans of one transaction that are sent.
const SPANS_OF_A_TRANSACTION_MAX: usize = 512;
/// The deadline of one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A span that a producer of messages makes.
const KIND_PRODUCER: u8 = 4;

static EXPORTER: OnceLock<mpsc::Sender<Vec<Value>>> = OnceLock::new();

/// The spans of a transaction that is not committed yet.
#[derive(Debug)]
pub(crate) struct OpenSpans {
    spans: Vec<OpenSpan>,
    began: SystemTime,
}

#[derive(Debug)]
struct OpenSpan {
    parent: Parent,
    topic: String,
    partition: Option<i32>,
    stream: String,
    position: i64,
}

/// The ids of the appending span.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parent {
    trace_id: String,
    span_id: String,
}

/// Begins to send spans, once in a process.
pub(crate) fn export(config: &Config) {
    let Some(trace) = config.trace.clone() else { return };
    let (spans, received) = mpsc::channel(BATCHES_MAX);
    if EXPORTER.set(spans).is_ok() {
        drop(tokio::spawn(send(trace, resource(config), received)));
    }
}

/// Begins the spans of messages that are sent now; none without a collector.
pub(crate) fn begin(messages: &[Message]) -> OpenSpans {
    let is_on = EXPORTER.get().is_some();
    let traced = messages.iter().filter(|_| is_on).filter_map(OpenSpan::of);
    OpenSpans { spans: traced.take(SPANS_OF_A_TRANSACTION_MAX).collect(), began: SystemTime::now() }
}

/// Their transaction is committed.
pub(crate) fn finish(open: Option<OpenSpans>) {
    let (Some(exporter), Some(OpenSpans { spans, began })) = (EXPORTER.get(), open) else { return };
    if spans.is_empty() {
        return;
    }
    let ended = SystemTime::now();
    let spans: Vec<Value> = spans.into_iter().map(|span| span.ended(began, ended)).collect();
    let count = spans.len();
    if exporter.try_send(spans).is_err() {
        metrics().clients.spans(SpanOutcome::Dropped, count);
    }
}

async fn send(trace: Trace, resource: Value, mut spans: mpsc::Receiver<Vec<Value>>) {
    let client = reqwest::Client::new();
    let mut is_failing = false;
    while let Some(batch) = spans.recv().await {
        let count = batch.len();
        let body = json!({ "resourceSpans": [{
            "resource": resource,
            "scopeSpans": [{
                "scope": { "name": "annals-relay", "version": env!("CARGO_PKG_VERSION") },
                "spans": batch
            }]
        }] });
        let mut request = client.post(trace.otlp_url.expose()).timeout(TIMEOUT);
        request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        if let Some(token) = &trace.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let sent = request.send().await.and_then(reqwest::Response::error_for_status);
        let outcome = if sent.is_ok() { SpanOutcome::Exported } else { SpanOutcome::Dropped };
        metrics().clients.spans(outcome, count);
        match sent {
            Ok(_) if is_failing => {
                tracing::info!(event = "spans_exported", "the collector takes spans again");
            }
            Err(error) if !is_failing => tracing::warn!(
                event = "spans_dropped",
                error = crate::report::in_full(&error.without_url()),
                "the collector does not take spans: they are dropped"
            ),
            Ok(_) | Err(_) => {}
        }
        is_failing = outcome == SpanOutcome::Dropped;
    }
}

fn resource(config: &Config) -> Value {
    json!({ "attributes": [
        text("service.name", "annals-relay"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", &config.relay.instance),
        text("annals.deployment", &config.publication()),
    ] })
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn nanoseconds(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}

impl OpenSpan {
    /// None if the append was not traced, or not sampled.
    fn of(message: &Message) -> Option<Self> {
        message.version?;
        let traceparent = message.headers.iter().find(|(name, _)| *name == "traceparent")?.1;
        Some(Self {
            parent: Parent::of(traceparent)?,
            topic: message.topic.to_string(),
            partition: message.partition,
            stream: message.key.clone(),
            position: message.position.get(),
        })
    }

    fn ended(self, began: SystemTime, ended: SystemTime) -> Value {
        let mut attributes = vec![
            text("messaging.system", "kafka"),
            text("messaging.operation.type", "send"),
            text("messaging.destination.name", &self.topic),
            text("messaging.kafka.message.key", &self.stream),
            text("annals.position", &self.position.to_string()),
        ];
        if let Some(partition) = self.partition {
            attributes.push(text("messaging.destination.partition.id", &partition.to_string()));
        }
        let id = Uuid::now_v7().as_u128() & u128::from(u64::MAX);
        json!({
            "traceId": self.parent.trace_id,
            "spanId": format!("{id:016x}"),
            "parentSpanId": self.parent.span_id,
            "name": format!("send {}", self.topic),
            "kind": KIND_PRODUCER,
            "startTimeUnixNano": nanoseconds(began),
            "endTimeUnixNano": nanoseconds(ended),
            "attributes": attributes
        })
    }
}

impl Parent {
    /// Reads a W3C `traceparent`; none if it is none, or not sampled.
    fn of(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace_id, span_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let is_id = |text: &str, digits| is_hex(text, digits) && text.bytes().any(|of| of != b'0');
        let is_sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        let is_known = is_hex(version, 2) && is_id(trace_id, 32) && is_id(span_id, 16);
        (is_known && is_sampled)
            .then(|| Self { trace_id: trace_id.to_owned(), span_id: span_id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sampled_contexts_have_spans() {
        let (trace_id, span_id) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let parent = Parent { trace_id: trace_id.to_owned(), span_id: span_id.to_owned() };
        assert_eq!(Parent::of(&format!("00-{trace_id}-{span_id}-01")), Some(parent));
        for none in [
            format!("00-{trace_id}-{span_id}-00"),
            format!("00-{trace_id}-0000000000000000-01"),
            format!("00-{trace_id}-{span_id}"),
            "00-ab-cd-01".to_owned(),
            String::new(),
        ] {
            assert_eq!(Parent::of(&none), None, "{none}");
        }
    }
}
