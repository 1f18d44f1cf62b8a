//! Deciding on the events with some tags: read them, decide, append under the condition that no
//! further one came; after a conflict decide again.

use std::pin::pin;

use futures_util::TryStreamExt;

use crate::aggregate::error::DecideError;
use crate::aggregate::fold::Fold;
use crate::aggregate::original::recorded_by;
use crate::aggregate::request::Decide;
use crate::aggregate::settle::{Settled, Tries};
use crate::aggregate::tagged_states::TaggedStates;
use crate::aggregate::{Decided, decide};
use crate::append::{Append, AppendCondition, Appended};
use crate::backoff;
use crate::error::{AppendError, Error, Refusal, TagConflict};
use crate::event::RecordedEvent;
use crate::event_store::sealed::Backend;
use crate::read::Read;
use crate::stream::Position;
use crate::tag::Tag;

/// Decides until the decision is recorded, refused, or cannot be recorded.
pub(crate) async fn decide_on_tags<S, E>(
    store: &impl Backend,
    request: Decide<S::Tags>,
    decision: impl FnMut(&S) -> Result<Append, E> + Send,
) -> Result<Decided<S>, DecideError<E>>
where
    S: TaggedStates,
    E: Send,
{
    // Boxed, so that the futures of callers stay small.
    let result = Box::pin(decide_until_recorded(store, request, decision)).await;
    decide::count(&result);
    result
}

async fn decide_until_recorded<S, E>(
    store: &impl Backend,
    request: Decide<S::Tags>,
    mut decision: impl FnMut(&S) -> Result<Append, E> + Send,
) -> Result<Decided<S>, DecideError<E>>
where
    S: TaggedStates,
    E: Send,
{
    let mut deciding = DecidingOnTags::<_, S>::new(store, request);
    deciding.read_to_one_moment().await.map_err(DecideError::Load)?;
    loop {
        let append = match decision(&deciding.states) {
            Ok(append) => append,
            Err(refused) => {
                let original = deciding.original().await?;
                return original.ok_or(DecideError::Refused(refused));
            }
        };
        if append.events().len() == 0 {
            let original = deciding.original().await?;
            return Ok(original.unwrap_or_else(|| deciding.decided(Appended::nothing())));
        }
        let append = deciding.conditioned(append);
        let settled = deciding.request.settle(store, &append, &mut deciding.tries).await;
        match settled.map_err(DecideError::Append)? {
            Settled::Appended(appended) => {
                deciding.apply_appended(&append, &appended).map_err(DecideError::Load)?;
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
struct DecidingOnTags<'a, B, S: TaggedStates> {
    store: &'a B,
    request: Decide<S::Tags>,
    states: S,
    /// Each tag, with the position of its last event that the states have.
    tags: Vec<(Tag, Option<Position>)>,
    tries: Tries,
}

impl<'a, B: Backend, S: TaggedStates> DecidingOnTags<'a, B, S> {
    fn new(store: &'a B, request: Decide<S::Tags>) -> Self {
        let tags = S::tags(&request.on).into_iter().map(|tag| (tag, None)).collect();
        Self { store, request, states: S::default(), tags, tries: Tries::default() }
    }

    /// Reads on until no tag has another event. Along one tag, positions follow the order of the
    /// commits: what two reads of it find unchanged was so between them, when the other tags were
    /// read.
    async fn read_to_one_moment(&mut self) -> Result<(), Error> {
        while self.read_on(None).await? && self.tags.len() > 1 {}
        Ok(())
    }

    /// Applies the further events of each tag, up to a position if there is one; whether there
    /// were any.
    async fn read_on(&mut self, until: Option<Position>) -> Result<bool, Error> {
        let mut is_changed = false;
        for ((tag, last), state) in self.tags.iter_mut().zip(self.states.folds()) {
            let before = *last;
            *last = read_tag(self.store, (tag, before), state, until).await?;
            is_changed |= *last != before;
        }
        Ok(is_changed)
    }

    fn decided(self, appended: Appended) -> Decided<S> {
        Decided { state: self.states, appended, tries: self.tries.0 }
    }

    /// The append of a decision, under a condition for each tag.
    fn conditioned(&self, mut append: Append) -> Append {
        for (number, (_, event)) in append.events.iter_mut().enumerate() {
            *event = self.request.event(event.clone(), number);
        }
        let condition = |(tag, last): &(Tag, Option<Position>)| {
            AppendCondition::no_event_with(tag.clone()).after(*last)
        };
        self.tags
            .iter()
            .map(condition)
            .fold(append, Append::under)
            .with_conflict_events(decide::CONFLICT_EVENTS_MAX)
    }

    /// Applies the events of the decision to the states of their tags.
    fn apply_appended(&mut self, append: &Append, appended: &Appended) -> Result<(), Error> {
        for ((index, event), place) in append.events.iter().zip(&appended.events) {
            let Some((stream, _)) = append.streams.get(*index) else { continue };
            let recorded = event.recorded(stream, *place, appended.recorded_at);
            let states = self.tags.iter().zip(self.states.folds());
            for (_, state) in states.filter(|((tag, _), _)| event.tags.contains(tag)) {
                apply(state, &recorded)?;
            }
        }
        Ok(())
    }

    /// Brings the states up to the conflicts. The append met all its tags at one moment, so that
    /// the states are those of one moment again.
    async fn catch_up<E>(&mut self, refusals: Vec<Refusal>) -> Result<(), DecideError<E>> {
        let conflicts: Vec<&TagConflict> = refusals.iter().filter_map(of_tag).collect();
        if conflicts.is_empty() {
            return Err(DecideError::Append(AppendError::Refused(refusals)));
        }
        if self.request.is_last(self.tries) {
            let tags = conflicts.into_iter().map(|conflict| conflict.tag.clone()).collect();
            return Err(DecideError::ContendedTags { tries: self.tries.0, tags });
        }
        backoff::pause(self.tries.0).await;
        if !self.apply(&conflicts).map_err(DecideError::Load)? {
            self.read_to_one_moment().await.map_err(DecideError::Load)?;
        }
        Ok(())
    }

    /// Applies the events of conflicts; false if some are missing.
    fn apply(&mut self, conflicts: &[&TagConflict]) -> Result<bool, Error> {
        let mut is_complete = true;
        for ((tag, last), state) in self.tags.iter_mut().zip(self.states.folds()) {
            let Some(conflict) = conflicts.iter().find(|of| of.tag == *tag) else { continue };
            for event in &conflict.events {
                apply(state, event)?;
                *last = Some(event.position);
            }
            is_complete &= *last == Some(conflict.last);
        }
        Ok(is_complete)
    }

    /// The original answer, if the command has recorded events: the states up to them.
    async fn original<E>(&mut self) -> Result<Option<Decided<S>>, DecideError<E>> {
        let Some(command) = self.request.command else { return Ok(None) };
        let Some(appended) = recorded_by(self.store, None, command).await? else { return Ok(None) };
        let position = appended.events.iter().map(|(_, position)| *position).max();
        let mut original = Self::new(self.store, self.request.clone());
        original.read_on(position).await.map_err(DecideError::Load)?;
        original.tries = self.tries;
        Ok(Some(original.decided(appended)))
    }
}

/// Applies the events of a tag behind a position, up to another one if it is given; returns the
/// position of the last one.
async fn read_tag(
    store: &impl Backend,
    (tag, mut last): (&Tag, Option<Position>),
    state: &mut dyn Fold,
    until: Option<Position>,
) -> Result<Option<Position>, Error> {
    let read = Read::tag(tag).from(last.unwrap_or(Position::ORIGIN).saturating_add(1));
    let mut events = pin!(store.query(read));
    while let Some(event) = events.try_next().await? {
        if until.is_some_and(|until| event.position > until) {
            break;
        }
        apply(state, &event)?;
        last = Some(event.position);
    }
    Ok(last)
}

/// Applies an event with a tag, if it is of the state's category.
fn apply(state: &mut dyn Fold, event: &RecordedEvent) -> Result<(), Error> {
    if event.stream.category() == state.category() { state.apply_recorded(event) } else { Ok(()) }
}

const fn of_tag(refusal: &Refusal) -> Option<&TagConflict> {
    if let Refusal::TagConflict(conflict) = refusal { Some(conflict) } else { None }
}
