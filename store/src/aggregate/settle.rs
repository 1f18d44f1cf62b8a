//! The append of a decision, until its outcome is known.

use crate::aggregate::request::Decide;
use crate::append::{Append, Appended};
use crate::backoff;
use crate::error::{AppendError, Refusal};
use crate::event::NewEvent;
use crate::event_store::sealed::Backend;

/// The outcome of an append that is known.
pub(super) enum Settled {
    Appended(Appended),
    /// Nothing is written.
    Refused(Vec<Refusal>),
    /// The command, or another one with its id, has recorded events.
    Recorded(AppendError),
}

/// How often a decision was tried.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tries(pub(super) u32);

impl<T> Decide<T> {
    pub(super) const fn is_last(&self, tries: Tries) -> bool {
        tries.0 >= self.tries_max.get()
    }

    /// Appends until the outcome is known. The events keep their ids: they are recorded once.
    pub(super) async fn settle(
        &self,
        store: &impl Backend,
        append: &Append,
        tries: &mut Tries,
    ) -> Result<Settled, AppendError> {
        let mut unknown = None;
        loop {
            tries.0 += 1;
            let failed = match store.record(append).await {
                Ok(appended) if appended.repeated && self.command.is_some() => {
                    // The original command can have recorded other events than this decision has.
                    return Ok(Settled::Recorded(AppendError::Refused(Vec::new())));
                }
                Ok(appended) => return Ok(Settled::Appended(appended)),
                Err(AppendError::Refused(refusals)) => return Ok(self.refused(refusals)),
                Err(failed) => failed,
            };
            if !failed.is_retryable() || self.is_last(*tries) {
                return Err(unknown.unwrap_or(failed));
            }
            if let AppendError::Unknown(_) | AppendError::Interrupted = failed {
                // A later failure does not tell the outcome of this try.
                unknown.get_or_insert(failed);
            }
            backoff::pause(tries.0).await;
        }
    }

    fn refused(&self, refusals: Vec<Refusal>) -> Settled {
        let is_recorded = |refusal: &Refusal| {
            matches!(refusal, Refusal::IdTaken { .. } | Refusal::PartlyKnown { .. })
        };
        if self.command.is_some() && refusals.iter().any(is_recorded) {
            return Settled::Recorded(AppendError::Refused(refusals));
        }
        Settled::Refused(refusals)
    }

    /// An event of the decision: of the command, if it is one, with the id of this number.
    pub(super) fn event(&self, mut event: NewEvent, number: usize) -> NewEvent {
        let Some(command) = self.command else { return event };
        event.metadata.causation_id.get_or_insert(command.get());
        event.with_id(command.event_id(number))
    }
}
