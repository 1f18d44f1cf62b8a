//! Notes in PostgreSQL how far holds got, after it is committed in Kafka: for people, and so that checkpoints need not
//! say it for ever.

use std::time::Duration;

use annals_relay_core::Lease;
use tokio::sync::mpsc;

use crate::checkpoint::{Checkpoint, Progress};
use crate::leases::{LeaseTable, Session, Step};
use crate::reader::Reads;

/// After a failure it is tried again so much later.
const PAUSE: Duration = Duration::from_secs(1);

/// The way to whoever notes.
pub(crate) struct Notes(mpsc::UnboundedSender<Note>);

type Note = (Step, Vec<Progress>, Vec<Lease>);

impl Notes {
    /// Starts it; it ends with this. One thing after the other; one that is given up and executed late comes too late.
    pub(crate) fn start(leases: &LeaseTable, reads: &Reads) -> Self {
        let (notes, mut received) = mpsc::unbounded_channel::<Note>();
        let (leases, reads) = (leases.clone(), reads.clone());
        tokio::spawn(async move {
            while let Some((step, progress, of)) = received.recv().await {
                note(&leases, &reads, step, &of, &progress).await;
            }
        });
        Self(notes)
    }

    /// These checkpoints are committed, under leases that the session had then.
    pub(crate) fn committed(&self, session: &Session, checkpoints: &[(Lease, Checkpoint)]) {
        for (lease, checkpoint) in checkpoints {
            if !checkpoint.holds.is_empty() {
                // It ends with the process only.
                drop(self.0.send((session.step(), checkpoint.holds.clone(), vec![*lease])));
            }
        }
    }
}

async fn note(leases: &LeaseTable, reads: &Reads, step: Step, of: &[Lease], progress: &[Progress]) {
    loop {
        match leases.holds_went_on(step, of, progress).await {
            Ok(true) => break,
            // The next owner reads it in Kafka, as has whatever was done later.
            Ok(false) => return,
            Err(failure) => tracing::debug!(
                error = &failure as &dyn std::error::Error,
                "how far holds got is not noted yet"
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
    for Progress { hold, place } in progress {
        if place.is_none() {
            tracing::info!(hold, "what was held is published: the hold has ended");
        }
        reads.noted(*hold, place.clone());
    }
}
