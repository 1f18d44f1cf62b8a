//! Deciding: load the state, decide, append under the loaded versions; after a conflict decide
//! again.

use crate::aggregate::error::DecideError;
use crate::aggregate::fold::Folded;
use crate::aggregate::original::recorded_by;
use crate::aggregate::request::Decide;
use crate::aggregate::settle::{Settled, Tries};
use crate::aggregate::several::Aggregates;
use crate::aggregate::{AsOf, load, snapshots};
use crate::append::{Append, Appended};
use crate::backoff;
use crate::error::{AppendError, Conflict, Error, Refusal};
use crate::event::NewEvent;
use crate::event_store::sealed::Backend;
use crate::stream::Position;
use crate::telemetry::{self, DecisionOutcome};

/// Events that a conflict contains, so that a decision is repeated without a read.
pub(super) const CONFLICT_EVENTS_MAX: u16 = 64;

/// A recorded decision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decided<S> {
    /// The state after the events. Of a repeated command: the state after its original events.
    /// Other appends can have changed the streams since.
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
    count(&result);
    result
}

/// Counts a decision in the metrics.
pub(super) fn count<S, E>(result: &Result<Decided<S>, DecideError<E>>) {
    telemetry::decided(match result {
        Ok(decided) if decided.appended.repeated => DecisionOutcome::Repeated,
        Ok(decided) => DecisionOutcome::Decided { tries: decided.tries },
        Err(DecideError::Refused(_)) => DecisionOutcome::Refused,
        Err(DecideError::Contended { .. } | DecideError::ContendedTags { .. }) => {
            DecisionOutcome::Contended
        }
        Err(DecideError::Append(_) | DecideError::Load(_) | DecideError::Encode(_)) => {
            DecisionOutcome::Failed
        }
    });
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
    // Before the load, so that the state is the latest when the turn comes.
    let _turn = store.turns().take(S::names(&request.on)).await;
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
        deciding.check_lists(new.len()).map_err(DecideError::Append)?;
        if new.iter().all(Vec::is_empty) {
            let original = deciding.original().await?;
            return Ok(original.unwrap_or_else(|| deciding.decided(Appended::nothing())));
        }
        let append = deciding.append_of(new);
        let settled = deciding.request.settle(store, &append, &mut deciding.tries).await;
        match settled.map_err(DecideError::Append)? {
            Settled::Appended(appended) => {
                deciding.apply_appended(events, &append, &appended)?;
                deciding.save_snapshots(&append, &appended);
                return Ok(deciding.decided(appended));
            }
            Settled::Recorded(refused) => {
                let original = deciding.original().await?;
                return original.ok_or(DecideError::Append(refused));
            }
            Settled::Refused(refusals) => deciding.catch_up(refusals).await?,
        }
    }
}

/// A decision in progress.
struct Deciding<'a, B, S: Aggregates> {
    store: &'a B,
    request: Decide<S::Streams>,
    states: S,
    folded: Vec<Folded>,
    tries: Tries,
}

impl<'a, B: Backend, S: Aggregates> Deciding<'a, B, S> {
    fn new(store: &'a B, request: Decide<S::Streams>) -> Self {
        let states = S::initial(&request.on);
        Self { store, request, states, folded: Vec::new(), tries: Tries::default() }
    }

    /// Loads all states anew.
    async fn reload(&mut self) -> Result<(), Error> {
        let names = S::names(&self.request.on);
        self.states = S::initial(&self.request.on);
        self.folded = names.iter().map(Folded::nothing).collect();
        load::restore_all(self.store, self.states.folds(), &mut self.folded).await?;
        self.advance().await
    }

    async fn advance(&mut self) -> Result<(), Error> {
        load::advance_all(self.store, self.states.folds(), &mut self.folded).await
    }

    fn decided(self, appended: Appended) -> Decided<S> {
        Decided { state: self.states, appended, tries: self.tries.0 }
    }

    /// Applies the events of the decision. Those with personal values are applied as a load does
    /// it, sealed, so that a state has no open value and can be saved.
    fn apply_appended<E>(
        &mut self,
        events: S::Events,
        append: &Append,
        appended: &Appended,
    ) -> Result<(), DecideError<E>> {
        if !append.events().any(NewEvent::is_personal) {
            self.states.apply_all(events);
            return Ok(());
        }
        let mut folds = self.states.folds();
        for ((index, event), place) in append.events.iter().zip(&appended.events) {
            if let (Some(state), Some((stream, _))) =
                (folds.get_mut(*index), append.streams.get(*index))
            {
                let recorded = event.recorded(stream, *place, appended.recorded_at);
                state.apply_recorded(&recorded).map_err(DecideError::Load)?;
            }
        }
        Ok(())
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

    /// Refuses lists of events that belong to no stream.
    fn check_lists(&self, actual: usize) -> Result<(), AppendError> {
        let max = self.folded.len();
        if actual <= max {
            return Ok(());
        }
        let what = "lists of events of the decision, one for each stream".to_owned();
        Err(AppendError::Refused(vec![Refusal::Limit { what, actual, max }]))
    }

    /// The append of a decision, under the versions of all its streams.
    fn append_of(&self, events: Vec<Vec<NewEvent>>) -> Append {
        let mut events = events.into_iter();
        let mut number = 0;
        self.folded
            .iter()
            .fold(Append::default(), |append, folded| {
                let events = events.next().unwrap_or_default().into_iter().map(|event| {
                    let event = self.request.event(event, number);
                    number += 1;
                    event
                });
                let events: Vec<_> = events.collect();
                append.and_to(&folded.stream, folded.version.into(), events)
            })
            .with_conflict_events(CONFLICT_EVENTS_MAX)
    }

    /// Brings the states up to the versions of the conflicts. The append met all its streams at one
    /// moment, so that the states are those of one moment again.
    async fn catch_up<E>(&mut self, refusals: Vec<Refusal>) -> Result<(), DecideError<E>> {
        let conflicts: Vec<_> = refusals.iter().filter_map(Refusal::conflict).cloned().collect();
        if conflicts.len() < refusals.len() {
            return Err(DecideError::Append(AppendError::Refused(refusals)));
        }
        if self.request.is_last(self.tries) {
            return Err(DecideError::Contended { tries: self.tries.0, conflicts });
        }
        backoff::pause(self.tries.0).await;
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
        let names = S::names(&self.request.on);
        let recorded = recorded_by(self.store, Some(&names), command).await?;
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
