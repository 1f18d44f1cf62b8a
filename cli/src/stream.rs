//! The life of a stream.

use annals_store::{Store, StreamName, Version};
use clap::{Args, Subcommand};
use serde_json::json;

/// The subcommand.
#[derive(Debug, Args)]
pub(crate) struct Stream {
    #[command(subcommand)]
    action: StreamCommand,
}

/// A change and its reason.
#[derive(Debug, Args)]
struct Change {
    /// The stream.
    stream: String,
    /// Why; the table admin_log keeps it.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Subcommand)]
enum StreamCommand {
    /// Shows the state of a stream.
    Show {
        /// The stream.
        stream: String,
    },
    /// Closes it: appends are refused.
    Close(Change),
    /// Opens a closed one.
    Reopen(Change),
    /// Removes its events below a version, for good.
    Truncate {
        /// The first version that stays.
        #[arg(long)]
        before: i64,
        #[command(flatten)]
        change: Change,
    },
    /// Moves the events of a closed one into the archive.
    Archive(Change),
    /// Moves archived events back.
    Restore(Change),
}

impl Stream {
    pub(crate) async fn run(self, store: &Store) -> anyhow::Result<()> {
        let name = |text: &str| StreamName::new(text);
        let done = match self.action {
            StreamCommand::Show { stream } => {
                let life = store.stream_life(&name(&stream)?).await?;
                let life = life.ok_or_else(|| anyhow::anyhow!("there is no stream {stream}"))?;
                json!({
                    "stream": stream,
                    "version": life.version.get(),
                    "closed_at": life.closed_at,
                    "truncated_before": life.truncated_before.map(Version::get),
                    "archived_at": life.archived_at,
                })
            }
            StreamCommand::Close(Change { stream, reason }) => {
                json!({ "closed": store.close_stream(&name(&stream)?, &reason).await? })
            }
            StreamCommand::Reopen(Change { stream, reason }) => {
                json!({ "opened": store.reopen_stream(&name(&stream)?, &reason).await? })
            }
            StreamCommand::Truncate { before, change: Change { stream, reason } } => {
                let before = Version::new(before);
                let before = before.ok_or_else(|| anyhow::anyhow!("versions begin at 0"))?;
                let removed = store.truncate_stream(&name(&stream)?, before, &reason).await?;
                json!({ "removed": removed })
            }
            StreamCommand::Archive(Change { stream, reason }) => {
                json!({ "archived": store.archive_stream(&name(&stream)?, &reason).await? })
            }
            StreamCommand::Restore(Change { stream, reason }) => {
                json!({ "restored": store.restore_stream(&name(&stream)?, &reason).await? })
            }
        };
        crate::print(&done)
    }
}
