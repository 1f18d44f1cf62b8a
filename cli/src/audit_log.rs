//! The audit log: events as JSON lines.

use std::num::NonZeroU32;
use std::ops::ControlFlow;

use annals_store::{Category, EventId, Key, Read, RecordedEvent, Store, StreamName};
use clap::Args;
use futures_util::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

/// Concurrent appends can have times in another order than their positions, by up to this.
const DISORDER: SignedDuration = SignedDuration::from_secs(2);

/// The printed events, also of archived streams: all given conditions hold.
#[derive(Debug, Args)]
pub(crate) struct LogArguments {
    /// Events from this time on, such as 2026-11-01T00:00:00Z.
    #[arg(long)]
    since: Option<Timestamp>,
    /// Events before this time.
    #[arg(long)]
    until: Option<Timestamp>,
    /// Events of one stream.
    #[arg(long, conflicts_with_all = ["category", "correlation"])]
    stream: Option<String>,
    /// Events of one category.
    #[arg(long, conflicts_with = "correlation")]
    category: Option<String>,
    /// Events of one correlation id.
    #[arg(long)]
    correlation: Option<Uuid>,
    /// Events of one actor. Give a period with it: all events of the period are read.
    #[arg(long)]
    actor: Option<String>,
}

/// The tree of one event.
#[derive(Debug, Args)]
pub(crate) struct Tree {
    /// The event's id.
    event: Uuid,
    /// Maximum number of events.
    #[arg(long, default_value = "10000")]
    events_max: NonZeroU32,
}

impl LogArguments {
    pub(crate) async fn run(self, store: &Store) -> anyhow::Result<()> {
        if let Some(stream) = &self.stream {
            return self.print(store, Read::stream(&StreamName::new(stream)?)).await;
        }
        let read = match (&self.category, self.correlation) {
            (Some(category), _) => Read::category(&Category::new(category)?),
            (None, Some(correlation)) => Read::correlation(correlation),
            (None, None) => Read::all(),
        };
        self.print(store, read).await
    }

    async fn print<K: Key>(&self, store: &Store, read: Read<K>) -> anyhow::Result<()> {
        let read = self.since.into_iter().fold(read.with_archived(), Read::recorded_since);
        let mut events = std::pin::pin!(store.read(read));
        while let Some(event) = events.try_next().await? {
            if self.print_if_wanted(&event)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn print_if_wanted(&self, event: &RecordedEvent) -> anyhow::Result<ControlFlow<()>> {
        if let Some(until) = self.until {
            if event.recorded_at >= until.saturating_add(DISORDER)? {
                return Ok(ControlFlow::Break(()));
            }
            if event.recorded_at >= until {
                return Ok(ControlFlow::Continue(()));
            }
        }
        if self.actor.is_none() || self.actor == event.metadata.actor {
            crate::print(&line(event)?)?;
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Tree {
    pub(crate) async fn run(self, store: &Store) -> anyhow::Result<()> {
        let tree = store.causal_tree(EventId::from(self.event), self.events_max).await?;
        anyhow::ensure!(!tree.is_empty(), "there is no event {}", self.event);
        for found in tree {
            let mut line = line(&found.event)?;
            line["depth"] = found.depth.into();
            crate::print(&line)?;
        }
        Ok(())
    }
}

/// One event.
fn line(event: &RecordedEvent) -> anyhow::Result<Value> {
    let metadata = &event.metadata;
    Ok(json!({
        "position": event.position.get(),
        "recorded_at": event.recorded_at,
        "stream": event.stream.as_str(),
        "version": event.version.get(),
        "event_id": event.id,
        "event_type": event.event_type,
        "actor": metadata.actor,
        "correlation_id": metadata.correlation_id,
        "causation_id": metadata.causation_id,
        "custom": metadata.custom,
        "headers": event.headers,
        "data": event.to_json()?,
    }))
}
