//! The trace context of an append, and its source.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::metadata::Metadata;

/// W3C trace context, with which consumers continue the trace of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// `traceparent`: version, trace id, span id and flags, in hexadecimal with `-` between.
    pub traceparent: String,
    /// `tracestate`, if any.
    pub tracestate: Option<String>,
}

/// A function of the application that returns the context of the current span.
#[derive(Clone)]
pub(crate) struct TraceSource(Arc<dyn Fn() -> Option<TraceContext> + Send + Sync>);

impl TraceSource {
    pub(crate) fn new(current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static) -> Self {
        Self(Arc::new(current))
    }

    pub(crate) fn current(&self) -> Option<TraceContext> {
        (self.0)()
    }
}

impl fmt::Debug for TraceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceSource")
    }
}

/// Adds a trace context to metadata that have none.
pub(crate) fn with_trace<'a>(
    metadata: &'a Metadata,
    trace: Option<&TraceContext>,
) -> Cow<'a, Metadata> {
    match trace {
        Some(trace) if metadata.traceparent.is_none() => Cow::Owned(Metadata {
            traceparent: Some(trace.traceparent.clone()),
            tracestate: trace.tracestate.clone(),
            ..metadata.clone()
        }),
        Some(_) | None => Cow::Borrowed(metadata),
    }
}
