//! Records the progress of quarantine entries in PostgreSQL, after it is committed in Kafka: for
//! operators, and so that later checkpoints need not repeat it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_relay_machine::{Lease, Shard};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::model::batch::SentBatch;
use crate::model::checkpoint::EntryProgress;
use crate::report::failure::Failure;
use crate::report::threads::locked;
use crate::report::{Report, Reporter};
use crate::state::{RelayTables, Session, WriteNumber};

/// The pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Records progress in a task of its own, which ends with this.
pub(crate) struct ProgressRecorder {
    pending: Arc<PendingProgress>,
    task: AbortHandle,
}

impl Drop for ProgressRecorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The updates to record: at most one update for each shard. A later checkpoint of a shard has all
/// progress that is not recorded yet, so its update replaces an earlier one.
#[derive(Default)]
struct PendingProgress {
    updates: Mutex<BTreeMap<Shard, ProgressUpdate>>,
    changed: Notify,
}

struct ProgressUpdate {
    write: WriteNumber,
    incarnation: Arc<str>,
    progress: Vec<EntryProgress>,
    lease: Lease,
}

impl ProgressRecorder {
    pub(crate) fn start(tables: &RelayTables, reporter: Reporter) -> Self {
        let pending = Arc::<PendingProgress>::default();
        let task = tokio::spawn(record(tables.clone(), Arc::clone(&pending), reporter));
        Self { pending, task: task.abort_handle() }
    }

    /// These checkpoints are committed, under leases that the session had then.
    pub(crate) fn committed(&self, session: &Session, sent: &SentBatch) {
        for (lease, checkpoint) in &sent.checkpoints {
            if !checkpoint.quarantine.is_empty() {
                let update = ProgressUpdate {
                    write: session.next_write(),
                    incarnation: Arc::clone(&sent.incarnation),
                    progress: checkpoint.quarantine.clone(),
                    lease: *lease,
                };
                locked(&self.pending.updates).insert(lease.shard, update);
                self.pending.changed.notify_one();
            }
        }
    }
}

async fn record(tables: RelayTables, pending: Arc<PendingProgress>, reporter: Reporter) {
    loop {
        let next = locked(&pending.updates).pop_first();
        let Some((shard, update)) = next else {
            pending.changed.notified().await;
            continue;
        };
        match update.write(&tables).await {
            Ok(true) => report(&reporter, update.progress).await,
            // The session has lost the lease, the database is another one, or a later write was
            // admitted: the next owner, or the author of that write, reads the progress in Kafka.
            Ok(false) => {}
            Err(failure) => {
                tracing::debug!(
                    error = failure.in_full(),
                    "the progress of the quarantine is not recorded yet"
                );
                locked(&pending.updates).entry(shard).or_insert(update);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

impl ProgressUpdate {
    async fn write(&self, tables: &RelayTables) -> Result<bool, Failure> {
        let Self { write, incarnation, progress, lease } = self;
        tables.advance_quarantine(*write, incarnation, &[*lease], progress).await
    }
}

async fn report(reporter: &Reporter, progress: Vec<EntryProgress>) {
    for progress in progress {
        if progress.cursor.is_none() {
            tracing::info!(
                event = "quarantine_ended",
                entry = progress.entry.get(),
                "everything in quarantine is published: the entry has ended"
            );
        }
        reporter.send(Report::QuarantineRecorded(progress)).await;
    }
}
