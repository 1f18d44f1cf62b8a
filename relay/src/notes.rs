//! Notes in PostgreSQL how far holds got, after it is committed in Kafka: for people, and so that checkpoints need not
//! say it for ever.

use std::sync::Arc;
use std::time::Duration;

use annals_relay_core::Lease;
use tokio::sync::mpsc;

use crate::checkpoint::Progress;
use crate::leases::{LeaseTable, Session, Step};
use crate::sender::Sent;
use crate::shell::Report;

/// After a failure it is tried again so much later.
const PAUSE: Duration = Duration::from_secs(1);

/// The way to whoever notes.
pub(crate) struct Notes(mpsc::UnboundedSender<Note>);

struct Note {
    step: Step,
    incarnation: Arc<str>,
    progress: Vec<Progress>,
    of: Vec<Lease>,
}

impl Notes {
    /// Starts it; it ends with this. One thing after the other; one that is given up and executed late comes too late.
    pub(crate) fn start(leases: &LeaseTable, shell: mpsc::UnboundedSender<(u64, Report)>) -> Self {
        let (notes, received) = mpsc::unbounded_channel::<Note>();
        tokio::spawn(take(leases.clone(), received, shell));
        Self(notes)
    }

    /// These checkpoints are committed, under leases that the session had then.
    pub(crate) fn committed(&self, session: &Session, sent: &Sent) {
        for (lease, checkpoint) in &sent.checkpoints {
            if !checkpoint.holds.is_empty() {
                let (step, progress) = (session.step(), checkpoint.holds.clone());
                let incarnation = Arc::clone(&sent.incarnation);
                // It ends with the process only.
                drop(self.0.send(Note { step, incarnation, progress, of: vec![*lease] }));
            }
        }
    }
}

async fn take(
    leases: LeaseTable,
    mut received: mpsc::UnboundedReceiver<Note>,
    shell: mpsc::UnboundedSender<(u64, Report)>,
) {
    while let Some(noting) = received.recv().await {
        if note(&leases, &noting).await {
            told(&shell, noting.progress);
        }
    }
}

/// Notes it, however often that takes; false if the leases are lost, the database is another, or a later step is done: the next
/// owner reads it in Kafka, as did the one who took that step.
async fn note(leases: &LeaseTable, noting: &Note) -> bool {
    let Note { step, incarnation, progress, of } = noting;
    loop {
        match leases.holds_went_on(*step, incarnation, of, progress).await {
            Ok(is_noted) => return is_noted,
            Err(failure) => tracing::debug!(
                error = &failure as &dyn std::error::Error,
                "how far holds got is not noted yet"
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn told(shell: &mpsc::UnboundedSender<(u64, Report)>, progress: Vec<Progress>) {
    for progress in progress {
        if progress.place.is_none() {
            let hold = progress.hold;
            tracing::info!(
                event = "quarantine_ended",
                hold,
                "what was held is published: the hold has ended"
            );
        }
        // The shell may have ended.
        drop(shell.send((0, Report::Noted(progress))));
    }
}
