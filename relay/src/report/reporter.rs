//! The channel from the stages to the driver.

use annals_relay_machine::{Completion, Input, Operation, Slot};
use tokio::sync::mpsc;

use crate::model::batch::{Batch, SentBatch};
use crate::model::checkpoint::EntryProgress;
use crate::model::quarantine::ShardCursor;
use crate::report::failure::Failure;

/// An operation that a stage has completed.
pub(crate) enum Report {
    /// An operation on leases has succeeded.
    LeaseOperation(Input<ShardCursor, Batch>),
    /// An operation of one generation of producers has succeeded.
    Completed(Completion<ShardCursor, Batch>),
    /// A transaction is committed.
    Committed { slot: Slot, sent: SentBatch },
    /// The checkpoints of a batch are written to PostgreSQL: in at-least-once delivery that commits
    /// it.
    CheckpointsWritten { slot: Slot, sent: SentBatch },
    /// PostgreSQL has recorded the progress or the end of a quarantine entry.
    QuarantineRecorded(EntryProgress),
    /// An operation that takes long has made progress.
    Advanced(Operation),
    /// An operation has failed.
    Failed { operation: Operation, failure: Failure },
}

/// Where the driver receives reports, with their generations.
pub(crate) type ReportReceiver = mpsc::Receiver<(u64, Report)>;

/// Reports of the operations that the machine has ordered at once: one on leases, four with
/// producers, a send and a commit of each producer, those of a few abandoned generations, and the
/// progress of quarantine entries.
///
/// The driver awaits no stage, so it always comes to receive them: a full channel delays a stage,
/// and never for ever.
const REPORTS_MAX: usize = 256;

/// Sends reports in one generation of producers.
#[derive(Clone)]
pub(crate) struct Reporter {
    generation: u64,
    driver: mpsc::Sender<(u64, Report)>,
}

/// A channel of reports; its reporter is of generation 0.
pub(crate) fn report_channel() -> (Reporter, ReportReceiver) {
    let (driver, received) = mpsc::channel(REPORTS_MAX);
    (Reporter { generation: 0, driver }, received)
}

impl Reporter {
    /// A reporter of another generation.
    pub(crate) fn in_generation(&self, generation: u64) -> Self {
        Self { generation, driver: self.driver.clone() }
    }

    /// Sends a report, unless the process is ending.
    pub(crate) async fn send(&self, report: Report) {
        log_lost(&self.driver.send((self.generation, report)).await);
    }

    /// The same from a thread that may block.
    pub(crate) fn send_blocking(&self, report: Report) {
        log_lost(&self.driver.blocking_send((self.generation, report)));
    }
}

fn log_lost<E>(sent: &Result<(), E>) {
    if sent.is_err() {
        tracing::debug!("the driver has ended before a report");
    }
}
