//! The context of a request: metadata that each event made in it takes.

use std::collections::BTreeMap;
use std::future::Future;

use serde_json::Value;
use uuid::Uuid;

use crate::metadata::Metadata;

tokio::task_local! {
    static CURRENT: Context;
}

/// The origin of a request, set once: each event that is made in its [`scope`](Self::scope) takes
/// its metadata and headers, without an argument on the way.
///
/// The scope is that of the task ([`tokio::task_local!`]): a spawned task begins outside; pass
/// [`Context::current`] to it. An event takes the context when it is made
/// ([`NewEvent::new`](crate::NewEvent::new), and in
/// [`EventStore::decide`](crate::EventStore::decide)), so that a kept event has the same metadata
/// in a retry.
///
/// ```
/// use annals_store::{Context, NewEvent};
/// # use annals_testkit::{AccountEvent, AccountOpened};
/// # use uuid::Uuid;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let event = AccountEvent::from(AccountOpened { owner: "Ann".to_owned() });
/// # let handle_request = async || NewEvent::new(&event);
/// let request = Context::new()
///     .correlation_id(Uuid::now_v7())
///     .actor("ann@example.org")
///     .field("client", "web 4.2")
///     .header("tenant", "north");
/// let event = request.scope(handle_request()).await?;
/// assert_eq!(event.metadata().actor.as_deref(), Some("ann@example.org"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    metadata: Metadata,
    headers: BTreeMap<String, String>,
}

impl Context {
    /// A context that sets nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The context of this task's scope; one that sets nothing outside of a scope.
    #[must_use]
    pub fn current() -> Self {
        Self::in_scope().unwrap_or_default()
    }

    /// Sets the id that all events of the request or process share.
    #[must_use]
    pub const fn correlation_id(mut self, id: Uuid) -> Self {
        self.metadata.correlation_id = Some(id);
        self
    }

    /// Sets the id of the event or command that causes the events.
    #[must_use]
    pub const fn causation_id(mut self, id: Uuid) -> Self {
        self.metadata.causation_id = Some(id);
        self
    }

    /// Sets the user or service that causes the events.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.metadata.actor = Some(actor.into());
        self
    }

    /// Sets a custom field of the metadata ([`Metadata::custom`]).
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.custom.insert(name.into(), value.into());
        self
    }

    /// Sets a free header, which consumers receive as a record header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Runs a future in this context. A scope inside another one replaces it: begin with
    /// [`Context::current`] to extend it.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// Runs a function in this context.
    pub fn sync_scope<R>(self, function: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self, function)
    }

    /// The context of this task's scope; none outside of a scope.
    pub(crate) fn in_scope() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Adds its fields and headers where there are none.
    pub(crate) fn complete(&self, metadata: &mut Metadata, headers: &mut BTreeMap<String, String>) {
        let Metadata { correlation_id, causation_id, actor, traceparent, tracestate, custom } =
            &self.metadata;
        metadata.correlation_id = metadata.correlation_id.or(*correlation_id);
        metadata.causation_id = metadata.causation_id.or(*causation_id);
        metadata.actor = metadata.actor.take().or_else(|| actor.clone());
        if metadata.traceparent.is_none() {
            metadata.traceparent.clone_from(traceparent);
            metadata.tracestate.clone_from(tracestate);
        }
        for (name, value) in custom {
            metadata.custom.entry(name.clone()).or_insert_with(|| value.clone());
        }
        for (name, value) in &self.headers {
            headers.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}
