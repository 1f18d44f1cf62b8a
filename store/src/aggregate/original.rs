//! The original answer to a command.

use crate::aggregate::command::CommandId;
use crate::aggregate::error::DecideError;
use crate::append::Appended;
use crate::error::{AppendError, Error, Refusal};
use crate::event_store::sealed::Backend;
use crate::stream::StreamName;

/// The events that a command has recorded; none if it has not. `streams` are those that it can have
/// recorded them in, if they are known.
pub(crate) async fn recorded_by(
    store: &impl Backend,
    streams: Option<&[StreamName]>,
    command: CommandId,
) -> Result<Option<Appended>, OriginalError> {
    /// Most commands have fewer events: one query.
    const NUMBERS: usize = 16;
    let mut appended = Appended { repeated: true, ..Appended::nothing() };
    for first in (0..).step_by(NUMBERS) {
        let ids: Vec<_> = (first..first + NUMBERS).map(|n| command.event_id(n)).collect();
        let recorded = store.recorded(&ids).await.map_err(OriginalError::Load)?;
        for event in &recorded {
            if streams.is_some_and(|streams| !streams.contains(&event.stream)) {
                return Err(OriginalError::Taken(event.taken()));
            }
            appended.events.push((event.version, event.position));
            appended.recorded_at = Some(event.recorded_at);
        }
        if recorded.len() < NUMBERS {
            break;
        }
    }
    Ok((!appended.events.is_empty()).then_some(appended))
}

/// Why the original answer of a command is not known.
pub(crate) enum OriginalError {
    Load(Error),
    /// The command's id was used on another stream.
    Taken(Refusal),
}

impl<E> From<OriginalError> for DecideError<E> {
    fn from(error: OriginalError) -> Self {
        match error {
            OriginalError::Load(error) => Self::Load(error),
            OriginalError::Taken(refusal) => Self::Append(AppendError::Refused(vec![refusal])),
        }
    }
}
