//! Deciding: load the state, decide, append under the loaded versions; after a conflict decide again.

use std::num::NonZeroU32;

use crate::aggregate::backoff;
use crate::aggregate::command::CommandId;
use crate::aggregate::error::DecideError;
use crate::aggregate::fold::Folded;
use crate::aggregate::several::Aggregates;
use crate::aggregate::{AsOf, load, snapshots};
use crate::append::{Append, Appended};
use crate::error::{AppendError, Conflict, Error, Refusal};
use crate::event::NewEvent;
use crate::event_store::sealed::Backend;
use crate::stream::{Position, StreamName};
use crate::telemetry::{self, DecisionOutcome};

/// Tries of a decision, unless [`Decide::tries_max`] sets another number.
const TRIES_MAX: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// Events that a conflict contains, so that a decision is repeated without a read.
const CONFLICT_EVENTS_MAX: u16 = 64;

/// The streams of a decision, and its options, for
/// [`EventStore::decide`](crate::EventStore::decide). A `&StreamName`, a tuple of two to four, or a
/// `&[StreamName]` converts into one.
#[derive(Debug, Clone)]
pub struct Decide<T> {
    streams: T,
    command: Option<CommandId>,
    tries_max: NonZeroU32,
}

impl<T> Decide<T> {
    /// A decision on the aggregates of these streams.
    #[must_use]
    pub fn on(streams: impl Into<Self>) -> Self {
        streams.into()
    }

    /// Makes the decision a command that is recorded once: a later decision with the same id
    /// records nothing and gets the original answer, even if the state has changed since and the
    /// domain would refuse now.
    ///
    /// The events get the ids of [`CommandId::event_id`], numbered over all streams in their order,
    /// and the command's id as causation id unless they have one. A command that the domain refuses,
    /// or that has no events, leaves no trace: it is decided again when it is repeated.
    #[must_use]
    pub fn command(mut self, id: impl Into<CommandId>) -> Self {
        self.command = Some(id.into());
        self
    }

    /// Maximum number of appends that are tried; 20 by default. The pause before another try is
    /// random, up to 1 ms at first; the bound doubles with each try, up to 100 ms.
    #[must_use]
    pub const fn tries_max(mut self, tries_max: NonZeroU32) -> Self {
        self.tries_max = tries_max;
        self
    }

    const fn of(streams: T) -> Self {
        Self { streams, command: None, tries_max: TRIES_MAX }
    }
}

impl From<&StreamName> for Decide<StreamName> {
    fn from(stream: &StreamName) -> Self {
        Self::of(stream.clone())
    }
}

impl From<&[StreamName]> for Decide<Vec<StreamName>> {
    fn from(streams: &[StreamName]) -> Self {
        Self::of(streams.to_vec())
    }
}

macro_rules! from_tuple {
    ($($name:ident $stream:ty),+) => {
        impl From<($(&$stream,)+)> for Decide<($($stream,)+)> {
            fn from(($($name,)+): ($(&$stream,)+)) -> Self {
                Self::of(($($name.clone(),)+))
            }
        }
    };
}
from_tuple!(a StreamName, b StreamName);
from_tuple!(a StreamName, b StreamName, c StreamName);
from_tuple!(a StreamName, b StreamName, c StreamName, d StreamName);

/// A recorded decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided<S> {
    /// The state after the events. Of a repeated command: the state after its original events. Other
    /// appends can have changed the streams since.
    pub state: S,
    /// The recorded events, stream by stream; [`Appended::repeated`] tells whether an earlier
    /// decision of the command recorded them. Empty if the decision has no events.
    pub appended: Appended,
    /// Appends that were tried; more than 1 after conflicts or failures that passed.
    pub tries: u32,
}

/// Decides until the decision is recorded, refused, or cannot be recorded.
pub(crate) async fn decide<S, E>(
    store: &impl Backend,
    request: Decide<S::Streams>,
    decision: impl FnMut(&S) -> Result<S::Events, E> + Send,
) -> Result<Decided<S>, DecideError<E>>
where
    S: Aggregates,
    E: Send,
{
    // Boxed, so that the futures of callers stay small.
    let result = Box::pin(decide_until_recorded(store, request, decision)).await;
    telemetry::decided(match &result {
        Ok(decided) if decided.appended.repeated => DecisionOutcome::Repeated,
        Ok(decided) => DecisionOutcome::Decided { tries: decided.tries },
        Err(DecideError::Refused(_)) => DecisionOutcome::Refused,
        Err(DecideError::Contended { .. }) => DecisionOutcome::Contended,
        Err(DecideError::Append(_) | DecideError::Load(_) | DecideError::Encode(_)) => {
            DecisionOutcome::Failed
        }
    });
    result
}

async fn decide_until_recorded<S, E>(
    store: &impl Backend,
    request: Decide<S::Streams>,
    mut decision: impl FnMut(&S) -> Result<S::Events, E> + Send,
) -> Result<Decided<S>, DecideError<E>>
where
    S: Aggregates,
    E: Send,
{
    let mut deciding = Deciding::<_, S>::new(store, request);
    deciding.reload().await.map_err(DecideError::Load)?;
    loop {
        let events = match decision(&deciding.states) {
            Ok(events) => events,
            Err(refused) => {
                let original = deciding.original().await?;
                return original.ok_or(DecideError::Refused(refused));
            }
        };
        let new = S::encode(&events).map_err(DecideError::Encode)?;
        if new.iter().all(Vec::is_empty) {
            let original = deciding.original().await?;
            return Ok(original.unwrap_or_else(|| deciding.decided(Appended::nothing())));
        }
        let append = deciding.append_of(new);
        match deciding.settle(&append).await.map_err(DecideError::Append)? {
            Settled::Appended(appended) => {
                deciding.states.apply_all(events);
                deciding.save_snapshots(&append, &appended);
                return Ok(deciding.decided(appended));
            }
            Settled::Recorded(refused) => {
                let original = deciding.original().await?;
                return original.ok_or(DecideError::Append(refused));
            }
            Settled::Conflicts(conflicts) => deciding.catch_up(conflicts).await?,
        }
    }
}

/// The outcome of an append that is known.
enum Settled {
    Appended(Appended),
    Conflicts(Vec<Conflict>),
    /// The command, or another one with its id, has recorded events.
    Recorded(AppendError),
}

/// A decision in progress.
struct Deciding<'a, B, S: Aggregates> {
    store: &'a B,
    request: Decide<S::Streams>,
    states: S,
    folded: Vec<Folded>,
    tries: u32,
}

impl<'a, B: Backend, S: Aggregates> Deciding<'a, B, S> {
    fn new(store: &'a B, request: Decide<S::Streams>) -> Self {
        let states = S::initial(&request.streams);
        Self { store, request, states, folded: Vec::new(), tries: 0 }
    }

    /// Loads all states anew.
    async fn reload(&mut self) -> Result<(), Error> {
        let names = S::names(&self.request.streams);
        self.states = S::initial(&self.request.streams);
        self.folded = names.iter().map(Folded::nothing).collect();
        load::restore_all(self.store, self.states.folds(), &mut self.folded).await?;
        self.advance().await
    }

    async fn advance(&mut self) -> Result<(), Error> {
        load::advance_all(self.store, self.states.folds(), &mut self.folded).await
    }

    fn decided(self, appended: Appended) -> Decided<S> {
        Decided { state: self.states, appended, tries: self.tries }
    }

    /// Saves the states that are due, in a task of its own.
    fn save_snapshots(&mut self, append: &Append, appended: &Appended) {
        for ((index, _), (version, _)) in append.events.iter().zip(&appended.events) {
            if let Some(folded) = self.folded.get_mut(*index) {
                folded.version = Some(*version);
            }
        }
        let folds = self.states.folds();
        let due = self.folded.iter().zip(folds);
        let due = due.filter_map(|(folded, state)| folded.snapshot_if_due(state)).collect();
        snapshots::write_later(self.store, due);
    }

    /// The append of a decision, under the versions of all its streams.
    fn append_of(&self, events: Vec<Vec<NewEvent>>) -> Append {
        let mut events = events.into_iter();
        let mut number = 0;
        self.folded
            .iter()
            .fold(Append::default(), |append, folded| {
                let events = events.next().unwrap_or_default().into_iter().map(|event| {
                    let event = self.of_command(event, number);
                    number += 1;
                    event
                });
                let events: Vec<_> = events.collect();
                append.and_to(&folded.stream, folded.version.into(), events)
            })
            .with_conflict_events(CONFLICT_EVENTS_MAX)
    }

    fn of_command(&self, mut event: NewEvent, number: usize) -> NewEvent {
        let Some(command) = self.request.command else { return event };
        event.metadata.causation_id.get_or_insert(command.get());
        event.with_id(command.event_id(number))
    }

    /// Appends until the outcome is known. The events keep their ids: they are recorded once.
    async fn settle(&mut self, append: &Append) -> Result<Settled, AppendError> {
        let mut unknown = None;
        loop {
            self.tries += 1;
            let failed = match self.store.record(append).await {
                Ok(appended) if appended.repeated && self.request.command.is_some() => {
                    // The original command can have recorded other events than this decision has.
                    return Ok(Settled::Recorded(AppendError::Refused(Vec::new())));
                }
                Ok(appended) => return Ok(Settled::Appended(appended)),
                Err(AppendError::Refused(refusals)) => return self.refused(refusals),
                Err(failed) => failed,
            };
            if !failed.is_retryable() || self.is_last_try() {
                return Err(unknown.unwrap_or(failed));
            }
            if let AppendError::Unknown(_) | AppendError::Interrupted = failed {
                // A later failure does not tell the outcome of this try.
                unknown.get_or_insert(failed);
            }
            backoff::pause(self.tries).await;
        }
    }

    fn refused(&self, refusals: Vec<Refusal>) -> Result<Settled, AppendError> {
        let is_recorded = |refusal: &Refusal| {
            matches!(refusal, Refusal::IdTaken { .. } | Refusal::PartlyKnown { .. })
        };
        if self.request.command.is_some() && refusals.iter().any(is_recorded) {
            return Ok(Settled::Recorded(AppendError::Refused(refusals)));
        }
        let conflicts: Vec<_> = refusals.iter().filter_map(Refusal::conflict).cloned().collect();
        if conflicts.len() == refusals.len() {
            return Ok(Settled::Conflicts(conflicts));
        }
        Err(AppendError::Refused(refusals))
    }

    const fn is_last_try(&self) -> bool {
        self.tries >= self.request.tries_max.get()
    }

    /// Brings the states up to the versions of the conflicts. The append met all its streams at one
    /// moment, so that the states are those of one moment again.
    async fn catch_up<E>(&mut self, conflicts: Vec<Conflict>) -> Result<(), DecideError<E>> {
        if self.is_last_try() {
            return Err(DecideError::Contended { tries: self.tries, conflicts });
        }
        backoff::pause(self.tries).await;
        let is_complete = self.apply(&conflicts).map_err(DecideError::Load)?;
        let advanced = if is_complete {
            Ok(())
        } else if self.is_ahead_of(&conflicts) {
            self.reload().await
        } else {
            self.advance().await
        };
        advanced.map_err(DecideError::Load)
    }

    fn apply(&mut self, conflicts: &[Conflict]) -> Result<bool, Error> {
        let mut is_complete = true;
        for (folded, state) in self.folded.iter_mut().zip(self.states.folds()) {
            let of_stream = conflicts.iter().find(|conflict| conflict.stream == folded.stream);
            if let Some(conflict) = of_stream {
                is_complete &= folded.catch_up(state, &conflict.events, conflict.actual)?;
            }
        }
        Ok(is_complete)
    }

    /// Whether the database lost events that are in a state: it was restored, or a standby that
    /// lagged was promoted.
    fn is_ahead_of(&self, conflicts: &[Conflict]) -> bool {
        self.folded.iter().any(|folded| {
            let of_stream = conflicts.iter().find(|conflict| conflict.stream == folded.stream);
            of_stream.is_some_and(|conflict| conflict.actual < folded.version)
        })
    }

    /// The original answer, if the command has recorded events: the states up to them.
    async fn original<E>(&mut self) -> Result<Option<Decided<S>>, DecideError<E>> {
        let Some(command) = self.request.command else { return Ok(None) };
        let names = S::names(&self.request.streams);
        let recorded = recorded_by(self.store, &names, command).await?;
        let Some(appended) = recorded else { return Ok(None) };
        let position = appended.events.iter().map(|(_, position)| *position).max();
        let until = Some(AsOf::Position(position.unwrap_or(Position::ORIGIN)));
        let mut original = Self::new(self.store, self.request.clone());
        for (stream, state) in names.iter().zip(original.states.folds()) {
            let advanced = Folded::nothing(stream).advance(self.store, state, until).await;
            advanced.map_err(DecideError::Load)?;
        }
        original.tries = self.tries;
        Ok(Some(original.decided(appended)))
    }
}

/// The events that a command has recorded; none if it has not.
async fn recorded_by(
    store: &impl Backend,
    streams: &[StreamName],
    command: CommandId,
) -> Result<Option<Appended>, OriginalError> {
    /// Most commands have fewer events: one query.
    const NUMBERS: usize = 16;
    let mut appended = Appended { repeated: true, ..Appended::nothing() };
    for first in (0..).step_by(NUMBERS) {
        let ids: Vec<_> = (first..first + NUMBERS).map(|n| command.event_id(n)).collect();
        let recorded = store.recorded(&ids).await.map_err(OriginalError::Load)?;
        for event in &recorded {
            if !streams.contains(&event.stream) {
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
enum OriginalError {
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
