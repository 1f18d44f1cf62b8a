//! The metadata of events: their origin.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The origin of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Shared by all events that result from one request or process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
    /// The id of the event or command that caused this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// The user or service that caused the event, as the application names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// W3C trace context, passed to the consumers unchanged. If it is not set, the store takes it
    /// from the current span ([`StoreOptions::trace_context`](crate::StoreOptions::trace_context)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// W3C trace state, passed to the consumers unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// Further fields, as the application names them: for queries of the store and audits.
    /// Consumers do not receive them; headers are for consumers. An append refuses the names of the
    /// fields above.
    #[serde(flatten)]
    pub custom: BTreeMap<String, Value>,
}
