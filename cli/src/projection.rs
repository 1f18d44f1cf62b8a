//! Projections in the store's database: their state, events to skip, the version that is shown.

use std::time::Duration;

use annals_store::{EventId, ProjectionFailure, ProjectionStatus, Store};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

/// The subcommand.
#[derive(Debug, Args)]
pub(crate) struct ProjectionArguments {
    #[command(subcommand)]
    action: ProjectionCommand,
}

#[derive(Debug, Subcommand)]
enum ProjectionCommand {
    /// Prints the state of each version of a projection, or of all projections, as JSON lines.
    List {
        /// The projection.
        projection: Option<String>,
    },
    /// Lets a projection skip the event at which it is stopped.
    Skip {
        /// The projection.
        projection: String,
        /// The event's id.
        event: Uuid,
        /// Why; the table projection_skips keeps it.
        #[arg(long)]
        reason: String,
    },
    /// Shows another version to readers, once it is not behind the present one.
    Switch {
        /// The projection.
        projection: String,
        /// The version.
        version: u32,
        /// How long to wait for it.
        #[arg(long, default_value = "10")]
        deadline_s: u64,
    },
}

impl ProjectionArguments {
    pub(crate) async fn run(self, store: &Store) -> anyhow::Result<()> {
        match self.action {
            ProjectionCommand::List { projection } => list(store, projection).await,
            ProjectionCommand::Skip { projection, event, reason } => {
                let event = EventId::from(event);
                store.skip_projection_event(&projection, event, &reason).await?;
                crate::print(&json!({ "skipped": event }))
            }
            ProjectionCommand::Switch { projection, version, deadline_s } => {
                let deadline = Duration::from_secs(deadline_s);
                store.switch_projection(&projection, version, deadline).await?;
                crate::print(&json!({ "shown": version }))
            }
        }
    }
}

async fn list(store: &Store, projection: Option<String>) -> anyhow::Result<()> {
    let names = match projection {
        Some(name) => vec![name],
        None => store.projections().await?,
    };
    for name in names {
        let versions = store.projection_status(&name).await?;
        anyhow::ensure!(!versions.is_empty(), "there is no projection {name}");
        for status in &versions {
            crate::print(&line(&name, status))?;
        }
    }
    Ok(())
}

/// One version.
fn line(name: &str, status: &ProjectionStatus) -> Value {
    json!({
        "projection": name,
        "version": status.version,
        "is_active": status.is_active,
        "events": status.events,
        "position": status.position.get(),
        "log_position": status.log_position.get(),
        "lag_since": status.lag_since,
        "owner": status.owner,
        "events_per_second": status.events_per_second,
        "seconds_left": status.time_left.map(|time| time.as_secs_f64()),
        "failure": status.failure.as_ref().map(failure),
    })
}

fn failure(failure: &ProjectionFailure) -> Value {
    json!({
        "event_id": failure.event_id,
        "stream": failure.stream,
        "version": failure.version.get(),
        "event_type": failure.event_type,
        "error": failure.error,
        "attempts": failure.attempts,
        "since": failure.since,
    })
}
